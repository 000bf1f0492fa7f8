//! The listening half of a socket: binding TCP ports and Unix socket files, accepting connections.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cob_protocol::limits::ZMTP_SEND_BUFFER_BYTES;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use super::endpoint::Endpoint;
use super::stream::Stream;

const BACKLOG: u32 = 1024;

/// A bound socket.
#[derive(Debug)]
pub(super) enum Listener {
    /// With the silence after which its peers are asked whether they are there.
    Tcp(TcpListener, Option<Duration>),
    Ipc(UnixListener),
}

impl Listener {
    /// Binds; gives back the endpoint with the real port, and what removes the socket file in the end.
    pub(super) async fn bind(
        endpoint: &Endpoint,
        silence: Option<Duration>,
    ) -> io::Result<(Listener, Endpoint, Option<SocketFile>)> {
        let bound = match endpoint {
            Endpoint::Tcp(address) => bind_tcp(*address, silence),
            Endpoint::Ipc(path) => bind_ipc(path).await,
        };
        bound.map_err(|error| io::Error::new(error.kind(), format!("cannot bind {endpoint}: {error}")))
    }

    /// The next connection and a name for it in the log. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<(Stream, String)> {
        match self {
            Listener::Tcp(listener, silence) => {
                let (stream, address) = listener.accept().await?;
                // A peer that left meanwhile makes this fail; its first read says so.
                stream.set_nodelay(true).ok();
                silence.and_then(|silence| watch(&stream, silence).ok());
                Ok((Stream::Tcp(stream), address.to_string()))
            }
            Listener::Ipc(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Ipc(stream), "ipc".to_owned()))
            }
        }
    }
}

fn bind_tcp(
    address: SocketAddr,
    silence: Option<Duration>,
) -> io::Result<(Listener, Endpoint, Option<SocketFile>)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Both are inherited by what is accepted. A client that vanished without a word is noticed some day.
    socket.set_keepalive(true)?;
    socket.set_send_buffer_size(ZMTP_SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let endpoint = Endpoint::Tcp(listener.local_addr()?);
    Ok((Listener::Tcp(listener, silence), endpoint, None))
}

/// Lets the system give a connection up when the other side's machine does not answer: neither to probes, which begin
/// after this silence, nor to what is sent, for twice as long. For peers that cannot be asked otherwise.
fn watch(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    const PROBES: u32 = 4;
    sockopt::set_tcp_keepidle(stream, silence)?;
    sockopt::set_tcp_keepintvl(stream, silence / PROBES)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    let twice = u32::try_from(2 * silence.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(stream, twice)?)
}

async fn bind_ipc(path: &Path) -> io::Result<(Listener, Endpoint, Option<SocketFile>)> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path).await?;
            UnixListener::bind(path)
        }
        bound => bound,
    }?;
    let file = SocketFile::of(path)?;
    Ok((Listener::Ipc(listener), Endpoint::Ipc(path.to_owned()), Some(file)))
}

/// Removes a socket file behind which nobody listens; a file that is no socket is never touched.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let in_use = |why| io::Error::new(io::ErrorKind::AddrInUse, why);
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(in_use("a file that is no socket is in the way"));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Connected, or a full backlog: somebody is there.
        Ok(_) | Err(_) => Err(in_use("another process listens there")),
    }
}

/// A socket file of ours, removed when this is dropped unless somebody has put another in its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(SocketFile { inode: inode(path)?, path: path.to_owned() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            fs::remove_file(&self.path).ok();
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, Endpoint, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("socket");
        (dir, Endpoint::Ipc(path.clone()), path)
    }

    #[tokio::test]
    async fn port_zero_becomes_a_real_port() {
        let endpoint = "tcp://127.0.0.1:0".parse().expect("an endpoint");
        let (_listener, bound, _) = Listener::bind(&endpoint, None).await.expect("a free port");
        assert!(matches!(bound, Endpoint::Tcp(address) if address.port() != 0));
    }

    #[tokio::test]
    async fn what_is_accepted_is_watched_by_the_system() {
        let endpoint = "tcp://127.0.0.1:0".parse().expect("an endpoint");
        let silence = Duration::from_secs(20);
        let (listener, bound, _) = Listener::bind(&endpoint, Some(silence)).await.expect("a free port");
        let Endpoint::Tcp(address) = bound else { unreachable!("a TCP endpoint") };
        let _peer = TcpStream::connect(address).await.expect("it listens");
        let (Stream::Tcp(accepted), _) = listener.accept().await.expect("a connection") else {
            unreachable!("a TCP stream")
        };
        assert_eq!(sockopt::socket_keepalive(&accepted), Ok(true));
        assert_eq!(sockopt::tcp_keepidle(&accepted), Ok(silence));
        assert_eq!(sockopt::tcp_keepintvl(&accepted), Ok(silence / 4));
        assert_eq!(sockopt::tcp_keepcnt(&accepted), Ok(4));
        assert_eq!(sockopt::tcp_user_timeout(&accepted), Ok(40_000));
    }

    #[tokio::test]
    async fn a_stale_socket_file_is_replaced_and_removed_in_the_end() {
        let (_dir, endpoint, path) = scratch();
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket file"));
        assert!(path.exists(), "std leaves the file behind");
        let (listener, _, file) =
            Listener::bind(&endpoint, None).await.expect("the stale file is no obstacle");
        drop((listener, file));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_in_use_is_left_alone() {
        let (_dir, endpoint, path) = scratch();
        let first = Listener::bind(&endpoint, None).await.expect("a free path");
        let error = Listener::bind(&endpoint, None).await.expect_err("the path is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("another process listens there"), "{error}");
        assert!(path.exists());
        drop(first);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_removed() {
        let (_dir, endpoint, path) = scratch();
        fs::write(&path, "precious").expect("a file");
        let error = Listener::bind(&endpoint, None).await.expect_err("the path is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).ok().as_deref(), Some(b"precious".as_slice()));
    }

    #[tokio::test]
    async fn a_socket_of_somebody_else_in_our_place_is_not_removed() {
        let (_dir, endpoint, path) = scratch();
        let (_listener, _, file) = Listener::bind(&endpoint, None).await.expect("a free path");
        fs::rename(&path, path.with_extension("old")).expect("renamed");
        let _other = std::os::unix::net::UnixListener::bind(&path).expect("a socket file");
        drop(file);
        assert!(path.exists());
    }
}

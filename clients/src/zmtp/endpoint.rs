//! The address of a socket as ZeroMQ writes it: `tcp://ip:port` or `ipc://path`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `tcp://ip:port`; port 0 asks the system for a free one.
    Tcp(SocketAddr),
    /// `ipc://path`: a Unix socket in the file system.
    Ipc(PathBuf),
}

/// A text that is not the address of a socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an endpoint: {why}")]
pub struct EndpointError {
    text: String,
    why: &'static str,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Parses `tcp://127.0.0.1:0`, `tcp://[::1]:80`, `ipc:///run/x`. As in libzmq, `*` stands for every
    /// interface before the colon and for a free port after it; `localhost` is the IPv4 loopback.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let fail = |why| EndpointError { text: text.to_owned(), why };
        match text.split_once("://") {
            Some(("tcp", address)) => tcp(address).map_err(fail),
            Some(("ipc", path)) => ipc(path).map_err(fail),
            Some(_) => Err(fail("the transport must be tcp or ipc")),
            None => Err(fail("it must start with tcp:// or ipc://")),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => write!(f, "tcp://{address}"),
            Endpoint::Ipc(path) => write!(f, "ipc://{}", path.display()),
        }
    }
}

fn tcp(address: &str) -> Result<Endpoint, &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("the port is missing")?;
    let host = match host {
        "*" => "0.0.0.0",
        "localhost" => "127.0.0.1",
        host => host,
    };
    let port = if port == "*" { "0" } else { port };
    let address = format!("{host}:{port}").parse().map_err(|_| "expected ip:port")?;
    Ok(Endpoint::Tcp(address))
}

fn ipc(path: &str) -> Result<Endpoint, &'static str> {
    match path.as_bytes().first() {
        None => Err("the path is empty"),
        // libzmq reads these as "abstract name" and "any free name": a file of that name would be found by no
        // client.
        Some(b'@' | b'*') => Err("the path must name a file"),
        Some(_) => Ok(Endpoint::Ipc(PathBuf::from(path))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_reads_back_what_it_writes() {
        for text in ["tcp://127.0.0.1:0", "tcp://[::1]:5555", "ipc:///tmp/a b", "ipc://relative"] {
            assert_eq!(text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn wildcards_mean_what_libzmq_means() {
        assert_eq!("tcp://*:*".parse::<Endpoint>().map(|e| e.to_string()), Ok("tcp://0.0.0.0:0".to_owned()));
        assert_eq!(
            "tcp://localhost:1".parse::<Endpoint>().map(|e| e.to_string()),
            Ok("tcp://127.0.0.1:1".to_owned())
        );
    }

    #[test]
    fn a_text_that_is_no_endpoint_says_why() {
        for (text, why) in [
            ("127.0.0.1:80", "it must start with tcp:// or ipc://"),
            ("udp://127.0.0.1:80", "the transport must be tcp or ipc"),
            ("tcp://127.0.0.1", "the port is missing"),
            ("tcp://nowhere:80", "expected ip:port"),
            ("ipc://", "the path is empty"),
            ("ipc://@x", "the path must name a file"),
        ] {
            assert_eq!(text.parse::<Endpoint>().map_err(|error| error.why), Err(why), "{text}");
        }
    }
}

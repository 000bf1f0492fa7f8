//! Whoever may connect to the server's socket may send what they like: others are served on.

use std::io::{IoSlice, Result};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use cob_pool::{Program, Request, SharedPool};
use cob_protocol::handshake::{Hello, VERSIONS};
use cob_protocol::json::Json;
use cob_protocol::resources::Limits;
use cob_tests::process;
use cob_tests::seed::Seed;
use cob_tests::server::TestServer;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, bind, connect, listen, recv, sendmsg, socket_with,
};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

const MIB: u64 = 1 << 20;
/// How a server is asked what it holds.
const INFO: &[u8] = b"\xa4info";

fn packets(flags: SocketFlags) -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags | SocketFlags::CLOEXEC, None).unwrap()
}

fn connected(server: &TestServer) -> OwnedFd {
    let socket = packets(SocketFlags::empty());
    connect(&socket, &SocketAddrUnix::new(server.runtime().join("pool")).unwrap()).unwrap();
    socket
}

/// Sends a packet with `count` descriptors beside it. A connection that was closed already is fine.
fn send(socket: &OwnedFd, packet: &[u8], count: usize) -> Result<usize> {
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let descriptors = vec![reader.as_fd(); count];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    assert!(count == 0 || beside.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(sendmsg(socket, &[IoSlice::new(packet)], &mut beside, flags)?)
}

/// Waits until the server has closed the connection, whatever it says before.
fn closed(socket: &OwnedFd) {
    let mut answer = vec![0; 1 << 16];
    while recv(socket, &mut answer[..], RecvFlags::empty()).is_ok_and(|(count, _)| count > 0) {}
}

async fn serves(server: &TestServer) {
    let kernel = server.kernel().await;
    assert_eq!(kernel.worker_from(0).await.1, "Warm");
    let mut client = kernel.client().await;
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
    drop((client, kernel));
    server.settled().await;
}

#[tokio::test]
async fn packets_that_mean_nothing_close_their_connection_and_cost_nothing() {
    let server = TestServer::start().await;
    serves(&server).await;
    let (descriptors, memory) = (server.descriptors(), process::resident_bytes(server.pid()));
    let mut seed = Seed::new(7);
    let fixed: [&[u8]; 6] =
        [b"\xa5lease", b"\x81\xa5lease\x80", b"\xdf\xff\xff\xff\xff", b"\xc0", b"{}", &[0x81; 40_000]];
    for round in 0..300 {
        let socket = connected(&server);
        let packet = match fixed.get(round % 12) {
            Some(packet) => packet.to_vec(),
            None => [vec![0xc1], seed.bytes(60_000)].concat(),
        };
        send(&socket, &packet, seed.below(30)).unwrap();
        closed(&socket);
    }
    let oversized = connected(&server);
    send(&oversized, &[0x80; 150_000], 0).unwrap();
    closed(&oversized);
    serves(&server).await;
    server.is_as_before(&descriptors);
    let growth = process::resident_bytes(server.pid()).saturating_sub(memory);
    assert!(growth < 8 * MIB, "the server grew by {growth} bytes");
}

#[tokio::test]
async fn connections_that_say_nothing_or_never_listen_are_in_nobodys_way() {
    let server = TestServer::start().await;
    serves(&server).await;
    let (descriptors, memory) = (server.descriptors(), process::resident_bytes(server.pid()));
    let silent: Vec<_> = (0..200).map(|_| connected(&server)).collect();
    let deaf: Vec<_> = (0..20).map(|_| connected(&server)).collect();
    for socket in &deaf {
        // Until neither side has any room left.
        while send(socket, INFO, 0).is_ok() {}
    }
    serves(&server).await;
    drop((silent, deaf));
    serves(&server).await;
    server.is_as_before(&descriptors);
    let growth = process::resident_bytes(server.pid()).saturating_sub(memory);
    assert!(growth < 32 * MIB, "the server grew by {growth} bytes");
}

#[tokio::test]
async fn descriptors_that_are_sent_along_are_closed() {
    let server = TestServer::start().await;
    serves(&server).await;
    let descriptors = server.descriptors();
    let socket = connected(&server);
    let mut answer = vec![0; 1 << 16];
    for round in 0..200 {
        send(&socket, INFO, round % 8).unwrap();
        let (count, _) = recv(&socket, &mut answer[..], RecvFlags::empty()).unwrap();
        assert!(count > 100);
    }
    drop(socket);
    serves(&server).await;
    server.is_as_before(&descriptors);
}

/// It used to try again at once, for ever, and filled its log.
#[tokio::test]
async fn a_server_without_descriptors_waits_for_some_and_kernels_start_cold() {
    let mut server = TestServer::start().await;
    server.expect_errors();
    let descriptors = server.descriptors();
    let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap());
    let before = getrlimit(Resource::Nofile);
    let few = Rlimit { current: Some(descriptors[0].len() as u64 + 30), maximum: before.maximum };
    let before = prlimit(pid, Resource::Nofile, few).unwrap();
    let address = SocketAddrUnix::new(server.runtime().join("pool")).unwrap();
    let crowd: Vec<_> = (0..400)
        .map(|_| {
            let socket = packets(SocketFlags::NONBLOCK);
            // When nobody is accepted any more and the queue is full it fails, which is what is wanted.
            let _ = connect(&socket, &address);
            socket
        })
        .collect();
    server.log_line("cannot accept a connection", 0).await.unwrap();
    let kernel = server.kernel().await;
    assert_eq!(kernel.worker_from(0).await.1, "Cold");
    drop(crowd);
    prlimit(pid, Resource::Nofile, before).unwrap();
    drop(kernel);
    // Waits until there is room in the queue again, and for its turn.
    let next = connected(&server);
    send(&next, INFO, 0).unwrap();
    recv(&next, &mut [0; 1 << 16][..], RecvFlags::empty()).unwrap();
    drop(next);
    serves(&server).await;
    server.is_as_before(&descriptors);
    let complaints = server.log().iter().filter(|line| line.contains("cannot accept")).count();
    assert!(complaints < 100, "{complaints} lines in the log");
}

fn request(program: &Path) -> Request {
    let hello = Hello {
        versions: VERSIONS,
        session: "s1".to_owned(),
        options: Json::object(),
        umask: None,
        confined: false,
        survives: false,
        resumes: false,
    };
    let program = Program {
        path: program.to_owned(),
        arguments: Vec::new(),
        image: None,
        environment: Vec::new(),
        directory: None,
    };
    Request { program, hello, limits: Limits::default() }
}

/// A kernel waited for ever for a server that was stopped.
#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_done_without() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pool");
    let listening = packets(SocketFlags::empty());
    bind(&listening, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&listening, 8).unwrap();
    let shared = SharedPool::at(path, "build".to_owned());
    assert!(shared.lease(&request(Path::new("/bin/true"))).await.unwrap().is_none());
    assert!(shared.info().await.unwrap_err().to_string().contains("does not answer"));
    drop(listening);
    assert!(shared.lease(&request(Path::new("/bin/true"))).await.unwrap().is_none());
}

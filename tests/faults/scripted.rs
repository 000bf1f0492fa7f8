//! W14 and its kin, with a worker that follows a script: whatever it says, the kernel lives and tells the truth.

use cob_pool::{Exit, Lane, Program, StartError, Worker, WorkerEvent};
use cob_protocol::frame::{Frame, Ping};
use cob_protocol::handshake::{Hello, VERSIONS};
use cob_protocol::json::Json;
use cob_protocol::message::Channel;
use cob_tests::kernel::{Setup, TestKernel};
use cob_tests::{process, within};

const WORKER: &str = env!("CARGO_BIN_EXE_scripted-worker");

async fn kernel(script: &str) -> TestKernel {
    Setup::new().worker(WORKER).env("COB_TEST_SCRIPT", script).start().await
}

#[tokio::test]
async fn an_honest_script_is_a_worker() {
    let kernel = kernel("ready").await;
    let mut client = kernel.client().await;
    for _ in 0..3 {
        client.run("code").await.ok();
    }
}

#[tokio::test]
async fn w14_a_worker_that_speaks_no_protocol_is_killed_and_replaced() {
    for (nonsense, said) in [
        ("garbage", "protocol violation"),
        ("oversized", "frame_too_large"),
        ("empty", "bad_frame"),
        ("unknown 2000", "bad_frame"),
    ] {
        let kernel = kernel(&format!("ready;await;print before;{nonsense};linger")).await;
        let mut client = kernel.client().await;
        let run = client.run("code").await.lost(said);
        assert_eq!(run.stdout(), "before\n", "{nonsense}");
        assert!(run.evalue().contains("protocol violation"), "{}", run.evalue());
        process::ended(kernel.worker(0).await).await;
        kernel.worker(1).await;
        client.ask(Channel::Control, "kernel_info_request").await.ok();
    }
}

#[tokio::test]
async fn w14_a_worker_that_speaks_for_another_execution_is_killed_and_changes_nothing() {
    for forgery in ["forge", "result", "answer", "hello", "display"] {
        let mut kernel = kernel(&format!("ready;await;print before;{forgery};linger")).await;
        kernel.expect_errors();
        let mut client = kernel.client().await;
        let run = client.run("code").await.lost("protocol violation");
        assert_eq!(run.stdout(), "before\n", "{forgery}");
        assert!(run.broadcasts.iter().all(|seen| seen.msg_type != "execute_result"), "{forgery}");
        process::ended(kernel.worker(0).await).await;
        kernel.worker(1).await;
    }
}

#[tokio::test]
async fn w14_an_end_that_comes_twice_ends_the_worker_and_not_the_kernel() {
    let mut kernel = kernel("ready;await;done;done;linger").await;
    kernel.expect_errors();
    let mut client = kernel.client().await;
    client.run("code").await.ok();
    process::ended(kernel.worker(0).await).await;
    kernel.worker(1).await;
}

/// The end that follows was believed, and the reply said `ok` for a session that was being killed.
#[tokio::test]
async fn w14_an_end_from_a_worker_that_is_being_killed_is_not_believed() {
    let mut kernel = kernel("ready;await;print before;display;done;linger").await;
    kernel.expect_errors();
    let mut client = kernel.client().await;
    let run = client.run("code").await.lost("protocol violation");
    assert_eq!(run.stdout(), "before\n");
    kernel.worker(1).await;
}

#[tokio::test]
async fn a_worker_that_closes_its_socket_and_lives_is_ended() {
    let kernel = kernel("ready;await;print before;close;linger").await;
    let mut client = kernel.client().await;
    assert_eq!(client.run("code").await.lost("").stdout(), "before\n");
    process::ended(kernel.worker(0).await).await;
}

#[tokio::test]
async fn a_worker_that_exits_inside_a_frame_is_lost_with_its_status() {
    let kernel = kernel("ready;await;print before;half;exit 3").await;
    let mut client = kernel.client().await;
    assert_eq!(client.run("code").await.lost("exited with status 3").stdout(), "before\n");
}

#[tokio::test]
async fn a_worker_that_lies_about_its_output_is_not_waited_for() {
    let kernel = kernel("ready;await;print before;done 1000000").await;
    let mut client = kernel.client().await;
    assert_eq!(client.run("code").await.ok().stdout(), "before\n");
}

#[tokio::test]
async fn a_worker_may_close_its_streams_and_send_frames_of_a_later_version() {
    let kernel = kernel("ready;await;print before;mute;unknown 20;done").await;
    let mut client = kernel.client().await;
    assert_eq!(client.run("code").await.ok().stdout(), "before\n");
    client.run("code").await.ok();
    assert_eq!(kernel.log().iter().filter(|line| line.contains("worker ready")).count(), 1);
}

// --- The start -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_worker_that_does_not_come_up_ends_the_kernel_with_what_it_said() {
    for (script, said) in [
        ("complain no such module;exit 3", "no such module"),
        ("complain no such module;exit 3", "exited with status 3"),
        ("exit 0", "exited with status 0"),
        ("complain what is this;garbage;linger", "protocol violation"),
        ("oversized;linger", "frame_too_large"),
        ("close;linger", "scripted-worker"),
    ] {
        let mut kernel = Setup::new().worker(WORKER).env("COB_TEST_SCRIPT", script).launch();
        assert_eq!(kernel.end().await.code(), Some(1), "{script}");
        assert!(kernel.log_line(said, 0).await.is_some(), "{script}: {:?}", kernel.log());
    }
}

fn program(script: &str) -> Program {
    let environment = vec![("COB_TEST_SCRIPT".into(), script.into())];
    Program { path: WORKER.into(), arguments: Vec::new(), image: None, environment, directory: None }
}

fn hello() -> Hello {
    Hello {
        versions: VERSIONS,
        session: "s1".to_owned(),
        options: Json::object(),
        umask: None,
        confined: false,
        survives: false,
        resumes: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_never_ready_is_given_up_and_killed() {
    let mut worker = Worker::start(&program("linger"), hello()).unwrap();
    let pid = worker.pid();
    let error = worker.ready().await.unwrap_err();
    assert!(matches!(error, StartError::TimedOut { .. }), "{error}");
    drop(worker);
    assert!(process::has_ended_within(pid, std::time::Duration::from_secs(10)));
}

/// A kernel whose worker had died before it was greeted did nothing else any more: a broken socket is always
/// writable, and was waited for first.
#[tokio::test]
async fn the_end_of_a_worker_is_seen_while_frames_for_it_wait() {
    let mut worker = Worker::start(&program("exit 3"), hello()).unwrap();
    process::ended(worker.pid()).await;
    worker.send(&Ping { number: 1 }.into(), Vec::new(), Lane::Control).unwrap();
    assert!(matches!(within("its end", worker.next()).await, WorkerEvent::Gone(Exit::Status(3))));
}

#[tokio::test]
async fn the_owner_of_a_worker_takes_it_along() {
    let mut worker = Worker::start(&program("ready;linger"), hello()).unwrap();
    within("ready", worker.ready()).await.unwrap();
    let pid = worker.pid();
    drop(worker);
    process::ended(pid).await;
}

#[tokio::test]
async fn what_a_worker_wrote_before_its_end_comes_before_its_end() {
    let mut worker = Worker::start(&program("ready;print one;print two;exit 7"), hello()).unwrap();
    within("ready", worker.ready()).await.unwrap();
    let mut text = Vec::new();
    loop {
        match within("an event", worker.next()).await {
            WorkerEvent::Output(_, bytes) => text.extend_from_slice(&bytes),
            WorkerEvent::Frame(Frame::Ready(_), _) => unreachable!("it was ready before"),
            WorkerEvent::Frame(frame, _) => unreachable!("{frame:?}"),
            WorkerEvent::Gone(exit) => break assert_eq!(exit, Exit::Status(7)),
        }
    }
    assert_eq!(text, b"one\ntwo\n");
}

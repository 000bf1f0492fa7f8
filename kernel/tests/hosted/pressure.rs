//! Sessions of a server while memory is short: what they can do without goes first, then they sleep, and wake up whole.

use std::path::PathBuf;
use std::time::Duration;

use cob_kernel::request::Take;
use cob_kernel::server::{Handle, Languages, OwnFolder, Pressure, SessionSpec, Sessions, Settings};
use cob_protocol::content::agent::{Environment, SessionOpen};
use tokio::sync::mpsc;

use super::*;

#[derive(Debug)]
struct Python;

impl Languages for Python {
    fn find(&self, _: &str, _: &Environment) -> Result<PathBuf, Refusal> {
        Ok(python().path)
    }

    fn program(&self, _: &SessionSpec, own: &OwnFolder) -> Program {
        Program { directory: Some(own.work()), ..python() }
    }
}

/// Somebody who says when memory is short, and is told when that has been dealt with: he is asked again then.
struct Told {
    short: mpsc::Receiver<()>,
    asked: mpsc::Sender<()>,
}

impl Pressure for Told {
    async fn short(&mut self) -> Option<()> {
        let _ = self.asked.send(()).await;
        self.short.recv().await
    }
}

/// A session of the server.
struct Open {
    handle: Arc<Handle>,
    bridge: Bridge,
    asked: u64,
}

impl Open {
    async fn at(sessions: &Sessions, bridge: &Bridge, policy: &str) -> Self {
        let open: SessionOpen = serde_json::from_value(json!({ "checkpoints": policy })).unwrap();
        let id = sessions.open("local", open).await.unwrap();
        Self { handle: sessions.directory().get(id).unwrap(), bridge: bridge.clone(), asked: 0 }
    }

    async fn ask<T>(&self, command: impl FnOnce(Asked<T>) -> Command) -> Result<T, Refusal> {
        let (asked, answer) = oneshot::channel();
        self.handle.senders.commands.send(command(asked)).await.unwrap();
        answer.await.unwrap()
    }

    async fn look(&self) -> Snapshot {
        let (asked, answer) = oneshot::channel();
        self.handle.senders.commands.send(Command::Look(asked)).await.unwrap();
        answer.await.unwrap()
    }

    /// Runs code; the value of an expression at its end.
    async fn run(&mut self, code: &str) -> String {
        self.asked += 1;
        let id = PromiseId::execution(self.handle.session(), self.asked);
        let request = asked_for(&format!("k{}", self.asked), code, json!({}));
        self.handle.senders.shell.send(request).await.unwrap();
        while self.bridge.promise(id).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        let settled = self.bridge.wait(id).await.unwrap();
        assert_eq!(settled.state, State::Resolved, "{code}: {settled:?}");
        let events = self.bridge.events(id, 1, 100, 1 << 20).await.unwrap();
        let result = events.iter().find_map(|known| match &*known.event {
            Event::Result(content) => Some(content.read::<Value>().unwrap()),
            _ => None,
        });
        result.map(|result| result["data"]["text/plain"].as_str().unwrap().to_owned()).unwrap_or_default()
    }
}

#[tokio::test]
async fn real_sessions_give_up_checkpoints_and_then_their_workers_and_come_back_whole() {
    let folder =
        Folder(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(uuid::Uuid::new_v4().to_string()));
    let bridge = Bridge::open(&StoreOptions::new(&folder.0), Arc::new(SystemClock)).unwrap();
    let settings = Settings::new(Workers::Cold, folder.0.join("sessions"));
    let sessions = Sessions::new(bridge.clone(), Arc::default(), Arc::new(Python), settings);
    let mut old = Open::at(&sessions, &bridge, "auto").await;
    let mut unwilling = Open::at(&sessions, &bridge, "off").await;
    let mut young = Open::at(&sessions, &bridge, "manual").await;
    for open in [&mut old, &mut unwilling, &mut young] {
        open.run("shared = [1]; alias = [shared]; big = bytearray(9 << 20)").await;
        open.run("big[::4096] = bytes(len(big) // 4096)").await;
    }
    let take = Take { label: Some("mine".to_owned()), durable: true, ..Take::default() };
    young.ask(|asked| Command::Checkpoint(take, asked)).await.unwrap();
    let (short, told) = mpsc::channel(1);
    let (asked, mut dealt) = mpsc::channel(1);
    let relieving = tokio::spawn({
        let (sessions, pressure) = (sessions.clone(), Told { short: told, asked });
        async move { sessions.relieve(pressure, Duration::ZERO).await }
    });
    dealt.recv().await.unwrap();
    // Automatic checkpoints go, until none is left; then whoever has been idle for longest.
    let mut rounds = 0;
    while old.look().await.wakes_at.is_none() {
        assert!(young.look().await.wakes_at.is_none(), "the younger one sleeps first");
        short.send(()).await.unwrap();
        dealt.recv().await.unwrap();
        rounds += 1;
        assert!(rounds < 6, "{:?}", old.look().await);
    }
    let slept = old.look().await;
    assert!(slept.worker.is_none() && slept.checkpoints == 0, "{slept:?}");
    while young.look().await.wakes_at.is_none() {
        short.send(()).await.unwrap();
        dealt.recv().await.unwrap();
        rounds += 1;
        assert!(rounds < 10, "{:?}", young.look().await);
    }
    // Nothing more can be had: the third one does not want to.
    short.send(()).await.unwrap();
    dealt.recv().await.unwrap();
    assert!(unwilling.look().await.wakes_at.is_none());
    for open in [&mut old, &mut unwilling, &mut young] {
        assert_eq!(open.run("shared.append(2); (alias[0], len(big))").await, "([1, 2], 9437184)");
    }
    drop(short);
    relieving.await.unwrap();
    sessions.close(Duration::ZERO).await;
    bridge.close().await;
}

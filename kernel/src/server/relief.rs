//! What the server does when memory is short: first sessions with nothing to do give up what they can do without, and
//! when that is not enough, the one that has had nothing to do for longest is put into the store.
//!
//! **Invariant:** one step for each time that memory is said to be short: as long as it is, that is said again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cob_protocol::checkpoint::Mode;
use cob_protocol::ids::SessionId;
use cob_protocol::limits::RELIEFS_MAX;
use cob_protocol::time::Timestamp;
use tokio::sync::oneshot;

use super::agents::{ask, tell};
use super::directory::Handle;
use super::life::Sessions;
use super::pressure::Pressure;
use crate::request::{Command, Phase};

/// A session with nothing to do.
struct Idle {
    handle: Arc<Handle>,
    since: Timestamp,
}

/// Sessions that could not be hibernated, and since when they have had nothing to do: nothing has changed in them.
type Refused = HashMap<SessionId, Timestamp>;

impl Sessions {
    /// Makes room whenever memory is short, until that is not said any more. Nothing is taken away between two requests of
    /// a conversation: only from sessions that have had nothing to do for `rest`.
    pub async fn relieve(&self, mut pressure: impl Pressure, rest: Duration) {
        let mut refused = Refused::new();
        while pressure.short().await.is_some() {
            self.directory().deeds().was_short();
            let idle = self.idle(rest).await;
            let bytes = self.shed(&idle).await;
            if bytes > 0 {
                tracing::info!(
                    bytes,
                    "memory is short: sessions with nothing to do have given up checkpoints"
                );
                continue;
            }
            refused.retain(|session, _| idle.iter().any(|idle| idle.handle.session() == *session));
            self.hibernate_one(idle, &mut refused).await;
        }
        tracing::debug!("nobody says any more when memory is short");
    }

    /// Those that have had nothing to do for so long and have checkpoints or may have them, longest first.
    async fn idle(&self, rest: Duration) -> Vec<Idle> {
        let mut idle = Vec::new();
        let now = self.bridge().now().micros();
        let rested = i64::try_from(rest.as_micros()).unwrap_or(i64::MAX);
        let has_rested = |since: Timestamp| now.saturating_sub(since.micros()) >= rested;
        for handle in self.directory().list() {
            let is_idle =
                handle.outlet.watch().borrow().state == Phase::Idle && handle.open_executions() == 0;
            let (looked, snapshot) = oneshot::channel();
            if !is_idle || tell(&handle, Command::Look(looked)).is_err() {
                continue;
            }
            if let Ok(snapshot) = snapshot.await
                && snapshot.state == Phase::Idle
                && snapshot.checkpoint_policy.mode != Mode::Off
                && has_rested(snapshot.last_active_at)
            {
                idle.push(Idle { handle, since: snapshot.last_active_at });
            }
        }
        idle.sort_by_key(|idle| idle.since);
        idle
    }

    /// Lets them give up what they can do without; the bytes of it.
    async fn shed(&self, idle: &[Idle]) -> u64 {
        let mut bytes = 0;
        for Idle { handle, .. } in idle {
            if let Ok(shed) = ask(handle, Command::Shed) {
                bytes += shed.await.unwrap_or(0);
            }
        }
        self.directory().deeds().shed(bytes);
        bytes
    }

    /// Puts one of them into the store: the first that can be.
    async fn hibernate_one(&self, idle: Vec<Idle>, refused: &mut Refused) {
        let is_new = |idle: &Idle| refused.get(&idle.handle.session()) != Some(&idle.since);
        let candidates: Vec<_> = idle.into_iter().filter(is_new).take(RELIEFS_MAX).collect();
        for Idle { handle, since } in candidates {
            let session = handle.session();
            let Ok(hibernated) = ask(&handle, |asked| Command::Hibernate(false, asked)) else { continue };
            match hibernated.await {
                Ok(checkpoint) => {
                    tracing::info!(%session, checkpoint = %checkpoint.checkpoint, "memory is short: hibernated");
                    return self.directory().deeds().relieved();
                }
                Err(refusal) => {
                    tracing::debug!(%session, why = refusal.why, "memory is short, but it cannot be hibernated");
                    refused.insert(session, since);
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use cob_bridge::Bridge;
    use cob_pool::Workers;
    use cob_protocol::checkpoint::{CheckpointView, Policy, Tier};
    use cob_protocol::error::ErrorCode;
    use cob_protocol::ids::CheckpointId;
    use cob_protocol::json::Json;
    use cob_protocol::time::{Clock, SystemClock};
    use tokio::sync::mpsc;

    use super::*;
    use crate::request::{Inputs, Refusal, Snapshot, lanes};
    use crate::server::{Handle, Languages, OwnFolder, SessionSpec, SessionStatus, Settings};

    #[derive(Debug)]
    struct NoLanguages;

    impl Languages for NoLanguages {
        fn find(
            &self,
            _: &str,
            _: &cob_protocol::content::agent::Environment,
        ) -> Result<std::path::PathBuf, Refusal> {
            Err(Refusal::bad("none"))
        }

        fn program(&self, _: &SessionSpec, _: &OwnFolder) -> cob_pool::Program {
            unreachable!("no session is opened")
        }
    }

    #[derive(Debug)]
    struct Told(mpsc::Receiver<()>);

    impl Pressure for Told {
        async fn short(&mut self) -> Option<()> {
            self.0.recv().await
        }
    }

    fn server(folder: &std::path::Path) -> Sessions {
        let settings = Settings::new(Workers::Cold, folder.to_owned());
        Sessions::new(
            Bridge::in_memory(Arc::new(SystemClock)),
            Arc::default(),
            Arc::new(NoLanguages),
            settings,
        )
    }

    fn session(server: &Sessions, number: u64, state: Phase) -> Inputs {
        let (senders, inputs) = lanes();
        let outlet = server.directory().outlet(SessionId(number));
        outlet.set_status(SessionStatus { state, running: None });
        let now = SystemClock.now();
        server.directory().insert(Handle::new(senders, outlet, "ann".to_owned(), None, now, Json::object()));
        inputs
    }

    pub(crate) fn snapshot(mode: Mode, since: i64) -> Snapshot {
        Snapshot {
            state: Phase::Idle,
            running: None,
            output: None,
            queue: Vec::new(),
            asking: None,
            execution_count: 0,
            last_active_at: Timestamp::from_micros(since),
            worker: None,
            limits: Json::array(),
            confinement: Vec::new(),
            tools: Vec::new(),
            channels: Vec::new(),
            checkpoint_policy: Policy { mode, ..Policy::default() },
            checkpoints: 0,
            checkpoint_bytes: 0,
            checkpoint_skipped: None,
            restored: None,
            wakes_at: None,
        }
    }

    async fn looked_at(inputs: &mut Inputs, mode: Mode, since: i64) {
        match inputs.commands.recv().await {
            Some(Command::Look(asked)) => asked.send(snapshot(mode, since)).unwrap(),
            other => unreachable!("{other:?}"),
        }
    }

    async fn sheds(inputs: &mut Inputs, bytes: u64) {
        match inputs.commands.recv().await {
            Some(Command::Shed(asked)) => asked.send(Ok(bytes)).unwrap(),
            other => unreachable!("{other:?}"),
        }
    }

    async fn hibernates(inputs: &mut Inputs, outcome: Result<CheckpointView, Refusal>) {
        match inputs.commands.recv().await {
            Some(Command::Hibernate(false, asked)) => asked.send(outcome).unwrap(),
            other => unreachable!("{other:?}"),
        }
    }

    fn view(session: u64) -> CheckpointView {
        CheckpointView {
            checkpoint: CheckpointId { session: SessionId(session), number: 1 },
            label: None,
            tier: Tier::Durable,
            automatic: true,
            execution: 0,
            count: 0,
            taken_at: 0,
            parent: None,
            private_bytes: None,
            bytes: None,
            new_bytes: None,
            findings: Vec::new(),
            missing: Vec::new(),
        }
    }

    #[tokio::test]
    async fn checkpoints_go_first_and_then_the_session_that_is_idle_for_longest() {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path());
        let mut young = session(&server, 1, Phase::Idle);
        let mut old = session(&server, 2, Phase::Idle);
        let mut unwilling = session(&server, 3, Phase::Idle);
        let mut busy = session(&server, 4, Phase::Busy);
        let mut resting = session(&server, 5, Phase::Idle);
        let now = SystemClock.now().micros();
        let (told, short) = mpsc::channel(4);
        let relieving = tokio::spawn({
            let server = server.clone();
            async move { server.relieve(Told(short), Duration::from_secs(60)).await }
        });
        let mut look = async |young: &mut Inputs, old: &mut Inputs, unwilling: &mut Inputs| {
            looked_at(young, Mode::Manual, 20).await;
            looked_at(old, Mode::Auto, 10).await;
            looked_at(unwilling, Mode::Off, 1).await;
            // It is left alone: it has just ended something.
            looked_at(&mut resting, Mode::Auto, now).await;
        };
        told.send(()).await.unwrap();
        look(&mut young, &mut old, &mut unwilling).await;
        sheds(&mut old, 4096).await;
        sheds(&mut young, 0).await;
        // That was something: more only when it is said again.
        told.send(()).await.unwrap();
        look(&mut young, &mut old, &mut unwilling).await;
        sheds(&mut old, 0).await;
        sheds(&mut young, 0).await;
        hibernates(&mut old, Err(Refusal::new(ErrorCode::CheckpointRefused, "a thread"))).await;
        hibernates(&mut young, Ok(view(1))).await;
        server.directory().remove(SessionId(1));
        server.directory().remove(SessionId(5));
        // What could not be hibernated is not tried again as long as nothing has happened in it.
        told.send(()).await.unwrap();
        looked_at(&mut old, Mode::Auto, 10).await;
        looked_at(&mut unwilling, Mode::Off, 1).await;
        sheds(&mut old, 0).await;
        told.send(()).await.unwrap();
        looked_at(&mut old, Mode::Auto, 30).await;
        looked_at(&mut unwilling, Mode::Off, 1).await;
        sheds(&mut old, 0).await;
        hibernates(&mut old, Ok(view(2))).await;
        drop(told);
        relieving.await.unwrap();
        assert!(busy.commands.try_recv().is_err() && unwilling.commands.try_recv().is_err());
        let figures = server.directory().deeds().figures();
        let of = |name: &str| figures[name].as_u64().unwrap();
        assert_eq!((of("memory_shortages"), of("memory_shed_bytes"), of("memory_hibernated")), (4, 4096, 2));
    }
}

//! A session goes back to what it was: asked to, or because its worker was lost.

use cob_kernel::request::{GoBack, Seed, Take, Target};
use cob_protocol::checkpoint::{CheckpointView, Mode, Policy, Restoration, Tier};
use cob_protocol::ids::CheckpointId;
use cob_protocol::promise::SessionState;

use super::*;

fn id(number: u64) -> CheckpointId {
    CheckpointId { session: SESSION, number }
}

fn policy(mode: Mode) -> Policy {
    Policy { mode, ..Policy::default() }
}

impl Hosted {
    fn with_policy(policy: Policy) -> Self {
        Self::configured(Bridge::in_memory(Arc::new(SystemClock)), None, |config| {
            config.checkpoints = policy;
            config.interrupt_grace = Some(Duration::from_millis(200));
        })
    }

    fn stored_with(policy: Policy) -> Self {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(uuid::Uuid::new_v4().to_string());
        let bridge = Bridge::open(&StoreOptions::new(&folder), Arc::new(SystemClock)).unwrap();
        let _folder = Some(Folder(folder));
        Self { _folder, ..Self::configured(bridge, None, |config| config.checkpoints = policy) }
    }

    async fn take(&self, label: &str) -> Result<CheckpointView, Refusal> {
        let take = Take { label: Some(label.to_owned()), ..Take::default() };
        self.ask(|asked| Command::Checkpoint(take, asked)).await
    }

    async fn store(&self, label: &str) -> Result<CheckpointView, Refusal> {
        let take = Take { label: Some(label.to_owned()), durable: true, force: false };
        self.ask(|asked| Command::Checkpoint(take, asked)).await
    }

    async fn list(&self) -> Vec<CheckpointView> {
        self.ask(Command::Checkpoints).await.unwrap()
    }

    async fn restore(&self, to: Target, now: bool) -> Result<Restoration, Refusal> {
        self.go(GoBack { to, now, fresh: false, force: false }).await
    }

    async fn go(&self, go: GoBack) -> Result<Restoration, Refusal> {
        self.ask(|asked| Command::Restore(go, asked)).await
    }

    /// The one that the policy has taken after so many executions.
    async fn automatic_after(&mut self, execution: u64) -> CheckpointView {
        self.until(async |hosted| hosted.list().await.into_iter().find(|view| view.execution == execution))
            .await
    }
}

fn reply_of(promise: &Promise) -> Value {
    promise.value.as_ref().unwrap().read().unwrap()
}

#[tokio::test]
async fn a_session_goes_back_and_forth_between_its_checkpoints() {
    let mut hosted = Hosted::with_policy(policy(Mode::Manual));
    hosted.run("x = [1]").await;
    let one = hosted.take("one").await.unwrap();
    assert_eq!((one.checkpoint, one.execution, one.tier, one.automatic), (id(1), 1, Tier::Memory, false));
    hosted.run("x.append(2)").await;
    let two = hosted.take("two").await.unwrap();
    hosted.run("del x").await;
    let back = hosted.restore(Target::Label("one".to_owned()), false).await.unwrap();
    assert_eq!((back.checkpoint, back.tier, back.executions_since), (one.checkpoint, Tier::Memory, 2));
    assert_eq!(hosted.look().await.restored, Some(back.clone()));
    // The count goes on, and the first one who runs something is told.
    let settled = hosted.run("y = len(x)").await;
    let reply = reply_of(&settled);
    assert_eq!((&reply["execution_count"], &reply["restored"]["checkpoint"]), (&json!(4), &json!("s1.k1")));
    assert_eq!(hosted.look().await.restored, None);
    assert_eq!(hosted.value("x, y").await, "([1], 1)");
    hosted.restore(Target::Checkpoint(two.checkpoint), false).await.unwrap();
    assert_eq!(hosted.value("x").await, "[1, 2]");
    assert_eq!(hosted.take("three").await.unwrap().parent, Some(two.checkpoint));
    let gone = hosted.ask(|asked| Command::DropCheckpoint(one.checkpoint, asked)).await;
    assert_eq!(gone, Ok(()));
    let refused = hosted.restore(Target::Checkpoint(one.checkpoint), false).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnknownCheckpoint);
    assert_eq!(hosted.list().await.len(), 2);
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn cells_can_be_undone_one_after_the_other() {
    let mut hosted = Hosted::with_policy(policy(Mode::Auto));
    for cell in ["x = 1", "x = 2", "x = 3"] {
        hosted.run(cell).await;
    }
    hosted.restore(Target::Undo(1), false).await.unwrap();
    assert_eq!(hosted.value("x").await, "2");
    // That look was a cell as well.
    hosted.restore(Target::Undo(2), false).await.unwrap();
    assert_eq!(hosted.value("x").await, "1");
    let too_far = hosted.restore(Target::Undo(9), false).await.unwrap_err();
    assert_eq!(too_far.code, ErrorCode::UnknownCheckpoint);
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn code_that_has_to_be_killed_gives_back_what_was_before_it() {
    let mut hosted = Hosted::with_policy(policy(Mode::Auto));
    hosted.run("x = 1").await;
    let stuck = "x = 2\nimport signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\nprint('stuck', flush=True)\nwhile True: pass";
    let stuck = hosted.execute(stuck, json!({})).await;
    hosted
        .until(async |hosted| {
            let events = hosted.bridge.events(stuck, 1, 100, 1 << 20).await.unwrap();
            events.iter().any(|known| matches!(&*known.event, Event::Stream { .. })).then_some(())
        })
        .await;
    hosted.command(Command::Interrupt).await;
    let settled = hosted.bridge.wait(stuck).await.unwrap();
    assert_eq!(settled.session_state, Some(SessionState::Restored));
    let reply = reply_of(&settled);
    let before = hosted.list().await.into_iter().rfind(|view| view.execution == 1).unwrap();
    assert_eq!(reply["code"], "interrupted_by_force");
    assert_eq!(reply["session_state"], "restored");
    assert_eq!(reply["restored"]["checkpoint"], json!(before.checkpoint));
    let evalue = reply["evalue"].as_str().unwrap();
    let end = format!("the session is back at {}, as it was before this cell", before.checkpoint);
    assert!(evalue.contains(&end), "{evalue}");
    assert!(!reply["hint"].as_str().unwrap().contains("gone"));
    assert_eq!(hosted.value("x").await, "1");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn what_waited_behind_a_worker_that_died_goes_on_with_restored_variables() {
    let mut hosted = Hosted::with_policy(policy(Mode::Auto));
    hosted.run("x = 1").await;
    let dies = hosted.execute("x = 2\nimport cob\ncob.tools.wait()", json!({})).await;
    let call = hosted.call().await;
    let waits = hosted.execute("x = x + 10", json!({})).await;
    let pid = hosted.look().await.worker.unwrap().pid;
    kill(pid);
    let settled = hosted.bridge.wait(dies).await.unwrap();
    assert_eq!(
        (code_of(&settled).as_str(), settled.session_state),
        ("worker_lost", Some(SessionState::Restored))
    );
    assert!(hosted.bridge.promise(call).await.unwrap().unwrap().state.is_settled());
    assert_eq!(hosted.bridge.wait(waits).await.unwrap().state, State::Resolved);
    assert_eq!(hosted.value("x").await, "11");
    hosted.close(CloseMode::Now).await;
}

fn kill(pid: u32) {
    std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
}

#[tokio::test]
async fn without_a_checkpoint_a_lost_worker_is_a_loss() {
    let mut hosted = Hosted::with_policy(policy(Mode::Manual));
    hosted.run("x = 1").await;
    let settled = hosted.run("import os\nos.kill(os.getpid(), 9)").await;
    assert_eq!(settled.session_state, Some(SessionState::Lost));
    assert_eq!(reply_of(&settled)["restored"], Value::Null);
    assert_eq!(hosted.value("'x' in globals()").await, "False");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn going_back_at_once_ends_what_runs_and_refuses_what_waits() {
    let mut hosted = Hosted::with_policy(policy(Mode::Manual));
    hosted.run("x = 1").await;
    hosted.take("one").await.unwrap();
    let running = hosted.execute("x = 2\nimport cob\ncob.tools.wait()", json!({})).await;
    hosted.call().await;
    let waiting = hosted.execute("x = 3", json!({})).await;
    hosted.until(async |hosted| (hosted.look().await.queue.len() == 1).then_some(())).await;
    let back = hosted.restore(Target::Checkpoint(id(1)), true).await.unwrap();
    assert_eq!(back.checkpoint, id(1));
    for id in [running, waiting] {
        let settled = hosted.bridge.wait(id).await.unwrap();
        let outcome = (settled.state, settled.session_state, code_of(&settled));
        let restored = Some(SessionState::Restored);
        assert_eq!(outcome, (State::RejectedCanceled, restored, "restarted".to_owned()));
    }
    assert_eq!(hosted.value("x").await, "1");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn code_can_ask_for_its_own_past() {
    let mut hosted = Hosted::with_policy(policy(Mode::Manual));
    hosted.run("import cob\nx = 1\ncob.checkpoint('one')").await;
    let settled = hosted.run("x = 2\ncob.restore('one')\nx = 3").await;
    assert_eq!(settled.state, State::Resolved, "{:?}", settled.value);
    let settled = hosted.run("y = x").await;
    assert_eq!(reply_of(&settled)["restored"]["checkpoint"], "s1.k1", "{settled:?}");
    assert_eq!(hosted.value("y").await, "1");
    // What one cell asks for is done in that order.
    hosted.run("cob.checkpoint('three')\ncob.restore('three')\nx = 4").await;
    assert_eq!(hosted.value("x").await, "4");
    let failed = hosted.run("cob.restore('two')").await;
    assert_eq!(reply_of(&failed)["ename"], "CheckpointError", "{failed:?}");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn what_cannot_be_kept_refuses_a_checkpoint_and_skips_automatic_ones() {
    let mut hosted = Hosted::with_policy(policy(Mode::Auto));
    hosted
        .run(
            "import threading\nevent = threading.Event()\nt = threading.Thread(target=event.wait)\nt.start()",
        )
        .await;
    let refused = hosted.take("never").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::CheckpointRefused);
    let skipped = hosted.until(async |hosted| hosted.look().await.checkpoint_skipped).await;
    assert_eq!(skipped, refused.why);
    let told = hosted.execute("import cob\ncob.checkpoint('never')", json!({})).await;
    hosted
        .until(async |hosted| {
            let events = hosted.bridge.events(told, 1, 100, 1 << 20).await.unwrap();
            let is_it =
                |event: &Event| matches!(event, Event::Stream { text, .. } if text.contains("no checkpoint"));
            events.iter().any(|known| is_it(&known.event)).then_some(())
        })
        .await;
    hosted.run("event.set()\nt.join()").await;
    hosted.automatic_after(3).await;
    assert_eq!(hosted.look().await.checkpoint_skipped, None);
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn automatic_checkpoints_give_way_and_those_that_were_asked_for_do_not() {
    let mut hosted = Hosted::with_policy(Policy { keep: 2, ..policy(Mode::Auto) });
    hosted.run("x = 0").await;
    let asked = hosted.take("mine").await.unwrap();
    for _ in 0..4 {
        hosted.run("x += 1").await;
    }
    hosted.automatic_after(5).await;
    let kept: Vec<_> = hosted.list().await.iter().map(|view| (view.automatic, view.execution)).collect();
    assert_eq!(kept, [(false, 1), (true, 4), (true, 5)]);
    let freed = hosted.ask(Command::Shed).await;
    assert!(freed.is_ok());
    let kept: Vec<_> = hosted.list().await.iter().map(|view| view.checkpoint).collect();
    assert_eq!(kept, [asked.checkpoint]);
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn a_branch_begins_where_its_parent_stood_and_leaves_it_alone() {
    let mut hosted = Hosted::with_policy(policy(Mode::Manual));
    hosted.run("x = [1]").await;
    let seed: Seed = hosted.ask(|asked| Command::Branch(None, false, asked)).await.unwrap();
    assert_eq!((seed.execution, seed.count), (1, 1));
    let checkpoint = seed.checkpoint;
    let bridge = Bridge::in_memory(Arc::new(SystemClock));
    let mut branch = Hosted::configured(bridge, None, |config| config.seed = Some(seed));
    branch.run("x.append(2)").await;
    hosted.run("x.append(3)").await;
    assert_eq!((branch.value("x").await, hosted.value("x").await), ("[1, 2]".into(), "[1, 3]".into()));
    assert_eq!(branch.look().await.execution_count, 3);
    hosted.close(CloseMode::Now).await;
    // It is nobody's any more but its own.
    assert_eq!(branch.value("x").await, "[1, 2]");
    let _ = checkpoint;
    branch.close(CloseMode::Now).await;
}

#[tokio::test]
async fn what_is_off_is_refused_and_so_is_what_needs_a_store() {
    let mut off = Hosted::with_policy(policy(Mode::Off));
    off.run("x = 1").await;
    assert_eq!(off.take("one").await.unwrap_err().code, ErrorCode::BadRequest);
    off.close(CloseMode::Now).await;
    let mut hosted = Hosted::with_policy(policy(Mode::Manual));
    hosted.run("x = 1").await;
    assert_eq!(hosted.store("one").await.unwrap_err().code, ErrorCode::BadRequest);
    let asleep = hosted.ask(|asked| Command::Hibernate(false, asked)).await;
    assert_eq!(asleep.unwrap_err().code, ErrorCode::BadRequest);
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn a_restart_forgets_no_checkpoint_but_does_not_go_back_to_one() {
    let mut hosted = Hosted::with_policy(policy(Mode::Manual));
    hosted.run("x = 1").await;
    let one = hosted.take("one").await.unwrap();
    hosted.ask(Command::Restart).await.unwrap();
    assert_eq!(hosted.value("'x' in globals()").await, "False");
    let settled = hosted.run("import os\nos.kill(os.getpid(), 9)").await;
    assert_eq!(settled.session_state, Some(SessionState::Lost));
    hosted.restore(Target::Checkpoint(one.checkpoint), false).await.unwrap();
    assert_eq!(hosted.value("x").await, "1");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn a_durable_checkpoint_is_merged_into_what_is_there_or_read_into_a_fresh_worker() {
    let mut hosted = Hosted::stored_with(policy(Mode::Manual));
    hosted.run("x = [1]\ny = x").await;
    let stored = hosted.store("one").await.unwrap();
    assert_eq!((stored.tier, stored.missing.is_empty()), (Tier::Both, true), "{stored:?}");
    hosted.run("x = 2").await;
    // The one in memory is nearer.
    assert_eq!(hosted.restore(Target::Checkpoint(id(1)), false).await.unwrap().tier, Tier::Memory);
    // Asleep, it has none in memory.
    hosted.ask(|asked| Command::Hibernate(false, asked)).await.unwrap();
    hosted.run("x = 5\nz = 3").await;
    let merged = hosted.restore(Target::Checkpoint(id(1)), false).await.unwrap();
    assert_eq!((merged.tier, merged.executions_since), (Tier::Durable, 2));
    assert!(merged.restored.contains(&"x".to_owned()) && merged.kept.contains(&"z".to_owned()), "{merged:?}");
    assert_eq!(hosted.value("x, x is y, z").await, "([1], True, 3)");
    let fresh = GoBack { to: Target::Checkpoint(id(1)), now: false, fresh: true, force: false };
    assert_eq!(hosted.go(fresh).await.unwrap().kept, [""; 0]);
    assert_eq!(hosted.value("x, 'z' in globals()").await, "([1], False)");
    let gone = hosted.ask(|asked| Command::DropCheckpoint(id(1), asked)).await;
    assert_eq!(gone, Ok(()));
    let unknown = hosted.restore(Target::Checkpoint(id(1)), false).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::UnknownCheckpoint);
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn a_session_sleeps_in_the_store_and_wakes_up_with_the_next_request() {
    let mut hosted = Hosted::stored_with(policy(Mode::Manual));
    hosted.run("x = [1]\ny = x").await;
    let asleep = hosted.ask(|asked| Command::Hibernate(false, asked)).await.unwrap();
    let look = hosted.look().await;
    assert_eq!((look.state, look.wakes_at, look.checkpoints), (Phase::Dormant, Some(asleep.checkpoint), 0));
    assert!(look.worker.is_none());
    // Whoever asks for it again has it.
    let again = hosted.ask(|asked| Command::Hibernate(false, asked)).await.unwrap();
    assert_eq!(again.checkpoint, asleep.checkpoint);
    let settled = hosted.run("x.append(2)").await;
    assert_eq!(reply_of(&settled)["restored"]["checkpoint"], json!(asleep.checkpoint));
    assert_eq!(reply_of(&settled)["execution_count"], 2);
    assert_eq!(hosted.value("x, y is x").await, "([1, 2], True)");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn what_would_be_lost_keeps_a_session_awake_unless_it_is_forced() {
    let mut hosted = Hosted::stored_with(policy(Mode::Manual));
    hosted.run("x = 1\ng = (i for i in range(3))").await;
    let refused = hosted.ask(|asked| Command::Hibernate(false, asked)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::CheckpointRefused);
    assert!(refused.why.contains('g'), "{}", refused.why);
    // What was stored for it is of no use to anybody.
    assert_eq!(hosted.list().await, []);
    assert_eq!(hosted.value("next(g)").await, "0");
    hosted.ask(|asked| Command::Hibernate(true, asked)).await.unwrap();
    let settled = hosted.run("x").await;
    assert_eq!(reply_of(&settled)["restored"]["missing"][0]["name"], "g");
    assert_eq!(reply_of(&settled)["restored"]["rebuild"], json!([1]));
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn a_checkpoint_that_somebody_wanted_is_not_lost_to_sleep() {
    let mut hosted = Hosted::stored_with(policy(Mode::Manual));
    hosted.run("x = 1").await;
    let wanted = hosted.take("clean").await.unwrap().checkpoint;
    let refused = hosted.ask(|asked| Command::Hibernate(false, asked)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::CheckpointRefused);
    assert!(refused.why.contains(&wanted.to_string()), "{}", refused.why);
    let gone = hosted.ask(|asked| Command::DropCheckpoint(wanted, asked)).await;
    assert_eq!(gone, Ok(()));
    hosted.ask(|asked| Command::Hibernate(false, asked)).await.unwrap();
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn an_idle_session_falls_asleep_by_itself() {
    let policy = Policy { hibernate_after_ms: Some(1), ..policy(Mode::Manual) };
    let mut hosted = Hosted::stored_with(policy);
    hosted.run("x = 1").await;
    hosted.until(async |hosted| hosted.look().await.wakes_at).await;
    assert_eq!(hosted.value("x").await, "1");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn a_session_goes_on_from_the_store_when_its_server_has_died() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(uuid::Uuid::new_v4().to_string());
    let _folder = Folder(folder.clone());
    let open = || Bridge::open(&StoreOptions::new(&folder), Arc::new(SystemClock)).unwrap();
    let every = Policy { durable_every_ms: Some(1), ..policy(Mode::Manual) };
    let mut hosted = Hosted::configured(open(), None, |config| config.checkpoints = every);
    hosted.run("x = 1").await;
    let stored =
        hosted.until(async |hosted| hosted.list().await.pop().filter(|view| view.tier == Tier::Both)).await;
    assert!(stored.automatic);
    // It dies: nothing is closed.
    let Hosted { life, bridge, senders, status, .. } = hosted;
    life.abort();
    assert!(life.await.unwrap_err().is_cancelled());
    drop((bridge, senders, status));
    let bridge = open();
    let record = bridge.sessions().await.unwrap().into_iter().find(|known| known.session == SESSION).unwrap();
    let past = Past::read(&bridge, record).await.unwrap();
    let mut hosted = Hosted::configured(bridge, Some(past), |_| {});
    // Keys of the first life are not asked for again.
    hosted.asked = 100;
    hosted.phase(Phase::Dormant).await;
    assert_eq!(hosted.look().await.wakes_at, Some(stored.checkpoint));
    let settled = hosted.run("y = x + 1").await;
    assert_eq!(reply_of(&settled)["restored"]["checkpoint"], json!(stored.checkpoint), "{settled:?}");
    assert_eq!(hosted.value("x, y").await, "(1, 2)");
    // Numbers are never given twice.
    let next = hosted.take("next").await.unwrap();
    assert!(next.checkpoint.number > stored.checkpoint.number && next.parent == Some(stored.checkpoint));
    hosted.close(CloseMode::Now).await;
}

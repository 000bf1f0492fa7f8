//! How sessions end while somebody asks for something.

use std::sync::atomic::{AtomicBool, Ordering};

use cob_bridge::{BridgeError, Group, MemoryStore, Outcomes, Read, Store, StoreError};

use super::*;

#[tokio::test]
async fn what_was_asked_for_before_a_drain_is_done_to_its_end() {
    let mut hosted = Hosted::start();
    hosted.run("import cob").await;
    // Both are there before the session looks, and commands overtake requests.
    let key = hosted.submit("cob.tools.go(); cob.channel('late').send(1)", json!({})).await;
    let (asked, closed) = oneshot::channel();
    hosted.command(Command::Close(CloseMode::Drain, asked)).await;
    let asking = hosted.until(async |hosted| hosted.look().await.asking).await;
    let later = hosted.submit("1", json!({})).await;
    hosted.ask(|asked| Command::Answer(asking, Given::Value(number(1)), asked)).await.unwrap();
    closed.await.unwrap().unwrap();
    let done = hosted.bridge.find(SESSION, "local", &key).await.unwrap().unwrap();
    assert_eq!((done.state, code_of(&done).as_str()), (State::Resolved, ""), "{done:?}");
    assert!(hosted.bridge.find(SESSION, "local", &later).await.unwrap().is_none());
    assert!(matches!(hosted.life.await.unwrap(), End::Shutdown));
}

/// A store in memory that fails when the test says so.
struct Disk {
    store: MemoryStore,
    is_full: Arc<AtomicBool>,
}

impl Store for Disk {
    fn commit(&mut self, groups: &[Group]) -> Result<Vec<Outcomes>, StoreError> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(StoreError::Busy { store: "a test".to_owned() });
        }
        self.store.commit(groups)
    }
}

#[tokio::test]
async fn a_session_whose_end_is_not_recorded_is_not_said_to_be_closed() {
    let is_full = Arc::new(AtomicBool::new(false));
    let store = Disk { store: MemoryStore::default(), is_full: Arc::clone(&is_full) };
    let read = || Ok::<Box<dyn Read>, BridgeError>(Box::new(MemoryStore::default()));
    let bridge = Bridge::over("a test", store, read, Arc::new(SystemClock)).unwrap();
    let mut hosted = Hosted::with(bridge, None);
    hosted.phase(Phase::Idle).await;
    is_full.store(true, Ordering::SeqCst);
    let closed = hosted.ask(|asked| Command::Close(CloseMode::Now, asked)).await;
    assert_eq!(closed.unwrap_err().code, ErrorCode::StoreFailed);
}

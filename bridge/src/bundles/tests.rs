//! Bundles as whoever writes and reads them sees them.

mod archives;
mod damage;
mod streams;

use std::path::Path;

use bytes::Bytes;
use cob_protocol::bundle::Tag;
use cob_protocol::json::Json;
use cob_protocol::limits::BUNDLE_PIECE_BYTES;
use cob_protocol::time::SystemClock;
use serde_json::json;

use super::*;
use crate::sqlite::{Limits, SqliteReader, SqliteStore, StoreOptions};
use crate::store::Store;

pub(super) const SESSION: SessionId = SessionId(1);

pub(super) fn options(folder: &Path) -> StoreOptions {
    StoreOptions { ballast_bytes: 0, ..StoreOptions::new(folder) }
}

/// A folder that no disk is waited for in, where there is such.
pub(super) fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A bridge with an open session.
pub(super) async fn bridge(folder: &Path) -> Bridge {
    let bridge = Bridge::open(&options(folder), Arc::new(SystemClock)).unwrap();
    let writes = vec![Write::OpenSession { session: SESSION, about: Json::object() }];
    bridge.submit(Durability::Process, writes).await.unwrap();
    bridge
}

pub(super) fn id(number: u64) -> CheckpointId {
    CheckpointId { session: SESSION, number }
}

pub(super) fn facts(number: u64) -> Facts {
    Facts {
        checkpoint: id(number),
        label: Some("a label".into()),
        automatic: false,
        execution: 7,
        count: 9,
        taken_at: 1_700_000_000_000_000,
        parent: None,
        findings: Vec::new(),
    }
}

/// Bytes that nothing else has.
pub(super) fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let word = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    word.flatten().take(bytes).collect()
}

/// An outline with one component for each blob.
pub(super) fn outline(blobs: &[Bytes]) -> String {
    let components = blobs.iter().enumerate().map(|(number, blob)| {
        json!({
            "names": [format!("v{number}")], "kind": "bytes", "codec": "pickle", "bytes": blob.len(),
            "blobs": [number],
        })
    });
    json!({
        "language": "python",
        "runtime": { "implementation": "cpython", "version": "3.11.7", "abi": "cp311", "platform": "linux" },
        "components": components.collect::<Vec<_>>(),
        "missing": [{ "name": "sock", "kind": "socket", "reason": "it is a socket" }],
        "extra": { "cwd": "/", "unknown": [1, 2.5, "ü"] },
    })
    .to_string()
}

pub(super) async fn feed(bundle: &mut NewBundle, tag: Tag, bytes: impl Into<Bytes>) {
    bundle.record(tag, bytes.into()).await.unwrap();
}

pub(super) async fn feed_blobs(bundle: &mut NewBundle, blobs: &[Bytes]) {
    for blob in blobs {
        for piece in blob.chunks(BUNDLE_PIECE_BYTES) {
            feed(bundle, Tag::Piece, Bytes::copy_from_slice(piece)).await;
        }
        feed(bundle, Tag::BlobEnd, "").await;
    }
}

/// One with everything but its commit.
pub(super) async fn written(bundles: &Bundles, number: u64, blobs: &[Bytes]) -> NewBundle {
    let mut bundle = bundles.begin(facts(number)).await.unwrap();
    feed_blobs(&mut bundle, blobs).await;
    for piece in outline(blobs).into_bytes().chunks(100) {
        feed(&mut bundle, Tag::Outline, Bytes::copy_from_slice(piece)).await;
    }
    feed(&mut bundle, Tag::End, "").await;
    bundle
}

pub(super) async fn saved(bundles: &Bundles, number: u64, blobs: &[Bytes]) -> CheckpointView {
    written(bundles, number, blobs).await.commit().await.unwrap()
}

/// The outline, and the blobs.
pub(super) async fn loaded(bundles: &Bundles, number: u64) -> (String, Vec<Bytes>) {
    let mut stored = bundles.open(id(number)).await.unwrap();
    read_all(&mut stored).await.unwrap()
}

pub(super) async fn read_all(stored: &mut StoredBundle) -> Result<(String, Vec<Bytes>), BundleError> {
    let (mut outline, mut blobs, mut blob) = (Vec::new(), Vec::new(), Vec::new());
    let mut was_full = true;
    while let Some((tag, bytes)) = stored.next().await? {
        match tag {
            Tag::Outline => outline.extend_from_slice(&bytes),
            Tag::Piece => {
                assert!(was_full && !bytes.is_empty(), "only the last piece is not full");
                was_full = bytes.len() == BUNDLE_PIECE_BYTES;
                blob.extend_from_slice(&bytes);
            }
            Tag::BlobEnd => {
                was_full = true;
                blobs.push(Bytes::from(std::mem::take(&mut blob)));
            }
            Tag::End => return Ok((String::from_utf8(outline).unwrap(), blobs)),
            Tag::Failed => panic!("it is not for the store to say so"),
        }
    }
    panic!("it has no end");
}

/// Chunks that lie in a store, and whatever else lies there and should not.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.join("chunks")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

/// Opens the store as the next server does, and clears up until there is nothing more to do.
pub(super) fn cleared(folder: &Path) -> SqliteStore {
    let mut store = SqliteStore::open(&options(folder)).unwrap();
    while Store::discard(&mut store).unwrap() {}
    store
}

/// Closes the bridge, and lets the next server clear up; how many chunks are left.
pub(super) async fn left(folder: &Path, bridge: Bridge) -> usize {
    bridge.close().await;
    drop(cleared(folder));
    SqliteReader::open(folder).unwrap().verify().unwrap();
    files(folder).len()
}

pub(super) fn mixed() -> Vec<Bytes> {
    let mut blobs = vec![noise(1, 3 * BUNDLE_PIECE_BYTES + 17), Bytes::new(), noise(2, 1), noise(3, 70_000)];
    blobs.extend((10..40).map(|seed| noise(seed, 20_000)));
    blobs.push(noise(5, BUNDLE_PIECE_BYTES));
    blobs
}

#[tokio::test]
async fn what_was_saved_is_loaded() {
    let folder = in_memory();
    let bridge = bridge(folder.path()).await;
    let bundles = bridge.bundles().unwrap();
    let blobs = mixed();
    let view = saved(&bundles, 1, &blobs).await;
    let bytes = blobs.iter().map(|blob| blob.len() as u64).sum();
    assert_eq!((view.bytes, view.new_bytes, view.tier), (Some(bytes), Some(bytes), Tier::Durable));
    assert_eq!((view.execution, view.count, view.missing.len()), (7, 9, 1));
    assert_eq!(bundles.list(SESSION).await.unwrap(), std::slice::from_ref(&view));
    assert_eq!(bundles.list(SessionId(2)).await.unwrap(), []);
    let stored = bundles.open(id(1)).await.unwrap();
    assert_eq!(stored.view(), Some(&view));
    assert_eq!(stored.outline().unwrap().components.len(), blobs.len());
    // What only the language understands comes back as it was written.
    assert_eq!(loaded(&bundles, 1).await, (outline(&blobs), blobs.clone()));
    let metrics = bridge.metrics().bundles;
    assert_eq!((metrics.bundles, metrics.bytes), (1, bytes));
    assert_eq!(metrics.chunks, files(folder.path()).len() as u64);
    assert!(metrics.chunks < 12, "small blobs lie together: {metrics:?}");
    bridge.close().await;
    // The next server knows it too.
    let bridge = Bridge::open(&options(folder.path()), Arc::new(SystemClock)).unwrap();
    assert_eq!(bridge.metrics().bundles, metrics);
    assert_eq!(loaded(&bridge.bundles().unwrap(), 1).await.1, blobs);
    assert!(Bridge::in_memory(Arc::new(SystemClock)).bundles().is_none());
}

#[tokio::test]
async fn what_did_not_change_is_stored_once_and_goes_with_the_last_that_has_it() {
    let folder = in_memory();
    let bridge = bridge(folder.path()).await;
    let bundles = bridge.bundles().unwrap();
    let mut blobs = mixed();
    saved(&bundles, 1, &blobs).await;
    assert_eq!(saved(&bundles, 2, &blobs).await.new_bytes, Some(0));
    let count = files(folder.path()).len();
    blobs[0] = [noise(1, 2 * BUNDLE_PIECE_BYTES), noise(9, 100_000)].concat().into();
    assert_eq!(saved(&bundles, 3, &blobs).await.new_bytes, Some(100_000));
    assert_eq!(files(folder.path()).len(), count + 1);
    bundles.delete(id(1)).await.unwrap();
    assert!(matches!(bundles.delete(id(1)).await, Err(BundleError::Unknown(_))));
    assert!(matches!(bundles.open(id(1)).await, Err(BundleError::Unknown(_))));
    // One that is being read stays as long as that takes.
    let mut reading = bundles.open(id(2)).await.unwrap();
    bundles.delete(id(2)).await.unwrap();
    read_all(&mut reading).await.unwrap();
    drop(reading);
    assert_eq!(loaded(&bundles, 3).await.1, blobs);
    let left = left(folder.path(), bridge).await;
    assert_eq!(left, count - 1, "two chunks of the first two, one new");
    let mut store = cleared(folder.path());
    assert!(!Store::discard(&mut store).unwrap(), "nothing is left to do");
}

#[tokio::test]
async fn a_deleted_one_gives_its_room_back_while_the_store_is_open() {
    let folder = in_memory();
    let bridge = bridge(folder.path()).await;
    let bundles = bridge.bundles().unwrap();
    saved(&bundles, 1, &mixed()).await;
    bundles.delete(id(1)).await.unwrap();
    assert_eq!(bridge.metrics().bundles.bundles, 0);
    while bridge.metrics().bundles.chunks > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bridge.metrics().bundles.bytes, 0);
    drop(bundles);
    assert_eq!(left(folder.path(), bridge).await, 0);
}

#[tokio::test]
async fn one_that_was_not_committed_leaves_nothing() {
    let folder = in_memory();
    let bridge = bridge(folder.path()).await;
    let bundles = bridge.bundles().unwrap();
    let blobs = [noise(1, 100_000), noise(2, 100_000)];
    saved(&bundles, 1, &blobs[..1]).await;
    drop(written(&bundles, 2, &blobs).await);
    assert_eq!(bundles.list(SESSION).await.unwrap().len(), 1);
    assert!(matches!(bundles.open(id(2)).await, Err(BundleError::Unknown(_))));
    assert_eq!(left(folder.path(), bridge).await, 1);
}

#[tokio::test]
async fn a_sweep_takes_nothing_of_what_is_being_written() {
    let folder = in_memory();
    let mut store = SqliteStore::open(&options(folder.path())).unwrap();
    let group = crate::store::Group {
        now: cob_protocol::time::Timestamp::from_micros(0),
        durability: Durability::Process,
        writes: vec![Write::OpenSession { session: SESSION, about: Json::object() }],
    };
    store.commit(&[group]).unwrap();
    let chunks = Arc::clone(store.chunks());
    let pinned = Pinned::new(&chunks);
    let (fresh, stray) = (crate::payloads::hash_of(b"fresh"), crate::payloads::hash_of(b"stray"));
    pinned.add(fresh);
    for (hash, body) in [(fresh, b"fresh"), (stray, b"stray")] {
        chunks.files.put(&hash, body, crate::payloads::Safe::No).unwrap();
    }
    while store.discard().unwrap() {}
    assert!(chunks.files.has(&fresh, 5) && !chunks.files.has(&stray, 5));
    drop(pinned);
    while store.discard().unwrap() {}
    assert!(!chunks.files.has(&fresh, 5), "nobody wants it any more");
}

#[tokio::test]
async fn there_is_a_number_of_them_that_a_session_may_have_and_a_name_is_used_once() {
    let folder = in_memory();
    let bridge = bridge(folder.path()).await;
    let bundles = bridge.bundles().unwrap();
    let two = [written(&bundles, 1, &[]).await, written(&bundles, 1, &[]).await];
    let [first, second] = two;
    first.commit().await.unwrap();
    let error = second.commit().await.unwrap_err();
    assert!(error.to_string().contains("s1.k1 exists already"), "{error}");
    for number in 2..=BUNDLES_MAX as u64 {
        saved(&bundles, number, &[]).await;
    }
    let error = bundles.begin(facts(BUNDLES_MAX as u64 + 1)).await.unwrap_err();
    assert!(matches!(error, BundleError::Full(_)) && error.to_string().contains("256"), "{error}");
    bundles.delete(id(3)).await.unwrap();
    saved(&bundles, BUNDLES_MAX as u64 + 1, &[]).await;
}

#[tokio::test]
async fn bundles_of_closed_sessions_are_forgotten_as_events_are_and_others_never() {
    let folder = in_memory();
    let bridge = bridge(folder.path()).await;
    let other = SessionId(2);
    let writes = vec![Write::OpenSession { session: other, about: Json::object() }];
    bridge.submit(Durability::Process, writes).await.unwrap();
    let bundles = bridge.bundles().unwrap();
    let blobs = [noise(1, 100_000)];
    for number in [1, 2] {
        saved(&bundles, number, &blobs).await;
    }
    let mut stays = bundles
        .begin(Facts { checkpoint: CheckpointId { session: other, number: 1 }, ..facts(1) })
        .await
        .unwrap();
    feed_blobs(&mut stays, &blobs).await;
    feed(&mut stays, Tag::Outline, outline(&blobs)).await;
    feed(&mut stays, Tag::End, "").await;
    stays.commit().await.unwrap();
    bridge.submit(Durability::Process, vec![Write::CloseSession { session: SESSION }]).await.unwrap();
    let closed_at = bridge.session(SESSION).await.unwrap().unwrap().closed_at.unwrap().micros();
    assert!(bundles.open(id(1)).await.is_ok(), "it can still be taken from here");
    bridge.close().await;
    let mut store = cleared(folder.path());
    let mut retain = |micros: i64, limits: Limits| {
        let mut forgotten = 0;
        for _ in 0..100_000 {
            let now = cob_protocol::time::Timestamp::from_micros(micros);
            let retained = store.retain(now, &limits).unwrap();
            forgotten += retained.bundles;
            while store.discard().unwrap() {}
            if !retained.is_more {
                return forgotten;
            }
        }
        panic!("retention does not end");
    };
    let aged = |age_s| Limits { age_s, ..Limits::default() };
    assert_eq!(retain(closed_at + 4_999_999, aged(5)), 0);
    let full = Limits { bundle_bytes: 99_999, ..Limits::default() };
    assert_eq!(
        retain(closed_at, full.clone()),
        2,
        "what an open session has is not forgotten, whatever it takes"
    );
    assert_eq!(retain(closed_at + 5_000_000, aged(5)), 0);
    assert_eq!(store.bundles(None).unwrap().len(), 1);
    assert_eq!(files(folder.path()).len(), 1, "the other session has it too");
}

use crate::store::Read;

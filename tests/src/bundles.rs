//! Bundles as a session makes them: what is in one is known from its number.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cob_bridge::{
    Bridge, BundleError, Bundles, Facts, NewBundle, OpenError, SqliteReader, SqliteStore, StoreOptions, Write,
};
use cob_protocol::bundle::Tag;
use cob_protocol::checkpoint::CheckpointView;
use cob_protocol::ids::{CheckpointId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::limits::BUNDLE_PIECE_BYTES;
use cob_protocol::promise::Durability;
use cob_protocol::time::SystemClock;
use serde_json::json;

/// The session that all of them are of.
pub const SESSION: SessionId = SessionId(1);

/// The bundle with this number.
#[must_use]
pub fn id(number: u64) -> CheckpointId {
    CheckpointId { session: SESSION, number }
}

/// The blobs of a bundle: the first is that of all, the others of this one alone.
#[must_use]
pub fn blobs(number: u64) -> Vec<Bytes> {
    let noise = |seed: u64, bytes: usize| -> Bytes {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let words = std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        words.flatten().take(bytes).collect()
    };
    vec![
        noise(1000, 300_000),
        noise(number, 200_000),
        noise(number + 500, 10),
        noise(number + 600, BUNDLE_PIECE_BYTES),
    ]
}

/// What its worker says of it.
#[must_use]
pub fn outline(blobs: &[Bytes]) -> Bytes {
    let lengths = blobs.iter().map(|blob| blob.len() as u64).enumerate();
    let components = lengths.map(|(blob, bytes)| {
        json!({ "names": [format!("v{blob}")], "kind": "bytes", "codec": "pickle", "bytes": bytes, "blobs": [blob] })
    });
    let runtime =
        json!({ "implementation": "cpython", "version": "3.11.7", "abi": "cp311", "platform": "linux" });
    let components: Vec<_> = components.collect();
    json!({ "language": "python", "runtime": runtime, "components": components }).to_string().into()
}

/// Opens the store in `folder`, and the session if it is new.
///
/// # Errors
/// [`OpenError`]
pub async fn open(folder: &Path) -> Result<Bridge, OpenError> {
    let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::new(folder) };
    let bridge = Bridge::open(&options, Arc::new(SystemClock))?;
    if bridge.sessions_open() == 0 {
        let write = Write::OpenSession { session: SESSION, about: Json::object() };
        bridge.submit(Durability::Power, vec![write]).await?;
    }
    Ok(bridge)
}

/// Writes the bundle with this number, and commits it.
///
/// # Errors
/// [`BundleError`]
pub async fn save(bundles: &Bundles, number: u64) -> Result<CheckpointView, BundleError> {
    let facts = Facts {
        checkpoint: id(number),
        label: None,
        automatic: false,
        execution: number,
        count: 1,
        taken_at: 0,
        parent: None,
        findings: Vec::new(),
    };
    let mut bundle = bundles.begin(facts).await?;
    feed(&mut bundle, &blobs(number)).await?;
    bundle.commit().await
}

/// All records of a bundle.
///
/// # Errors
/// [`BundleError`]
pub async fn feed(bundle: &mut NewBundle, blobs: &[Bytes]) -> Result<(), BundleError> {
    for blob in blobs {
        let mut rest = blob.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(BUNDLE_PIECE_BYTES));
            bundle.record(Tag::Piece, piece).await?;
        }
        bundle.record(Tag::BlobEnd, Bytes::new()).await?;
    }
    bundle.record(Tag::Outline, outline(blobs)).await?;
    bundle.record(Tag::End, Bytes::new()).await
}

/// The blobs of a bundle in the store.
///
/// # Errors
/// [`BundleError`]
pub async fn load(bundles: &Bundles, checkpoint: CheckpointId) -> Result<Vec<Bytes>, BundleError> {
    let mut stored = bundles.open(checkpoint).await?;
    let (mut blobs, mut blob) = (Vec::new(), Vec::new());
    while let Some((tag, bytes)) = stored.next().await? {
        match tag {
            Tag::Piece => blob.extend_from_slice(&bytes),
            Tag::BlobEnd => blobs.push(std::mem::take(&mut blob).into()),
            _ => {}
        }
    }
    Ok(blobs)
}

/// The numbers of the bundles in a store, in order; each is what was saved under its number, or under one that is given
/// for it. Nothing is there that none of them needs, once the next server has cleared up.
///
/// # Panics
/// When it is not so.
pub async fn found(folder: &Path, imported: &[(u64, u64)]) -> Vec<u64> {
    let bridge = open(folder).await.expect("a store");
    let bundles = bridge.bundles().expect("a place for bundles");
    let mut numbers = Vec::new();
    for view in bundles.list(SESSION).await.expect("a list") {
        let number = view.checkpoint.number;
        let made_as = imported.iter().find(|(to, _)| *to == number).map_or(number, |(_, from)| *from);
        let loaded = load(&bundles, view.checkpoint).await.expect("a bundle that is whole");
        assert!(loaded == blobs(made_as), "{number} is not what was saved");
        numbers.push(number);
    }
    drop(bundles);
    bridge.close().await;
    drop(bridge);
    is_clear(folder).await;
    numbers
}

/// Nothing is in a store that none of its bundles needs, once the next server has cleared up; and it is sound.
///
/// # Panics
/// When it is not so.
pub async fn is_clear(folder: &Path) {
    let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::new(folder) };
    let mut store = SqliteStore::open(&options).expect("a store");
    while store.discard().expect("a store that can be cleared up") {}
    drop(store);
    SqliteReader::open(folder).expect("a store").verify().expect("a sound store");
    let bridge = open(folder).await.expect("a store");
    assert_eq!(files(folder).len() as u64, bridge.metrics().bundles.chunks, "{:?}", files(folder));
    bridge.close().await;
}

/// Whatever lies where chunks do.
#[must_use]
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.join("chunks")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

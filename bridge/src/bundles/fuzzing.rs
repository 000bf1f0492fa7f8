//! What fuzzing asks of the parsers of bundles: that they end, and that what they let through is consistent.

use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::archive::{Archive, chunk_name};
use super::key::{Key, Keys};
use super::manifest::{Chunk, HexHash, Manifest};
use super::{BundleError, Facts};
use crate::payloads::hash_of;

/// The key of the archives here.
const KEY: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// Reads `bytes` as a manifest whose signature is good: what is accepted is written as it was read, and its chunks are
/// as long as its blobs.
///
/// # Panics
/// When they are not.
pub fn check_manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(bytes) else { return };
    let sum: u64 = manifest.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
    assert_eq!(Some(sum), manifest.view.bytes);
    let Ok(again) = manifest.to_bytes() else { return };
    let parsed = Manifest::parse(&again).and_then(|manifest| manifest.to_bytes());
    assert!(matches!(parsed, Ok(bytes) if bytes == again));
}

/// Reads the file at `path` as an archive of the key that [`example_archive`] is signed with; whether it is one, with all
/// its chunks.
///
/// # Panics
/// When a chunk is given out that is not what its name says.
#[must_use]
pub fn check_archive(path: &Path) -> bool {
    let keys = Keys::new(path.parent().unwrap_or(path));
    let Ok(mut archive) = Archive::open(&keys, path, Some(KEY)) else { return false };
    let whole = archive.chunks(|hash, body| {
        assert_eq!(hash_of(body), hash);
        Ok(())
    });
    whole.is_ok()
}

/// An archive of two chunks, and its manifest.
///
/// # Errors
/// Never, as things are.
pub fn example_archive() -> Result<(Vec<u8>, Vec<u8>), BundleError> {
    let bodies = [vec![1_u8; 600], vec![2_u8; 5]];
    let chunk = |body: &Vec<u8>| Chunk { hash: HexHash(hash_of(body)), bytes: body.len() as u32 };
    let outline = serde_json::json!({
        "language": "python",
        "runtime": { "implementation": "cpython", "version": "3.11.7", "abi": "cp311", "platform": "linux" },
        "components": [{ "names": ["x"], "kind": "int", "codec": "pickle", "bytes": 605, "blobs": [0, 1] }],
        "missing": [{ "name": "s", "kind": "socket", "reason": "it is one" }],
    });
    let checkpoint = "s1.k1".parse().map_err(super::manifest::damaged)?;
    let facts = Facts {
        checkpoint,
        label: Some("x".to_owned()),
        automatic: false,
        execution: 1,
        count: 1,
        taken_at: 1,
        parent: None,
        findings: Vec::new(),
    };
    let chunks = bodies.iter().map(chunk).collect();
    let outline = outline.to_string().into_bytes();
    let manifest = Manifest::new(facts.into_view(), Vec::new(), vec![600, 5], chunks, outline)?.to_bytes()?;
    let key = Key::read(KEY).ok_or_else(|| super::manifest::damaged("no key"))?;
    let mac = hex::encode(key.sign(&manifest)).into_bytes();
    let mut entries = vec![("manifest.json".to_owned(), manifest.clone()), ("manifest.mac".to_owned(), mac)];
    entries.extend(bodies.into_iter().map(|body| (chunk_name(&hash_of(&body)), body)));
    let mut tar = Builder::new(Vec::new());
    for (name, body) in entries {
        let mut header = Header::new_ustar();
        header.set_size(body.len() as u64);
        header.set_entry_type(EntryType::Regular);
        tar.append_data(&mut header, name, &body[..]).map_err(super::manifest::damaged)?;
    }
    Ok((tar.into_inner().map_err(super::manifest::damaged)?, manifest))
}

//! Bundles in files: what goes out comes in, and nothing else does.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;

/// A store with one bundle, and the file that it was exported to.
async fn exported(folder: &Path) -> (Bridge, PathBuf, Vec<Bytes>) {
    let bridge = bridge(&folder.join("store")).await;
    let blobs = vec![noise(1, 2 * BUNDLE_PIECE_BYTES + 1), noise(2, 10), noise(1, BUNDLE_PIECE_BYTES)];
    let bundles = bridge.bundles().unwrap();
    saved(&bundles, 1, &blobs).await;
    let path = folder.join("one.cob");
    let bytes = bundles.export(id(1), &path).await.unwrap();
    assert_eq!(path.metadata().unwrap().len(), bytes);
    (bridge, path, blobs)
}

fn key_of(store: &Path) -> String {
    std::fs::read_to_string(store.join("bundle.key")).unwrap()
}

#[tokio::test]
async fn what_was_exported_is_imported_where_its_key_is_known() {
    let folder = in_memory();
    let (first, path, blobs) = exported(folder.path()).await;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let bundles = first.bundles().unwrap();
    // At home it needs no key, and takes no room.
    let view = bundles.import(id(2), &path, None).await.unwrap();
    assert_eq!((view.checkpoint, view.new_bytes, view.label.as_deref()), (id(2), Some(0), Some("a label")));
    assert_eq!(loaded(&bundles, 2).await, (outline(&blobs), blobs.clone()));

    let elsewhere = folder.path().join("elsewhere");
    let second = bridge(&elsewhere).await;
    let others = second.bundles().unwrap();
    let error = others.import(id(1), &path, None).await.unwrap_err();
    assert!(matches!(&error, BundleError::Untrusted(what) if what.contains("bundle.key")), "{error}");
    saved(&others, 9, &[]).await;
    for wrong in [key_of(&elsewhere), "00".repeat(32), "ab".into(), String::new()] {
        let error = others.import(id(1), &path, Some(&wrong)).await.unwrap_err();
        assert!(matches!(error, BundleError::Untrusted(_)), "{error}");
    }
    assert_eq!(files(&elsewhere).len(), 0, "nothing of it is there");
    let key = key_of(&folder.path().join("store"));
    let view = others.import(id(1), &path, Some(&key)).await.unwrap();
    assert_eq!(view.missing.len(), 1);
    // It is ours now.
    assert_eq!(loaded(&others, 1).await, (outline(&blobs), blobs));
    let again = folder.path().join("again.cob");
    others.export(id(1), &again).await.unwrap();
    others.import(id(5), &again, None).await.unwrap();
    let stored = others.open(id(5)).await.unwrap();
    let origins: Vec<_> = stored.imported_from().iter().map(|origin| origin.checkpoint).collect();
    assert_eq!(origins, [id(1), id(1)]);
    assert_ne!(stored.imported_from()[0].key, stored.imported_from()[1].key);
}

#[tokio::test]
async fn nothing_is_overwritten_and_nothing_half_is_left() {
    let folder = in_memory();
    let (bridge, path, _) = exported(folder.path()).await;
    let bundles = bridge.bundles().unwrap();
    let before = std::fs::read(&path).unwrap();
    std::os::unix::fs::symlink("/nowhere", folder.path().join("link")).unwrap();
    for name in ["one.cob", "link"] {
        let error = bundles.export(id(1), &folder.path().join(name)).await.unwrap_err();
        assert!(error.to_string().contains("exists already"), "{error}");
    }
    assert!(std::fs::read(&path).unwrap() == before);
    for wrong in [folder.path().join("none/one.cob"), PathBuf::from("/")] {
        bundles.export(id(1), &wrong).await.unwrap_err();
    }
    std::fs::write(&files(&folder.path().join("store"))[0], b"").unwrap();
    bundles.export(id(1), &folder.path().join("two.cob")).await.unwrap_err();
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[tokio::test]
async fn a_store_is_listed_and_exported_without_its_server_and_beside_it() {
    let folder = in_memory();
    let (bridge, path, _) = exported(folder.path()).await;
    let store = folder.path().join("store");
    for (round, name) in ["beside.cob", "without.cob"].into_iter().enumerate() {
        let mut kept = KeptBundles::open(&store).unwrap();
        assert_eq!(kept.list(None).unwrap().len(), 1);
        assert_eq!(kept.list(Some(SessionId(2))).unwrap(), []);
        let other = folder.path().join(name);
        kept.export(id(1), &other).unwrap();
        assert!(std::fs::read(&other).unwrap() == std::fs::read(&path).unwrap());
        assert!(matches!(kept.export(id(2), &other), Err(BundleError::Unknown(_))));
        if round == 0 {
            bridge.close().await;
        }
    }
}

/// What somebody does to a file.
type Change<'a> = &'a dyn Fn(&mut Vec<Entry>);

/// One entry of a tar that somebody made.
struct Entry {
    name: String,
    kind: EntryType,
    body: Vec<u8>,
}

fn entries_of(path: &Path) -> Vec<Entry> {
    let mut archive = tar::Archive::new(std::fs::File::open(path).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut body = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut body).unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        Entry { name, kind: EntryType::Regular, body }
    });
    entries.collect()
}

fn pack(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
        header.set_size(entry.body.len() as u64);
        header.set_mode(0o600);
        header.set_entry_type(entry.kind);
        header.set_cksum();
        tar.append(&header, &entry.body[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

#[tokio::test]
async fn a_file_that_is_not_just_what_its_manifest_says_is_refused_and_leaves_nothing() {
    let folder = in_memory();
    let (bridge, path, _) = exported(folder.path()).await;
    let bundles = bridge.bundles().unwrap();
    let other = folder.path().join("other.cob");
    let import = async |bytes: Vec<u8>| {
        std::fs::write(&other, bytes).unwrap();
        bundles.import(id(7), &other, None).await.unwrap_err()
    };
    let changed = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut entries = entries_of(&path);
        assert_eq!(entries.len(), 6, "the manifest, its signature, four chunks");
        change(&mut entries);
        pack(&entries)
    };
    std::fs::write(&other, changed(&|_| {})).unwrap();
    bundles.import(id(6), &other, None).await.unwrap();
    let huge = |entries: &mut Vec<Entry>| entries[2].body = vec![0; BUNDLE_PIECE_BYTES + 1];
    let name = |name: &'static str| move |entries: &mut Vec<Entry>| entries[2].name = name.to_owned();
    let kind = |kind: EntryType| move |entries: &mut Vec<Entry>| entries[2].kind = kind;
    let cases: &[(Change<'_>, &str)] = &[
        (&|entries| drop(entries.pop()), "is missing"),
        (&|entries| entries.swap(2, 3), "stands where chunks/"),
        (&|entries| entries.swap(0, 1), "stands where manifest.json"),
        (&|entries| drop(entries.remove(1)), "stands where manifest.mac"),
        (&|entries| entries[2].body[5] ^= 1, "is not what was written"),
        (&|entries| entries[2].body.truncate(9), "is not what was written"),
        (&huge, "at most"),
        (&|entries| entries[1].body.truncate(9), "manifest.mac"),
        (&|entries| entries[1].body.push(b'0'), "at most 64"),
        (&|entries| entries[1].body[0] = b'x', "manifest.mac"),
        (&name("../../etc/passwd"), "stands where"),
        (&name("/etc/passwd"), "stands where"),
        (&kind(EntryType::Symlink), "stands where"),
        (&kind(EntryType::Directory), "stands where"),
        (&kind(EntryType::GNULongName), "stands where"),
        (&kind(EntryType::GNUSparse), "stands where"),
        (&kind(EntryType::XHeader), "stands where"),
        (
            &|entries| entries.insert(0, Entry { name: "x".into(), kind: EntryType::Regular, body: vec![] }),
            "where manifest",
        ),
        (
            &|entries| entries.push(Entry { name: "x".into(), kind: EntryType::Regular, body: vec![] }),
            "there is more",
        ),
    ];
    for (change, expected) in cases {
        let error = import(changed(*change)).await;
        assert!(matches!(error, BundleError::Damaged(_)), "{expected}: {error:?}");
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
    let signed = changed(&|entries| entries[0].body[50] ^= 1);
    assert!(matches!(import(signed).await, BundleError::Untrusted(_)));
    for short in [0, 1, 511, 512, 600, 4096] {
        let whole = std::fs::read(&path).unwrap();
        let error = import(whole[..short].to_vec()).await;
        assert!(matches!(error, BundleError::Damaged(_)), "{short}: {error:?}");
    }
    for wrong in [folder.path().to_owned(), folder.path().join("none")] {
        assert!(matches!(bundles.import(id(7), &wrong, None).await, Err(BundleError::File { .. })));
    }
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(matches!(bundles.import(id(7), &pipe, None).await, Err(BundleError::File { .. })));
    assert_eq!(bundles.list(SESSION).await.unwrap().len(), 2);
    assert_eq!(left(&folder.path().join("store"), bridge).await, 4);
}

#[tokio::test]
async fn import_to_a_name_that_is_taken_is_refused_before_anything_is_written() {
    let folder = in_memory();
    let (bridge, path, _) = exported(folder.path()).await;
    let error = bridge.bundles().unwrap().import(id(1), &path, None).await.unwrap_err();
    assert!(error.to_string().contains("s1.k1 exists already"), "{error}");
}

fn manifest() -> Vec<u8> {
    let blobs = [noise(1, 5), noise(2, 7)];
    let chunks = [crate::bundles::manifest::Chunk { hash: super::manifest::HexHash([7; 32]), bytes: 12 }];
    let outline = outline(&blobs).into_bytes();
    let made = Manifest::new(facts(1).into_view(), Vec::new(), vec![5, 7], chunks.to_vec(), outline);
    made.unwrap().to_bytes().unwrap()
}

#[test]
fn manifests_survive_being_written_and_contradictions_are_refused() {
    let body = manifest();
    let text = String::from_utf8(body.clone()).unwrap();
    assert_eq!(Manifest::parse(&body).unwrap().to_bytes().unwrap(), body);
    let hash = "07".repeat(32);
    for (from, to) in [
        ("\"version\":1", "\"version\":2".to_owned()),
        ("[5,7]", "[5,8]".into()),
        ("[5,7]", "[7,5]".into()),
        ("[5,7]", format!("[5,7,{}]", u64::MAX)),
        (",12]", ",0],[\"".to_owned() + &hash + "\",12]"),
        (",12]", ",6],[\"".to_owned() + &hash + "\",7],[\"" + &hash + "\",-1]"),
        (",12]", ",11],[\"".to_owned() + &hash + "\",1]"),
        ("\"0707", "\"07".into()),
        ("\"blobs\":[5", "\"blobs\":[],\"blobs\":[5".into()),
        ("\"version\"", "\"more\":1,\"version\"".into()),
    ] {
        let changed = text.replacen(from, &to, 1);
        assert_ne!(changed, text, "{from}");
        assert!(matches!(Manifest::parse(changed.as_bytes()), Err(BundleError::Damaged(_))), "{from} → {to}");
    }
}

proptest! {
    /// Whatever is parsed is bounded and consistent, and is written as it was read.
    #[test]
    fn no_manifest_makes_trouble(place in 0..2000_usize, byte: u8, cut in 0..4000_usize, with in ".{0,20}") {
        let mut body = manifest();
        let place = place % body.len();
        body[place] = byte;
        if cut < body.len() {
            body.splice(cut.min(place)..cut.max(place), with.bytes());
        }
        if let Ok(manifest) = Manifest::parse(&body) {
            let sum: u64 = manifest.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
            prop_assert_eq!(Some(sum), manifest.view.bytes);
            let again = manifest.to_bytes().unwrap();
            prop_assert_eq!(Manifest::parse(&again).unwrap().to_bytes().unwrap(), again);
        }
    }

    /// A file that was damaged anywhere is refused, or is the same bundle.
    #[test]
    fn no_archive_makes_trouble(place: usize, byte: u8, length: usize) {
        let key = key::Key::read(&"5a".repeat(32)).unwrap();
        let body = manifest();
        let mac = hex::encode(key.sign(&body)).into_bytes();
        let entry = |name: &str, body: &[u8]| Entry { name: name.into(), kind: EntryType::Regular, body: body.into() };
        let mut bytes = pack(&[entry("manifest.json", &body), entry("manifest.mac", &mac)]);
        let place = place % bytes.len();
        bytes[place] = byte;
        if length % 2 == 0 {
            bytes.truncate(length / 2 % bytes.len());
        }
        let folder = in_memory();
        let path = folder.path().join("file");
        std::fs::write(&path, &bytes).unwrap();
        let keys = key::Keys::new(folder.path());
        match archive::Archive::open(&keys, &path, Some(&"5a".repeat(32))) {
            Ok(archive) => prop_assert_eq!(archive.as_imported(id(3)).0.bytes, Some(12)),
            Err(BundleError::Damaged(_) | BundleError::Untrusted(_)) => {}
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

#[tokio::test]
async fn what_stands_in_another_file_is_not_told() {
    let folder = in_memory();
    let bridge = bridge(&folder.path().join("store")).await;
    let bundles = bridge.bundles().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "a secret line\n".repeat(200)).unwrap();
    let error = bundles.import(id(9), &path, Some(&"ab".repeat(32))).await.unwrap_err();
    assert!(matches!(error, BundleError::Damaged(_)), "{error}");
    assert!(error.to_string().contains("no tar archive") && !error.to_string().contains("line"), "{error}");
}

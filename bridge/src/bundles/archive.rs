//! A bundle in one file: a tar with `manifest.json`, `manifest.mac` and then every chunk once, as `chunks/<hash>`, in the
//! order in which the manifest first names them.
//!
//! What is read comes from anywhere. The manifest is believed only when its signature is good, and then everything else
//! must be just what it says, so there is nothing to be guessed: no name is made a path, no length is trusted beyond
//! what it may be, no extension of the format is followed.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cob_protocol::checkpoint::CheckpointView;
use cob_protocol::crash_point;
use cob_protocol::ids::CheckpointId;
use cob_protocol::limits::BUNDLE_MANIFEST_BYTES_MAX;
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use tar::{Builder, Entries, EntryType, Header};

use super::BundleError;
use super::key::{Key, Keys};
use super::manifest::{Chunk, HexHash, Manifest, Origin};
use super::reading::read;
use super::writing::{NewBundle, Written};
use crate::payloads::{Payloads, hash_of, sync};
use crate::store::{ChunkHash, SignedManifest};

const MANIFEST: &str = "manifest.json";
const MAC: &str = "manifest.mac";
/// The signature as hexadecimal digits.
const MAC_BYTES: usize = 64;

pub(super) fn chunk_name(hash: &ChunkHash) -> String {
    format!("chunks/{}", hex::encode(hash))
}

fn file_error(path: &Path, what: impl ToString) -> BundleError {
    BundleError::File { path: path.to_owned(), what: what.to_string() }
}

/// Writes a bundle into a file that is not there yet; gives its size. It has its name only when it is whole, and on the
/// disk.
pub(super) fn export(
    files: &Payloads,
    manifest: &Manifest,
    signed: &SignedManifest,
    path: &Path,
) -> Result<u64, BundleError> {
    let exists = || file_error(path, "it exists already, and nothing is overwritten; choose another name");
    if path.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let unfinished = Unfinished::beside(path)?;
    let failed = |error: io::Error| file_error(path, error);
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&unfinished.0).map_err(failed)?;
    let file = write(files, manifest, signed, file, path)?;
    file.sync_all().map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    crash_point!("export_written");
    match rename_new(&unfinished.0, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists()),
        renamed => renamed.map_err(failed)?,
    }
    sync(folder).map_err(failed)?;
    Ok(bytes)
}

fn write(
    files: &Payloads,
    manifest: &Manifest,
    signed: &SignedManifest,
    file: File,
    path: &Path,
) -> Result<File, BundleError> {
    let failed = |error: io::Error| file_error(path, error);
    let mut tar = Builder::new(BufWriter::new(file));
    let taken_at = u64::try_from(manifest.view.taken_at / 1_000_000).unwrap_or(0);
    let mut add = |name: &str, body: &[u8]| {
        let mut header = Header::new_ustar();
        header.set_size(body.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(taken_at);
        header.set_entry_type(EntryType::Regular);
        tar.append_data(&mut header, name, body).map_err(failed)
    };
    add(MANIFEST, &signed.body)?;
    add(MAC, hex::encode(signed.mac).as_bytes())?;
    for (hash, bytes) in manifest.distinct() {
        add(&chunk_name(&hash), &read(files, Chunk { hash: HexHash(hash), bytes })?)?;
    }
    let file = tar.into_inner().map_err(failed)?;
    file.into_inner().map_err(|error| failed(error.into_error()))
}

/// Gives a file its name, unless somebody has it.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can, and some can make another name instead.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::hard_link(from, to),
        renamed => Ok(renamed?),
    }
}

/// A file that is removed, unless it got another name.
struct Unfinished(PathBuf);

impl Unfinished {
    fn beside(path: &Path) -> Result<Self, BundleError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = path.file_name().ok_or_else(|| file_error(path, "it names no file"))?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!(".{}.{}-{number}.unfinished", name.to_string_lossy(), std::process::id());
        Ok(Self(path.with_file_name(name)))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A bundle in a file whose manifest is believed.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    file: File,
    manifest: Manifest,
    key: String,
}

type Reading<'a> = Entries<'a, BufReader<&'a File>>;

impl Archive {
    /// Opens the file, and verifies what is signed with this key, else with ours.
    pub(super) fn open(keys: &Keys, path: &Path, key: Option<&str>) -> Result<Self, BundleError> {
        let key = match key {
            Some(text) => Key::read(text).ok_or_else(|| {
                let what =
                    "the key is 64 hexadecimal digits, as they stand in bundle.key of the store that made it";
                BundleError::Untrusted(what.to_owned())
            })?,
            None => keys.found()?.ok_or_else(|| untrusted(path))?,
        };
        let mut options = OpenOptions::new();
        // Whoever names a pipe shall not wait for somebody to write into it.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file =
            options.read(true).custom_flags(flags).open(path).map_err(|error| file_error(path, error))?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(file_error(path, "it is no file"));
        }
        let signed = signed_in(&mut entries(&mut tar::Archive::new(BufReader::new(&file)), path)?, path)?;
        if !key.has_signed(&signed) {
            return Err(untrusted(path));
        }
        let manifest = Manifest::parse(&signed.body)?;
        Ok(Self { path: path.to_owned(), file, manifest, key: key.name().to_owned() })
    }

    /// What is known of it when it is here, as checkpoint `to`, and where it came from.
    pub(super) fn as_imported(&self, to: CheckpointId) -> (CheckpointView, Vec<Origin>) {
        let mut view = self.manifest.view.clone();
        let origin = Origin { checkpoint: view.checkpoint, key: self.key.clone() };
        // Where its session had come from is no checkpoint of this store.
        (view.checkpoint, view.parent, view.automatic) = (to, None, false);
        let mut origins = self.manifest.imported_from.clone();
        origins.push(origin);
        (view, origins)
    }

    /// Writes its chunks into the store.
    pub(super) fn read_into(mut self, bundle: &mut NewBundle) -> Result<(), BundleError> {
        let mut written: HashMap<ChunkHash, Written> = HashMap::new();
        self.chunks(|hash, body| {
            written.insert(hash, bundle.writing().write(hash, body)?);
            Ok(())
        })?;
        let chunks = self.manifest.chunks.iter().filter_map(|chunk| written.get(&chunk.hash.0).copied());
        bundle.take_whole(&self.manifest, chunks.collect());
        Ok(())
    }

    /// Goes through its chunks, each once, which must be what the manifest says, and all.
    pub(super) fn chunks(
        &mut self,
        mut take: impl FnMut(ChunkHash, &[u8]) -> Result<(), BundleError>,
    ) -> Result<(), BundleError> {
        let Self { path, file, manifest, .. } = self;
        file.rewind().map_err(|error| file_error(path, error))?;
        let mut archive = tar::Archive::new(BufReader::new(&*file));
        let mut entries = entries(&mut archive, path)?;
        signed_in(&mut entries, path)?;
        for (hash, bytes) in manifest.distinct() {
            let length = usize::try_from(bytes).unwrap_or(usize::MAX);
            let body = next(&mut entries, &chunk_name(&hash), length, path)?;
            if body.len() != length || hash_of(&body) != hash {
                return Err(refused(path, format!("{} is not what was written", chunk_name(&hash))));
            }
            take(hash, &body)?;
        }
        match entries.next() {
            None => Ok(()),
            Some(_) => Err(refused(path, "there is more in it than its manifest says")),
        }
    }
}

fn entries<'a>(
    archive: &'a mut tar::Archive<BufReader<&'a File>>,
    path: &Path,
) -> Result<Reading<'a>, BundleError> {
    // Raw: long names and sparse files are of no use here, and would be followed wherever they lead.
    archive.entries().map(|entries| entries.raw(true)).map_err(|error| refused(path, error))
}

fn signed_in(entries: &mut Reading<'_>, path: &Path) -> Result<SignedManifest, BundleError> {
    let body = next(entries, MANIFEST, BUNDLE_MANIFEST_BYTES_MAX, path)?;
    let mut mac = [0; 32];
    let digits = next(entries, MAC, MAC_BYTES, path)?;
    hex::decode_to_slice(digits, &mut mac).map_err(|error| refused(path, format!("{MAC}: {error}")))?;
    Ok(SignedManifest { body, mac })
}

/// The next entry, which must have this name, and not more bytes than this.
fn next(
    entries: &mut Reading<'_>,
    name: &str,
    bytes_max: usize,
    path: &Path,
) -> Result<Vec<u8>, BundleError> {
    let entry = entries.next().ok_or_else(|| refused(path, format!("{name} is missing")))?;
    // What the crate says of it quotes the file, which may be anything.
    let entry = entry.map_err(|_| refused(path, "it is no tar archive"))?;
    if entry.header().entry_type() != EntryType::Regular || *entry.path_bytes() != *name.as_bytes() {
        let found = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        return Err(refused(path, format!("{found:?} stands where {name} should")));
    }
    let size = entry.size();
    if usize::try_from(size).is_ok_and(|size| size <= bytes_max) {
        let mut body = Vec::new();
        let read = entry.take(size).read_to_end(&mut body);
        return match read {
            Ok(read) if read as u64 == size => Ok(body),
            Ok(_) => Err(refused(path, format!("{name} is cut short"))),
            Err(error) => Err(refused(path, error)),
        };
    }
    Err(refused(path, format!("{name} has {size} bytes, at most {bytes_max} are allowed")))
}

fn refused(path: &Path, what: impl ToString) -> BundleError {
    let what = what.to_string();
    BundleError::Damaged(format!(
        "{} is no checkpoint that was exported, or is damaged: {what}",
        path.display()
    ))
}

fn untrusted(path: &Path) -> BundleError {
    BundleError::Untrusted(format!(
        "{} is not signed with the key of this store; give the key of the store that made it, which stands in its \
         bundle.key. Give it only for a file that you trust: to load a checkpoint runs code that is in it",
        path.display()
    ))
}

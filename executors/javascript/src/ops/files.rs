//! Files, as far as they are permitted. All of it waits: another thread could not be forked along.

use std::env;
use std::path::{Path, PathBuf};

use cob_protocol::limits::{FILE_BYTES_MAX, FOLDER_ENTRIES_MAX};
use deno_core::{ModuleSpecifier, op2};
use deno_error::JsErrorBox;
use rustix::fs::{AtFlags, Dir, FileType, statat};

use crate::permissions::{self, Deed};
use crate::worker::NO_CACHE;

/// What a path of a script means: it may be a `file:` URL.
fn path(text: &str) -> Result<PathBuf, JsErrorBox> {
    if !text.starts_with("file:") {
        return Ok(text.into());
    }
    let url = ModuleSpecifier::parse(text).ok().and_then(|url| url.to_file_path().ok());
    url.ok_or_else(|| JsErrorBox::type_error(format!("`{text}` is no URL of a file")))
}

/// The bytes of a file.
#[op2]
#[buffer]
pub(super) fn op_cob_read(#[string] file: &str) -> Result<Vec<u8>, JsErrorBox> {
    Ok(permissions::read(Deed::Read, &path(file)?, FILE_BYTES_MAX)?.0)
}

/// The text of a file.
#[op2]
#[string]
pub(super) fn op_cob_read_text(#[string] file: &str) -> Result<String, JsErrorBox> {
    let (bytes, _) = permissions::read(Deed::Read, &path(file)?, FILE_BYTES_MAX)?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Puts bytes into a file, or at its end.
#[op2(fast)]
pub(super) fn op_cob_write(
    #[string] file: &str,
    #[buffer] bytes: &[u8],
    append: bool,
) -> Result<(), JsErrorBox> {
    Ok(permissions::write(&path(file)?, bytes, append)?)
}

/// Puts text into a file, or at its end.
#[op2(fast)]
pub(super) fn op_cob_write_text(
    #[string] file: &str,
    #[string] text: &str,
    append: bool,
) -> Result<(), JsErrorBox> {
    Ok(permissions::write(&path(file)?, text.as_bytes(), append)?)
}

/// What is in a folder, as JSON.
#[op2]
#[string]
pub(super) fn op_cob_read_dir(#[string] folder: &str) -> Result<String, JsErrorBox> {
    let path = path(folder)?;
    let open = permissions::open_folder(&path)?;
    let failed = |error| JsErrorBox::generic(format!("reading {} failed: {error}", path.display()));
    let mut entries = Vec::new();
    for entry in Dir::read_from(&open).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entries.len() == FOLDER_ENTRIES_MAX {
            let why = format!("{} holds more than {FOLDER_ENTRIES_MAX} entries", path.display());
            return Err(JsErrorBox::range_error(why));
        }
        let kind = match entry.file_type() {
            // Some file systems do not tell.
            FileType::Unknown => statat(&open, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::Unknown, |found| FileType::from_raw_mode(found.st_mode)),
            kind => kind,
        };
        entries.push((name.to_string_lossy().into_owned(), kind));
    }
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    let entries = entries.into_iter().map(|(name, kind)| {
        serde_json::json!({
            "name": name,
            "isFile": kind == FileType::RegularFile,
            "isDirectory": kind == FileType::Directory,
            "isSymlink": kind == FileType::Symlink,
        })
    });
    Ok(serde_json::Value::from_iter(entries).to_string())
}

/// The working directory.
#[op2]
#[string]
pub(super) fn op_cob_cwd() -> Result<String, JsErrorBox> {
    let here = env::current_dir().map_err(|error| {
        JsErrorBox::generic(format!("the working directory is not there any more: {error}"))
    })?;
    Ok(shown(&here))
}

/// The environment as the session was given it, as JSON.
#[op2]
#[string]
pub(super) fn op_cob_env() -> String {
    let variables = env::vars_os().filter(|(name, _)| name != NO_CACHE).map(|(name, value)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned().into())
    });
    serde_json::Value::Object(variables.collect()).to_string()
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

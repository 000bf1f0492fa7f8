//! What stands behind `from`: the URL that is meant, or what to do instead.

use std::env;
use std::path::{Path, PathBuf};

use deno_core::ModuleSpecifier;
use deno_error::{JsErrorBox, JsErrorClass};

use crate::permissions::FileError;

/// Endings that may be left out elsewhere.
const ENDINGS: &[&str] = &["ts", "mts", "tsx", "js", "mjs"];

/// The module that `importer` means: a module, or the folder of a script; without it, code in the working directory.
///
/// # Errors
/// When there can be no such module, with what to do.
pub(super) fn resolve(
    specifier: &str,
    importer: Option<&ModuleSpecifier>,
) -> Result<ModuleSpecifier, JsErrorBox> {
    let is_relative = ["/", "./", "../"].iter().any(|start| specifier.starts_with(start));
    let url = match ModuleSpecifier::parse(specifier) {
        Ok(url) => url,
        Err(_) if is_relative => {
            let base = importer.cloned().map_or_else(working_folder, Ok)?;
            base.join(specifier).map_err(|_| {
                let base = base.as_str().get(..60).unwrap_or(base.as_str());
                JsErrorBox::type_error(format!("`{specifier}` leads nowhere from {base}"))
            })?
        }
        Err(_) => return Err(bare(specifier)),
    };
    match url.scheme() {
        "file" | "data" => Ok(plain(url)),
        "http" | "https" => Err(refused(
            specifier,
            "a session has no network: save the module as a file, and import that by its path (\"./module.ts\")",
        )),
        "npm" | "jsr" => Err(refused(
            specifier,
            "packages are not fetched: bundle it into a file, and import that by its path (\"./module.ts\")",
        )),
        "node" => Err(refused(specifier, "there are no modules of Node here")),
        _ => Err(refused(specifier, "only files and data: URLs can")),
    }
}

fn refused(specifier: &str, why: &str) -> JsErrorBox {
    JsErrorBox::type_error(format!("`{specifier}` cannot be imported; {why}"))
}

fn bare(specifier: &str) -> JsErrorBox {
    JsErrorBox::type_error(format!(
        "`{specifier}` cannot be imported by its name alone: a file is imported by its path (\"./{specifier}.ts\"), and \
         packages (npm:, jsr:, https:) are not fetched; bundle one into a file, for example with esbuild"
    ))
}

/// Without the fragment, which is where we put versions.
pub(super) fn plain(mut url: ModuleSpecifier) -> ModuleSpecifier {
    if url.scheme() == "file" {
        url.set_fragment(None);
    }
    url
}

/// The file of a `file:` URL.
///
/// # Errors
/// When it names another machine.
pub(super) fn path(url: &ModuleSpecifier) -> Result<PathBuf, JsErrorBox> {
    url.to_file_path().map_err(|()| JsErrorBox::type_error(format!("{url} is no file of this machine")))
}

fn working_folder() -> Result<ModuleSpecifier, JsErrorBox> {
    env::current_dir().ok().and_then(|folder| ModuleSpecifier::from_directory_path(folder).ok()).ok_or_else(
        || JsErrorBox::generic("the working directory is not there any more: import by a whole path"),
    )
}

/// An error that names the file that was probably meant.
pub(super) fn with_hint(error: FileError, path: &Path) -> JsErrorBox {
    let is_missing =
        matches!(&error, FileError::Failed { error, .. } if error.kind() == std::io::ErrorKind::NotFound);
    let error = JsErrorBox::from(error);
    // The folder may be read: that was found out before.
    let near = || ENDINGS.iter().map(|ending| path.with_added_extension(ending)).find(|path| path.is_file());
    match is_missing.then(near).flatten().as_deref().and_then(Path::file_name) {
        Some(near) => JsErrorBox::new(
            error.get_class().into_owned(),
            format!("{}; did you mean `{}`?", error.get_message(), near.display()),
        ),
        None => error,
    }
}

//! `--allow-read` and `--allow-write`: what the code of a session in JavaScript may reach.

use std::path::Path;

use clap::Args;
use cob_protocol::permissions::{Permissions, WORKING_FOLDER};

use super::language::Language;
use super::{Failure, absolute};

/// Flags of every command that begins a session, or that says how one will begin.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Allowed {
    /// With --language javascript: the code may read the files of this folder, and import modules from it; without a
    /// folder: of its working directory [default: it reads no file]
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = WORKING_FOLDER)]
    allow_read: Vec<String>,
    /// With --language javascript: the code may write files in this folder; without a folder: in its working directory
    /// [default: it writes no file]
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = WORKING_FOLDER)]
    allow_write: Vec<String>,
}

impl Allowed {
    /// Whether nothing was said.
    pub(crate) fn is_empty(&self) -> bool {
        self.allow_read.is_empty() && self.allow_write.is_empty()
    }

    /// What was said, with folders named from the root on: `None` when nothing was.
    ///
    /// # Errors
    /// When the session is in a language that asks for no permission, or a folder cannot be named.
    pub(crate) fn asked(&self, language: Language) -> Result<Option<Permissions>, Failure> {
        if self.is_empty() {
            return Ok(None);
        }
        if language != Language::JavaScript {
            return Err(Failure::usage(
                "--allow-read and --allow-write are for --language javascript; code in other languages may do what you may",
            ));
        }
        let permissions =
            Permissions { read: from_the_root(&self.allow_read)?, write: from_the_root(&self.allow_write)? };
        permissions.check().map_err(Failure::usage)?;
        Ok(Some(permissions))
    }

    /// The arguments that say the same, wherever they are given.
    ///
    /// # Errors
    /// As of [`asked`](Self::asked).
    pub(crate) fn arguments(&self, language: Language) -> Result<Vec<String>, Failure> {
        let permissions = self.asked(language)?.unwrap_or_default();
        let flags = |flag: &'static str, folders: Vec<String>| {
            folders.into_iter().map(move |folder| format!("--{flag}={folder}"))
        };
        let read = flags("allow-read", permissions.read);
        Ok(read.chain(flags("allow-write", permissions.write)).collect())
    }
}

/// A folder of the settings of a server, which has no place of its own that others would mean.
///
/// # Errors
/// When it is neither named from the root on nor the working directory of each session.
pub(crate) fn usual(text: &str) -> Result<String, String> {
    if text == WORKING_FOLDER || Path::new(text).is_absolute() {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` must be named from the root on, or be `{WORKING_FOLDER}`"))
    }
}

/// The working directory of the session is not known here, and may be another one each time.
fn from_the_root(folders: &[String]) -> Result<Vec<String>, Failure> {
    let named = |folder: &String| {
        if folder == WORKING_FOLDER {
            return Ok(folder.clone());
        }
        absolute(Path::new(folder))?.into_os_string().into_string().map_err(|path| {
            Failure::usage(format_args!("{} cannot be permitted: it is not UTF-8", path.display()))
        })
    };
    folders.iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        allowed: Allowed,
        file: Option<String>,
    }

    fn parsed(line: &[&str]) -> Line {
        Line::try_parse_from(["x"].iter().chain(line)).unwrap()
    }

    #[test]
    fn a_bare_flag_is_the_working_directory_and_takes_no_other_argument() {
        let line = parsed(&["--allow-read", "file.ts", "--allow-read=/data", "--allow-write=/out"]);
        assert_eq!(line.file.as_deref(), Some("file.ts"));
        let asked = line.allowed.asked(Language::JavaScript).unwrap().unwrap();
        assert_eq!((asked.read, asked.write), (vec![".".into(), "/data".into()], vec!["/out".into()]));
        let arguments = line.allowed.arguments(Language::JavaScript).unwrap();
        assert_eq!(arguments, ["--allow-read=.", "--allow-read=/data", "--allow-write=/out"]);
    }

    #[test]
    fn a_folder_is_meant_from_where_the_command_is_given() {
        let asked = parsed(&["--allow-read=data"]).allowed.asked(Language::JavaScript).unwrap().unwrap();
        let here = std::env::current_dir().unwrap().join("data");
        assert_eq!(asked.read, [here.to_str().unwrap()]);
    }

    #[test]
    fn other_languages_have_no_permissions() {
        assert!(matches!(parsed(&["--allow-write"]).allowed.asked(Language::Python), Err(Failure::Usage(_))));
        assert_eq!(parsed(&[]).allowed.asked(Language::Python).unwrap(), None);
    }

    #[test]
    fn a_server_names_folders_from_the_root_on() {
        assert_eq!(usual("/data"), Ok("/data".to_owned()));
        assert_eq!(usual("."), Ok(".".to_owned()));
        assert!(usual("data").unwrap_err().contains("from the root on"));
    }
}

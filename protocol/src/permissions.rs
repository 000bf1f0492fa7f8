//! What the code of a session may reach beyond its own variables, where its language lets cob decide: folders.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::json::Json;
use crate::limits::{PATH_BYTES_MAX, PERMITTED_FOLDERS_MAX};

/// The folder that stands for the working directory of the session.
pub const WORKING_FOLDER: &str = ".";

/// Folders with all that is in them. A relative one is meant from the working directory on. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permissions {
    /// Files may be read, and modules imported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<String>,
    /// Files may be written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub write: Vec<String>,
}

/// Why permissions are none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadPermissions {
    /// Another form, or a word that means nothing.
    #[error(
        "`permissions` must be like {{\"read\": [\"/data\"], \"write\": [\".\"]}}, with nothing else in it: {0}; \
         network, processes and the like cannot be permitted"
    )]
    Form(String),
    /// More than anybody needs.
    #[error(
        "`permissions` may name {PERMITTED_FOLDERS_MAX} folders to read and as many to write; name one that holds them"
    )]
    TooMany,
    /// The system would not take it.
    #[error("`{0}` in `permissions` cannot be the path of a folder")]
    NoPath(String),
}

impl Permissions {
    /// Those in the options of an executor; none when they say nothing of them.
    ///
    /// # Errors
    /// What is wrong with them, in a sentence.
    pub fn of_options(options: &Json) -> Result<Self, BadPermissions> {
        #[derive(Deserialize)]
        struct Options {
            #[serde(default)]
            permissions: Option<Permissions>,
        }
        let options: Options = options.read().map_err(|error| BadPermissions::Form(error.to_string()))?;
        let permissions = options.permissions.unwrap_or_default();
        permissions.check()?;
        Ok(permissions)
    }

    /// Whether it can be what it says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), BadPermissions> {
        if self.read.len().max(self.write.len()) > PERMITTED_FOLDERS_MAX {
            return Err(BadPermissions::TooMany);
        }
        let is_path =
            |path: &String| !path.is_empty() && path.len() <= PATH_BYTES_MAX && !path.contains('\0');
        match self.read.iter().chain(&self.write).find(|path| !is_path(path)) {
            Some(path) => Err(BadPermissions::NoPath(path.escape_debug().to_string())),
            None => Ok(()),
        }
    }

    /// Whether nothing is permitted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read.is_empty() && self.write.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(options: serde_json::Value) -> Result<Permissions, String> {
        Permissions::of_options(&Json::of(&options).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_permitted_unless_it_is_said() {
        for silent in [json!({}), json!({ "permissions": {} }), json!({ "argv": ["x"] })] {
            assert!(parsed(silent).unwrap().is_empty());
        }
        let said = parsed(json!({ "permissions": { "read": ["/a", "."], "write": ["b"] } })).unwrap();
        assert_eq!((said.read, said.write), (vec!["/a".into(), ".".into()], vec!["b".into()]));
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_sentence() {
        let many = vec!["/a"; PERMITTED_FOLDERS_MAX + 1];
        for (permissions, part) in [
            (json!({ "net": ["example.org"] }), "unknown field `net`"),
            (json!({ "read": true }), "must be like"),
            (json!({ "read": [7] }), "must be like"),
            (json!({ "read": [""] }), "cannot be the path"),
            (json!({ "write": ["a\0b"] }), "a\\0b"),
            (json!({ "write": ["a".repeat(PATH_BYTES_MAX + 1)] }), "cannot be the path"),
            (json!({ "read": many }), "may name"),
        ] {
            let why = parsed(json!({ "permissions": permissions })).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}

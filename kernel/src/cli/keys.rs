//! `cob keys`: who may reach a server from elsewhere, and as whom.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use cob_clients::agent::{ClientKey, KeyError, KeyFolder, PublicKey, ServerKey};
use serde_json::json;

use super::Failure;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
    /// The folder of the keys [default: what COB_KEYS_DIR, XDG_CONFIG_HOME or HOME names]
    #[arg(long, value_name = "DIR", global = true)]
    dir: Option<PathBuf>,
    /// As JSON, one object per line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the public key of the server, which its clients need; make its pair the first time
    Server,
    /// Let a client in: with a new pair of keys, or with the public key that it has already
    Add {
        /// Its name, as which it comes in
        name: String,
        /// Its public key, in Z85: quote it, since it may hold what means something to a shell
        #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
        public: Option<PublicKey>,
    },
    /// Show who may come in
    List,
    /// Let a client in no longer, and delete its secret key if that is kept here
    Remove {
        /// Its name
        name: String,
    },
}

/// `COB_KEYS_DIR`, else `cob/keys` in `XDG_CONFIG_HOME`, else `~/.config/cob/keys`.
pub(crate) fn folder() -> Result<PathBuf, Failure> {
    from_surroundings(|name| std::env::var_os(name).map(PathBuf::from))
        .ok_or_else(|| Failure::usage("set COB_KEYS_DIR or HOME, or name the folder of the keys with --dir"))
}

fn from_surroundings(get: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let named = |name| get(name).filter(|value| !value.as_os_str().is_empty());
    // The specification of these variables wants relative ones ignored.
    let xdg = || named("XDG_CONFIG_HOME").filter(|folder| folder.is_absolute());
    named("COB_KEYS_DIR").or_else(|| {
        let config = xdg().or_else(|| named("HOME").map(|home| home.join(".config")));
        config.map(|config| config.join("cob/keys"))
    })
}

/// What cannot be used because of how it was asked, and what for another reason.
pub(crate) fn failed(error: KeyError) -> Failure {
    match error {
        KeyError::Io { .. } | KeyError::Curve(_) => Failure::failed(error),
        error => Failure::usage(error),
    }
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    let folder = match options.dir {
        Some(folder) => super::absolute(&folder)?,
        None => folder()?,
    };
    let text = act(&KeyFolder::new(folder), options.action, options.json).map_err(failed)?;
    // Nobody reads any more: that is no failure.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

/// Does it, and gives back what is to be shown.
fn act(keys: &KeyFolder, action: Action, as_json: bool) -> Result<String, KeyError> {
    match action {
        Action::Server => {
            let server = keys.server()?;
            Ok(if as_json { server_json(keys, &server) } else { server_text(&server) })
        }
        Action::Add { name, public } => {
            let client = keys.add(&name, public)?;
            let server = keys.server()?.secret.public();
            Ok(if as_json { added_json(&client, &server) } else { added_text(&client, &server) })
        }
        Action::List => {
            let clients = keys.list()?;
            Ok(if as_json {
                clients.iter().map(|client| line(&client_json(client))).collect()
            } else {
                table(&clients)
            })
        }
        Action::Remove { name } => {
            keys.remove(&name)?;
            Ok(if as_json {
                line(&json!({ "removed": name }))
            } else {
                format!("{name} may no longer connect. A connection that is open stays until it ends.\n")
            })
        }
    }
}

fn line(value: &serde_json::Value) -> String {
    format!("{value}\n")
}

fn server_json(keys: &KeyFolder, server: &ServerKey) -> String {
    line(&json!({
        "public_key": server.secret.public().to_string(),
        "secret_key_file": server.file,
        "authorized": keys.authorized(),
        "created": server.is_new,
    }))
}

fn server_text(server: &ServerKey) -> String {
    let made = if server.is_new { " (made now)" } else { "" };
    format!(
        "public key of this server: {}\nits secret key{made}: {}\n",
        server.secret.public(),
        server.file.display()
    )
}

fn client_json(client: &ClientKey) -> serde_json::Value {
    json!({
        "name": client.name,
        "public_key": client.public.to_string(),
        "secret_key_file": client.secret_file,
    })
}

fn added_json(client: &ClientKey, server: &PublicKey) -> String {
    let mut value = client_json(client);
    value["server_public_key"] = server.to_string().into();
    line(&value)
}

fn added_text(client: &ClientKey, server: &PublicKey) -> String {
    let mut text = format!(
        "{} may connect from now on.\npublic key of the client: {}\npublic key of the server: {server}\n",
        client.name, client.public
    );
    if let Some(file) = &client.secret_file {
        text += &format!(
            "secret key of the client: {}\nThe client needs its secret key and the public key of the server. Hand the secret over safely.\n",
            file.display()
        );
    }
    text
}

fn table(clients: &[ClientKey]) -> String {
    if clients.is_empty() {
        return "Nobody may connect from elsewhere. `cob keys add NAME` lets somebody in.\n".to_owned();
    }
    let width = clients.iter().map(|client| client.name.len()).max().unwrap_or_default().max(4);
    let mut text = format!("{:width$}  {:40}  SECRET KEY\n", "NAME", "PUBLIC KEY");
    for client in clients {
        let secret = client
            .secret_file
            .as_ref()
            .map_or("kept by the client".to_owned(), |file| file.display().to_string());
        text += &format!("{:width$}  {}  {secret}\n", client.name, client.public);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// Runs a command line on the keys of a folder.
    fn run(keys: &KeyFolder, arguments: &[&str]) -> Result<String, KeyError> {
        let line = ["keys"].iter().chain(arguments);
        let options = Line::try_parse_from(line).expect("a command line").options;
        act(keys, options.action, options.json)
    }

    fn json(keys: &KeyFolder, arguments: &[&str]) -> Vec<Value> {
        let text = run(keys, &[arguments, &["--json"]].concat()).expect("done");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn the_folder_is_where_the_surroundings_say() {
        let find = |pairs: &[(&str, &str)]| {
            from_surroundings(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
        };
        let path = |text: &str| Some(PathBuf::from(text));
        let home = ("HOME", "/home/me");
        assert_eq!(find(&[home]), path("/home/me/.config/cob/keys"));
        assert_eq!(find(&[home, ("XDG_CONFIG_HOME", "/config")]), path("/config/cob/keys"));
        assert_eq!(find(&[home, ("XDG_CONFIG_HOME", "config")]), path("/home/me/.config/cob/keys"));
        assert_eq!(find(&[home, ("COB_KEYS_DIR", "/x"), ("XDG_CONFIG_HOME", "/config")]), path("/x"));
        assert_eq!(find(&[]), None);
    }

    #[test]
    fn people_see_what_they_must_hand_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = KeyFolder::new(folder.path().join("keys"));
        assert!(run(&keys, &["list"]).expect("empty").starts_with("Nobody may connect"));
        let server = keys.server().expect("made").secret.public().to_string();
        assert!(run(&keys, &["server"]).expect("shown").contains(&server));
        let added = run(&keys, &["add", "ann"]).expect("added");
        let secret = folder.path().join("keys/ann.key").display().to_string();
        for part in ["ann may connect", &server, &secret] {
            assert!(added.contains(part), "{part} in {added}");
        }
        assert!(run(&keys, &["list"]).expect("listed").contains(&secret));
        assert!(run(&keys, &["remove", "ann"]).expect("removed").contains("no longer"));
        let error = run(&keys, &["remove", "ann"]).expect_err("nobody is left");
        assert!(matches!(failed(error), Failure::Usage(text) if text.contains("cob keys list")));
    }

    #[test]
    fn programs_get_objects_and_a_key_may_begin_like_an_option() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = KeyFolder::new(folder.path().join("keys"));
        let server = json(&keys, &["server"]).remove(0);
        assert_eq!(server["created"], true);
        assert_eq!(json(&keys, &["server"])[0]["created"], false);
        let public = format!("-{}", "0".repeat(39));
        let bob = json(&keys, &["add", "bob", "--public", &public]).remove(0);
        assert_eq!((&bob["public_key"], &bob["secret_key_file"]), (&public.into(), &Value::Null));
        assert_eq!(bob["server_public_key"], server["public_key"]);
        json(&keys, &["add", "ann"]);
        let names: Vec<_> = json(&keys, &["list"]).iter().map(|client| client["name"].clone()).collect();
        assert_eq!(names, ["ann", "bob"]);
        assert_eq!(json(&keys, &["remove", "bob"]), [json!({ "removed": "bob" })]);
    }

    #[test]
    fn a_public_key_that_is_none_is_refused_on_the_command_line() {
        let error = Line::try_parse_from(["keys", "add", "ann", "--public", "x"]).expect_err("no key");
        assert!(error.to_string().contains("40 characters in Z85"), "{error}");
    }
}

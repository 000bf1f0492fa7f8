//! `cob config`, and where the settings of `cob serve` come from: flags, then the environment, then a file, then the
//! defaults.

mod file;
mod schema;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Subcommand};

use self::file::File;
use self::schema::{Kind, SECTIONS, SERVE, SETTINGS, Setting};
use super::{Cli, Failure};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say all that is wrong with a configuration
    Check {
        /// The file [default: what COB_CONFIG names, else the usual one]
        file: Option<PathBuf>,
    },
    /// Show what `cob serve` would go by here, and where each value comes from
    Show {
        /// The file [default: what COB_CONFIG names, else the usual one]
        file: Option<PathBuf>,
    },
    /// Print a configuration with all settings, their descriptions and defaults
    Example,
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    let text = match options.action {
        Action::Check { file } => check(&File::find(file)?),
        Action::Show { file } => {
            let file = File::find(file)?;
            let matches = file.apply(command()).try_get_matches_from(["cob", SERVE]);
            let matches = matches.unwrap_or_else(|error| error.exit());
            matches.subcommand_matches(SERVE).map(|serve| show(&file, serve)).unwrap_or_default()
        }
        Action::Example => schema::example(),
    };
    // Nobody reads any more: that is no failure.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

/// The command line of this process, with what a configuration says where it and the environment say nothing.
pub(crate) fn command_line() -> Result<Cli, Failure> {
    let mut matches = command().get_matches();
    if let Some(serve) = matches.subcommand_matches(SERVE) {
        let file = File::find(serve.get_one("config").cloned())?;
        if file.path.is_some() {
            matches = file.apply(command()).get_matches();
        }
    }
    Cli::from_arg_matches(&matches).map_err(|error| error.exit())
}

/// The command line, with the variables that settings can be given in.
fn command() -> clap::Command {
    super::groups::grouped(Cli::command()).mut_subcommand(SERVE, |serve| {
        SETTINGS.iter().fold(serve, |serve, setting| {
            serve.mut_arg(setting.id, |flag| {
                let variable = schema::variable_of(&flag);
                flag.env(variable).hide_env_values(true)
            })
        })
    })
}

fn check(file: &File) -> String {
    match &file.path {
        Some(path) => format!("ok: {}\n", path.display()),
        None => "ok: there is no file; `cob config example` prints one\n".to_owned(),
    }
}

fn show(file: &File, serve: &ArgMatches) -> String {
    let mut text = String::new();
    for (section, _) in SECTIONS {
        let gap = if text.is_empty() { "" } else { "\n" };
        text += &format!("{gap}[{section}]\n");
        for setting in SETTINGS.iter().filter(|setting| setting.section == *section) {
            text += &shown(file, serve, setting);
        }
    }
    text
}

fn shown(file: &File, serve: &ArgMatches, setting: &Setting) -> String {
    let source = match (serve.value_source(setting.id), file.given(setting.id), &file.path) {
        (Some(ValueSource::EnvVariable), ..) => setting.variable(),
        (_, Some(given), Some(path)) => format!("{}:{}", path.display(), given.line),
        _ => "default".to_owned(),
    };
    let raw = serve.get_raw(setting.id).into_iter().flatten();
    let texts: Vec<_> = raw.map(|text| without_password(&text.to_string_lossy())).collect();
    if setting.key.is_empty() {
        let rows = schema::limits(&texts);
        return rows
            .map(|(name, value)| format!("{name} = {}  # {source}\n", schema::quoted(value)))
            .collect();
    }
    let is_empty = texts.is_empty() || (setting.kind == Kind::Limits && texts.concat().is_empty());
    match is_empty {
        true => format!("# {} is not set\n", setting.key),
        false => format!("{} = {}  # {source}\n", setting.key, schema::written(setting.kind, &texts)),
    }
}

/// A URL may hold a name and a password, which are nobody's business.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}{path}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_is_shown_with_where_it_comes_from() {
        let text = "[server]\ngrace = 90\notlp = \"http://me:secret@host/v1\"\n[limits]\nmemory = \"4G\"\n";
        let mut file = File::read("x", text).unwrap();
        file.path = Some("/x/cob.toml".into());
        let matches = file.apply(Cli::command()).try_get_matches_from(["cob", SERVE]).unwrap();
        let shown = show(&file, matches.subcommand_matches(SERVE).unwrap());
        for line in [
            "grace = 90  # /x/cob.toml:2",
            "otlp = \"http://…@host/v1\"  # /x/cob.toml:3",
            "memory = \"4G\"  # /x/cob.toml:4",
            "drain = 10  # default",
            "import = [\"numpy\", \"pandas\"]  # default",
            "# store is not set",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} in\n{shown}");
        }
        File::read("shown", &shown).unwrap();
    }
}

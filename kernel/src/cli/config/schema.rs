//! **The table** of what a configuration can say: each setting is a flag of `cob serve`, a variable of the environment
//! and a key of the file, with one meaning, one check and one description, which are the flag's.

use clap::{Arg, CommandFactory};
use cob_protocol::resources::Limit;

use super::super::Cli;

/// How a value is written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `"text"`
    Text,
    /// `0.5`
    Seconds,
    /// `3`
    Count,
    /// `true`
    Bool,
    /// `["a", "b"]`
    List,
    /// `{ memory = "2G", processes = 64 }`
    Limits,
}

/// A row of the table.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) section: &'static str,
    /// Empty: the whole section is the value.
    pub(super) key: &'static str,
    /// What clap calls its flag.
    pub(super) id: &'static str,
    pub(super) kind: Kind,
    /// A value, for what has none by default.
    example: &'static str,
}

const fn row(
    section: &'static str,
    key: &'static str,
    id: &'static str,
    kind: Kind,
    example: &'static str,
) -> Setting {
    Setting { section, key, id, kind, example }
}

/// Every row, by section.
pub(super) const SETTINGS: &[Setting] = &[
    row("server", "store", "store", Kind::Text, r#""/var/lib/cob/server""#),
    row("server", "durability", "durability", Kind::Text, ""),
    row("server", "grace", "grace", Kind::Seconds, ""),
    row("server", "drain", "drain", Kind::Seconds, ""),
    row("server", "tcp", "tcp", Kind::Text, r#""127.0.0.1:5555""#),
    row("server", "curve", "curve", Kind::Bool, ""),
    row("server", "ignore_pressure", "ignore_pressure", Kind::Bool, ""),
    row("server", "otlp", "otlp", Kind::Text, r#""http://127.0.0.1:4318/v1/traces""#),
    row("pool", "python", "interpreters", Kind::List, r#"["/usr/bin/python3,import=numpy,spares=4"]"#),
    row("pool", "import", "imports", Kind::List, ""),
    row("pool", "spares", "spares", Kind::Count, ""),
    row("pool", "session_spares", "session_spares", Kind::Count, "2"),
    row("pool", "javascript", "javascript", Kind::Count, ""),
    row("pool", "memory", "memory", Kind::Text, ""),
    row("session", "limits", "session_limits", Kind::Limits, r#"{ memory = "2G", time = "60s" }"#),
    row("session", "idle_timeout", "session_idle_timeout", Kind::Seconds, ""),
    row("session", "interrupt_grace", "session_interrupt_grace", Kind::Seconds, ""),
    row("session", "checkpoints", "checkpoints", Kind::Text, ""),
    row("session", "checkpoint_keep", "checkpoint_keep", Kind::Count, ""),
    row("session", "checkpoint_budget", "checkpoint_budget", Kind::Text, ""),
    row("session", "hibernate_after", "hibernate_after", Kind::Seconds, ""),
    row("session", "durable_every", "durable_every", Kind::Seconds, ""),
    row("session", "allow_read", "session_allow_read", Kind::List, r#"["/srv/data"]"#),
    row("session", "allow_write", "session_allow_write", Kind::List, r#"["."]"#),
    row("session", "python", "session_python", Kind::Text, r#""/usr/bin/python3""#),
    row("limits", "", "limits", Kind::Limits, ""),
];

/// The sections, and what they are about.
pub(super) const SECTIONS: &[(&str, &str)] = &[
    ("server", "The server itself."),
    ("pool", "Workers that are warm before they are asked for."),
    ("session", "What holds for sessions that ask for nothing else."),
    (
        "limits",
        "What no session may exceed, and has if it asks for nothing. A value is text with a unit, or a number.",
    ),
];

impl Setting {
    /// Its flag of `cob serve`.
    pub(super) fn flag(&self) -> Option<Arg> {
        let serve = Cli::command().find_subcommand(SERVE)?.clone();
        serve.get_arguments().find(|argument| argument.get_id() == self.id).cloned()
    }

    /// `--grace`, without the dashes.
    pub(super) fn long(&self) -> String {
        self.flag().and_then(|flag| flag.get_long().map(str::to_owned)).unwrap_or_default()
    }

    /// `COB_SERVE_GRACE`
    pub(super) fn variable(&self) -> String {
        self.flag().map(|flag| variable_of(&flag)).unwrap_or_default()
    }

    /// `[server] grace`
    pub(super) fn name(&self) -> String {
        if self.key.is_empty() {
            format!("[{}]", self.section)
        } else {
            format!("[{}] {}", self.section, self.key)
        }
    }
}

/// The variable that says the same as a flag.
pub(super) fn variable_of(flag: &Arg) -> String {
    format!("COB_SERVE_{}", flag.get_long().unwrap_or_default().replace('-', "_").to_uppercase())
}

pub(super) const SERVE: &str = "serve";

/// The name that was probably meant.
pub(super) fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(wrong, name);
    let near = names.into_iter().map(|name| (distance(name), name)).min()?;
    (near.0 <= (wrong.len() / 3).max(1)).then_some(near.1)
}

/// A value as it is written in the file.
pub(super) fn written(kind: Kind, texts: &[String]) -> String {
    let first = texts.first().map_or("", String::as_str);
    match kind {
        Kind::Text => quoted(first),
        Kind::Seconds | Kind::Count | Kind::Bool => first.to_owned(),
        Kind::List => {
            let items: Vec<_> =
                texts.iter().filter(|item| !item.is_empty()).map(|item| quoted(item)).collect();
            format!("[{}]", items.join(", "))
        }
        Kind::Limits => {
            let pairs: Vec<_> =
                limits(texts).map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
            if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
        }
    }
}

/// Names and values of limits as a command line has them.
pub(super) fn limits(texts: &[String]) -> impl Iterator<Item = (&str, &str)> {
    texts.iter().flat_map(|text| text.split(',')).filter_map(|pair| pair.split_once('='))
}

/// As TOML has it: what JSON can write, TOML can read.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// The file with everything as it is by default.
pub(super) fn example() -> String {
    let mut text = String::from(
        "# The configuration of `cob serve`. What is commented out has no default, or is only an example.\n\
         # A flag goes before a variable of the environment, that goes before this file, and this before the default.\n",
    );
    for (section, about) in SECTIONS {
        text += &format!("\n{}[{section}]\n", commented(about));
        for setting in SETTINGS.iter().filter(|setting| setting.section == *section) {
            if setting.key.is_empty() {
                for limit in Limit::ALL {
                    let value = quoted(limit.example());
                    text += &format!("\n{}# {} = {value}\n", commented(limit.doc()), limit.name());
                }
                text += &format!("\n# All of them: --{}, {}\n", setting.long(), setting.variable());
                continue;
            }
            text += &explained(setting);
        }
    }
    text
}

fn explained(setting: &Setting) -> String {
    let flag = setting.flag().unwrap_or_else(|| Arg::new(setting.id));
    let help = flag.get_long_help().or(flag.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut texts: Vec<_> =
        flag.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if let Some(delimiter) = flag.get_value_delimiter() {
        texts = texts.iter().flat_map(|text| text.split(delimiter)).map(str::to_owned).collect();
    }
    let (key, names) = (setting.key, format!("# --{}, {}\n", setting.long(), setting.variable()));
    let line = match (setting.kind, texts.iter().all(String::is_empty)) {
        (Kind::Bool, true) => format!("{key} = false\n"),
        (_, true) => format!("# {key} = {}\n", setting.example),
        (kind, false) => format!("{key} = {}\n", written(kind, &texts)),
    };
    format!("\n{}{names}{line}", commented(&help))
}

/// The width of comments.
const WIDTH: usize = 100;

fn commented(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < WIDTH => *line += &format!(" {word}"),
            _ => lines.push(format!("# {word}")),
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::file::File;
    use super::*;

    #[test]
    fn every_row_is_a_flag_in_a_section_with_its_own_variable() {
        for setting in SETTINGS {
            assert!(setting.flag().is_some(), "{}", setting.id);
            assert!(!setting.long().is_empty(), "{}", setting.id);
            assert!(SECTIONS.iter().any(|(section, _)| *section == setting.section), "{}", setting.section);
        }
        assert_eq!(SETTINGS.iter().find(|it| it.key == "grace").unwrap().variable(), "COB_SERVE_GRACE");
    }

    #[test]
    fn every_flag_of_the_server_is_a_row_or_has_a_reason_not_to_be() {
        let elsewhere = ["config", "ephemeral", "replace", "help", "version"];
        let serve = Cli::command().find_subcommand(SERVE).unwrap().clone();
        for flag in serve.get_arguments() {
            let id = flag.get_id().as_str();
            assert_ne!(elsewhere.contains(&id), SETTINGS.iter().any(|setting| setting.id == id), "{id}");
        }
    }

    #[test]
    fn the_example_is_the_schema_with_its_defaults() {
        let text = example();
        let file = File::read("x", &text).unwrap();
        for setting in SETTINGS {
            let flag = setting.flag().unwrap();
            let default: Vec<_> =
                flag.get_default_values().iter().flat_map(|v| v.to_str().unwrap().split(',')).collect();
            let given = file.given(setting.id).map(|given| given.texts.join(","));
            match given {
                Some(given) if setting.kind == Kind::Bool => assert_eq!(given, "false"),
                Some(given) => assert_eq!(given.split(',').collect::<Vec<_>>(), default, "{}", setting.id),
                None => assert!(default.concat().is_empty(), "{}", setting.id),
            }
        }
        // What is commented out is right as well, and then nothing is missing.
        let is_value = |line: &str| {
            let name = line.strip_prefix("# ").and_then(|line| line.split_once(" = "));
            name.is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        };
        let all: Vec<_> = text.lines().map(|line| if is_value(line) { &line[2..] } else { line }).collect();
        let file = File::read("x", &all.join("\n")).unwrap();
        for setting in SETTINGS {
            assert!(file.given(setting.id).is_some(), "{}", setting.id);
        }
    }
}

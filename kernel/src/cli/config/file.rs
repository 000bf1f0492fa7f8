//! Reading a configuration: all that is wrong with it is found, each with its line and what to write instead.

use std::fmt::Display;
use std::ops::Range;
use std::path::PathBuf;

use clap::CommandFactory;
use clap::error::{ContextKind, ErrorKind};
use cob_protocol::resources::{Limit, Limits};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::{Cli, Failure};
use super::schema::{Kind, SECTIONS, SERVE, SETTINGS, Setting, nearest};

/// What a configuration says.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Where it was read; `None`: there is none.
    pub(super) path: Option<PathBuf>,
    given: Vec<Given>,
}

/// What it says of one setting.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) setting: &'static Setting,
    /// The value, as the command line has it.
    pub(super) texts: Vec<String>,
    pub(super) line: usize,
}

impl File {
    /// Reads the file that is `named`, else the one that COB_CONFIG names, else the usual one if it is there.
    pub(super) fn find(named: Option<PathBuf>) -> Result<Self, Failure> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = named.or_else(|| variable("COB_CONFIG"));
        let is_named = named.is_some();
        let Some(path) = named.or_else(|| usual(variable)) else { return Ok(Self::default()) };
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let file = Self::read(&path.display().to_string(), &text).map_err(Failure::Usage)?;
                Ok(Self { path: Some(path), ..file })
            }
            Err(error) if !is_named && error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::Usage(format!("cannot read {}: {error}", path.display()))),
        }
    }

    /// What `text` says; all that is wrong with it, a line for each.
    pub(super) fn read(name: &str, text: &str) -> Result<Self, String> {
        let mut reading = Reading { text, given: Vec::new(), wrong: Vec::new() };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            reading.wrong(error.span().unwrap_or_default(), error.message());
        }
        // What cannot be read right is not worth a look at what it says.
        if errors.is_empty() {
            reading.sections(table.get_ref());
        }
        let Reading { given, mut wrong, .. } = reading;
        if wrong.is_empty() {
            return Ok(Self { path: None, given });
        }
        wrong.sort();
        Err(wrong.iter().map(|(line, why)| format!("{name}:{line}: {why}")).collect::<Vec<_>>().join("\n"))
    }

    /// What it says of the setting that clap calls so.
    pub(super) fn given(&self, id: &str) -> Option<&Given> {
        self.given.iter().find(|given| given.setting.id == id)
    }

    /// What it says is the default from now on.
    pub(super) fn apply(&self, command: clap::Command) -> clap::Command {
        command.mut_subcommand(SERVE, |serve| {
            self.given.iter().filter(|given| !given.texts.is_empty()).fold(serve, |serve, given| {
                serve.mut_arg(given.setting.id, |flag| flag.default_values(given.texts.clone()))
            })
        })
    }
}

/// `cob/cob.toml` in `XDG_CONFIG_HOME`, else in `~/.config`.
pub(super) fn usual(variable: impl Fn(&'static str) -> Option<PathBuf>) -> Option<PathBuf> {
    // The specification of these variables wants relative ones ignored.
    let xdg = variable("XDG_CONFIG_HOME").filter(|folder| folder.is_absolute());
    let config = xdg.or_else(|| variable("HOME").map(|home| home.join(".config")));
    config.map(|config| config.join("cob/cob.toml"))
}

struct Reading<'t> {
    text: &'t str,
    given: Vec<Given>,
    /// Lines, and what is wrong there.
    wrong: Vec<(usize, String)>,
}

impl Reading<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        self.text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
    }

    fn wrong(&mut self, span: Range<usize>, why: impl Display) {
        let line = self.line(&span);
        self.wrong.push((line, why.to_string()));
    }

    fn sections(&mut self, table: &DeTable<'_>) {
        for (name, value) in table {
            let known = SECTIONS.iter().map(|(section, _)| *section);
            match (known.clone().find(|section| section == name.get_ref()), value.get_ref()) {
                (Some(section), DeValue::Table(entries)) => self.section(section, entries, value.span()),
                (Some(section), _) => {
                    self.wrong(value.span(), format_args!("`{section}` is a section: write [{section}]"))
                }
                (None, _) => {
                    let there = known.map(|section| format!("[{section}]")).collect::<Vec<_>>().join(", ");
                    let why = unknown(name.get_ref(), "there is no section", SECTIONS.iter().map(|it| it.0));
                    self.wrong(name.span(), format_args!("{why}; there are: {there}"));
                }
            }
        }
    }

    fn section(&mut self, section: &'static str, entries: &DeTable<'_>, span: Range<usize>) {
        if let Some(whole) = SETTINGS.iter().find(|it| it.section == section && it.key.is_empty()) {
            return self.limits(whole, entries, span);
        }
        let here = SETTINGS.iter().filter(|setting| setting.section == section);
        for (key, value) in entries {
            match here.clone().find(|setting| setting.key == key.get_ref()) {
                Some(setting) => self.setting(setting, value),
                None => {
                    let elsewhere = SETTINGS.iter().find(|setting| setting.key == key.get_ref());
                    let why = match elsewhere {
                        Some(setting) => {
                            format!("`{key}` belongs to [{}]", setting.section, key = setting.key)
                        }
                        None => {
                            let what = format!("[{section}] has no setting");
                            unknown(key.get_ref(), &what, here.clone().map(|setting| setting.key))
                        }
                    };
                    self.wrong(key.span(), why);
                }
            }
        }
    }

    fn setting(&mut self, setting: &'static Setting, value: &Spanned<DeValue<'_>>) {
        let integer = |value: &DeValue<'_>| {
            value.as_integer().and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok())
        };
        let one = |text: String| Some(vec![text]);
        let (texts, wanted) = match (setting.kind, value.get_ref()) {
            (Kind::Limits, DeValue::Table(entries)) => return self.limits(setting, entries, value.span()),
            (Kind::Limits, _) => (None, r#"limits, such as { memory = "2G", time = "60s" }"#),
            (Kind::Text, value) => {
                (value.as_str().and_then(|text| one(text.to_owned())), r#"text in quotes, such as "…""#)
            }
            (Kind::Bool, value) => (value.as_bool().and_then(|is| one(is.to_string())), "true or false"),
            (Kind::Count, value) => (integer(value).and_then(|n| one(n.to_string())), "a whole number"),
            (Kind::Seconds, DeValue::Float(number)) => (one(number.as_str().to_owned()), ""),
            (Kind::Seconds, value) => {
                (integer(value).and_then(|n| one(n.to_string())), "a number of seconds")
            }
            (Kind::List, DeValue::Array(items)) => {
                let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
                (texts.collect::<Option<Vec<_>>>(), r#"a list of texts, such as ["…", "…"]"#)
            }
            (Kind::List, _) => (None, r#"a list of texts, such as ["…", "…"]"#),
        };
        let Some(mut texts) = texts else {
            let found = value.get_ref().type_str();
            return self.wrong(
                value.span(),
                format_args!("{} must be {wanted}, not a value of type {found}", setting.name()),
            );
        };
        for text in &texts {
            if let Err(why) = accepted(setting, text) {
                self.wrong(value.span(), format_args!("{}: {why}", setting.name()));
            }
        }
        // No module at all is a wish as well, which the flag has an empty name for.
        if texts.is_empty() && setting.flag().is_some_and(|flag| !flag.get_default_values().is_empty()) {
            texts.push(String::new());
        }
        let line = self.line(&value.span());
        self.given.push(Given { setting, texts, line });
    }

    fn limits(&mut self, setting: &'static Setting, entries: &DeTable<'_>, span: Range<usize>) {
        let mut pairs = Vec::new();
        for (name, value) in entries {
            if let Err(error) = Limit::named(name.get_ref()) {
                self.wrong(name.span(), error);
                continue;
            }
            let text = match value.get_ref() {
                DeValue::String(text) if !text.contains(',') => text.to_string(),
                DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
                _ => {
                    let why =
                        format!("the limit `{}` must be text such as \"2G\", or a number", name.get_ref());
                    self.wrong(value.span(), why);
                    continue;
                }
            };
            let pair = format!("{}={text}", name.get_ref());
            match Limits::parse(&pair) {
                Ok(_) => pairs.push(pair),
                Err(error) => self.wrong(value.span(), error),
            }
        }
        // An empty section says nothing.
        if !pairs.is_empty() {
            let line = self.line(&span);
            self.given.push(Given { setting, texts: vec![pairs.join(",")], line });
        }
    }
}

fn unknown<'a>(wrong: &str, what: &str, names: impl Iterator<Item = &'a str>) -> String {
    let meant = nearest(wrong, names).map(|name| format!("; did you mean `{name}`?"));
    format!("{what} `{}`{}", wrong.escape_debug(), meant.unwrap_or_default())
}

/// What the flag thinks of a value.
fn accepted(setting: &Setting, text: &str) -> Result<(), String> {
    if setting.kind == Kind::Bool {
        return Ok(());
    }
    let delimiter = setting.flag().and_then(|flag| flag.get_value_delimiter());
    if setting.kind == Kind::List && delimiter.is_some_and(|delimiter| text.contains(delimiter)) {
        return Err(format!("`{text}` is more than one; write each in quotes of its own"));
    }
    let argument = format!("--{}={text}", setting.long());
    let Err(error) = Cli::command().try_get_matches_from(["cob", SERVE, &argument]) else { return Ok(()) };
    if error.kind() == ErrorKind::InvalidValue {
        let there = error.get(ContextKind::ValidValue).map(ToString::to_string).unwrap_or_default();
        return Err(format!("there is no `{text}`; there are: {there}"));
    }
    let why = std::error::Error::source(&error).map(ToString::to_string);
    Err(format!("`{text}` cannot be used: {}", why.unwrap_or_else(|| error.kind().to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_what_a_command_line_says() {
        let text = "[server]\ngrace = 90\ndrain = 0.5\ncurve = true\ntcp = \"127.0.0.1:0\"\n\n[pool]\nimport = []\n\
                    spares = 3\n[session]\nlimits = { memory = \"2G\", processes = 64 }\n[limits]\ntime = \"1h\"\n";
        let file = File::read("x", text).unwrap();
        let said = |id| file.given(id).map(|given| (given.texts.join(" "), given.line));
        assert_eq!(said("grace"), Some(("90".to_owned(), 2)));
        assert_eq!(said("drain"), Some(("0.5".to_owned(), 3)));
        assert_eq!(said("curve"), Some(("true".to_owned(), 4)));
        assert_eq!(said("imports"), Some((String::new(), 8)));
        assert_eq!(said("session_limits"), Some(("memory=2G,processes=64".to_owned(), 11)));
        assert_eq!(said("limits").map(|said| said.0), Some("time=1h".to_owned()));
        assert_eq!(said("store"), None);
        let matches =
            file.apply(Cli::command()).try_get_matches_from(["cob", "serve", "--spares=5"]).unwrap();
        let serve = matches.subcommand_matches("serve").unwrap();
        assert_eq!((serve.get_one("spares"), serve.get_one("curve")), (Some(&5_usize), Some(&true)));
    }

    #[test]
    fn all_that_is_wrong_is_said_with_its_line_and_what_to_write() {
        let text = "[server]\ngraec = 60\ngrace = \"long\"\ndurability = \"proces\"\nspares = 2\ntcp = \"here\"\n\
                    [pol]\n[pool]\nimport = [\"a b\"]\nspares = -1\nmemory = \"much\"\n[session.limits]\nmemroy = \"2G\"\n\
                    [limits]\nmemory = \"x\"\ntime = true\n";
        let wrong = File::read("cob.toml", text).unwrap_err();
        let lines: Vec<_> = wrong.lines().collect();
        for (at, part) in [
            (2, "did you mean `grace`?"),
            (3, "[server] grace must be a number of seconds"),
            (4, "process, power"),
            (5, "`spares` belongs to [pool]"),
            (6, "`here`"),
            (7, "did you mean `pool`?"),
            (9, "`a b` is no name of a module"),
            (10, "-1"),
            (11, "much"),
            (13, "memory"),
            (15, "memory"),
            (16, "such as \"2G\""),
        ] {
            let prefix = format!("cob.toml:{at}: ");
            assert!(
                lines.iter().any(|line| line.starts_with(&prefix) && line.contains(part)),
                "{at} {part}: {wrong}"
            );
        }
        assert_eq!(lines.len(), 12, "{wrong}");
        let wrong = File::read("x", "[server]\ngrace = \n[pool\n").unwrap_err();
        assert!(wrong.lines().count() >= 2 && wrong.starts_with("x:2: "), "{wrong}");
    }

    #[test]
    fn the_file_is_where_the_surroundings_say() {
        let find = |pairs: &[(&str, &str)]| {
            usual(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
        };
        let home = ("HOME", "/home/me");
        assert_eq!(find(&[home]), Some("/home/me/.config/cob/cob.toml".into()));
        assert_eq!(find(&[home, ("XDG_CONFIG_HOME", "/c")]), Some("/c/cob/cob.toml".into()));
        assert_eq!(find(&[home, ("XDG_CONFIG_HOME", "c")]), Some("/home/me/.config/cob/cob.toml".into()));
        assert_eq!(find(&[]), None);
    }
}

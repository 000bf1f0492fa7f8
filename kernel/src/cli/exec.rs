//! `cob exec`: code in a session of the server, from the request to the exit code.

mod follow;

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use cob_clients::agent::{AgentConnection, Execute};
use cob_protocol::ids::SessionId;
use cob_protocol::limits::{PRIORITY_MIN, TIME_LIMIT_MS_MAX};
use serde_json::{Value, json};

use self::follow::{Ending, Follow};
pub(crate) use self::follow::{Output, answer, explain};
use super::language::Language;
use super::limits::seconds;
use super::policy::Checkpoints;
use super::remote::{self, Server, ask, fresh_name};
use super::{Failure, absolute, block_on, language};

const EXAMPLES: &str = "\
Examples:
  cob exec -c 'print(6 * 7)'               in a session of its own, which is closed afterwards
  cob exec --keep --name data load.py      in one that stays open; its name is printed
  cob exec s7 - < report.py                in that one
  cob exec s7 --key report-12 report.py    once, however often it is asked for

Exit codes: 0 it ran; 1 it failed, or cob did; 2 the request was wrong; 130 interrupted; else that of sys.exit.
Ctrl-C interrupts the code, a second one leaves it running.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// The session (s1), and a file with the code, or - for code from stdin
    #[arg(value_name = "SESSION] [FILE", num_args = 0..=2)]
    what: Vec<String>,
    /// Run this code
    #[arg(short, long, value_name = "CODE")]
    code: Option<String>,
    /// Open a session for it, and close it afterwards: what happens also when no session is named
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    opening: Opening,
    /// Run it once only: asked for again with the same key, the same execution is shown
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Give it up after so many seconds, counted from now
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    deadline: Option<Duration>,
    /// Before executions with a lower one in the queue: -100 to 100
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_hyphen_values = true,
          value_parser = clap::value_parser!(i32).range(PRIORITY_MIN as i64..=-(PRIORITY_MIN as i64)))]
    priority: i32,
    /// One JSON object per line instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// What a new session is like.
#[derive(Debug, Args)]
struct Opening {
    /// Leave the new session open
    #[arg(long)]
    keep: bool,
    /// What people call the new session
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What the new session may use, for example memory=2G,time=30s
    #[arg(long, value_name = "LIMITS")]
    limits: Option<String>,
    #[command(flatten)]
    wanted: language::Wanted,
    /// The working directory of the new session [default: one of its own]
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    #[command(flatten)]
    checkpoints: Checkpoints,
}

impl Opening {
    fn is_empty(&self) -> bool {
        !self.keep
            && self.name.is_none()
            && self.limits.is_none()
            && self.wanted.is_silent()
            && self.wanted.allowed.is_empty()
            && self.cwd.is_none()
            && self.checkpoints.asked().is_none()
    }

    /// `usual` is the language of the code, if that is known.
    fn request(&self, usual: Option<Language>, key: Option<&str>) -> Result<Value, Failure> {
        let language = self.wanted.language.or(usual);
        let mut environment = Value::Object(self.wanted.environment(language.unwrap_or_default())?);
        if let Some(cwd) = &self.cwd {
            environment["cwd"] = json!(absolute(cwd)?);
        }
        let mut request = json!({ "environment": environment });
        for (what, text) in [
            ("language", language.map(Language::name)),
            ("name", self.name.as_deref()),
            ("limits", self.limits.as_deref()),
            ("idempotency_key", key),
        ] {
            if let Some(text) = text {
                request[what] = json!(text);
            }
        }
        if let Some(checkpoints) = self.checkpoints.asked() {
            request["checkpoints"] = json!(checkpoints);
        }
        Ok(request)
    }
}

/// Where the code comes from, and where it goes.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// `None`: a new one.
    session: Option<SessionId>,
    source: Source,
}

#[derive(Debug, PartialEq, Eq)]
enum Source {
    Text(String),
    File(PathBuf),
    Stdin,
}

impl Plan {
    fn of(options: &Options, stdin_is_terminal: bool) -> Result<Self, Failure> {
        let mut what = options.what.iter();
        let mut rest = what.as_slice();
        let session = match what.next().map(|text| remote::session(text)) {
            Some(Ok(session)) if !options.new => {
                rest = what.as_slice();
                Some(session)
            }
            _ => None,
        };
        let file = match rest {
            [] => None,
            [file] => Some(file),
            [first, ..] if options.new => {
                return Err(Failure::Usage(format!("--new opens a session: `{first}` is one file too many")));
            }
            [first, ..] => return Err(Failure::Usage(format!("`{first}` is no session; one looks like s1"))),
        };
        if session.is_some() && !options.opening.is_empty() {
            let what = "--keep, --name, --limits, --cwd, --language and the like are for new sessions";
            return Err(Failure::Usage(format!("{what}; {} exists", rest_name(session))));
        }
        let source = match (&options.code, file.map(String::as_str)) {
            (Some(_), Some(file)) => {
                return Err(Failure::Usage(format!("either --code or a file: not both -c and {file}")));
            }
            (Some(code), None) => Source::Text(code.clone()),
            (None, Some("-")) => Source::Stdin,
            (None, Some(file)) => Source::File(PathBuf::from(file)),
            (None, None) if stdin_is_terminal => {
                return Err(Failure::usage("what is to run? Name a file, -c CODE, or - for code from stdin"));
            }
            (None, None) => Source::Stdin,
        };
        Ok(Self { session, source })
    }
}

fn rest_name(session: Option<SessionId>) -> String {
    session.map(|session| session.to_string()).unwrap_or_default()
}

impl Source {
    fn language(&self) -> Option<Language> {
        match self {
            Self::File(path) => Language::of_file(path),
            Self::Text(_) | Self::Stdin => None,
        }
    }
}

fn read(source: &Source) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let (name, done) = match source {
        Source::Text(code) => return Ok(code.clone()),
        Source::Stdin => ("stdin".to_owned(), io::stdin().lock().read_to_end(&mut bytes).map(drop)),
        Source::File(path) => {
            (path.display().to_string(), std::fs::read(path).map(|content| bytes = content))
        }
    };
    done.map_err(|error| Failure::Usage(format!("cannot read {name}: {error}")))?;
    String::from_utf8(bytes).map_err(|_| Failure::Usage(format!("{name} is not UTF-8 text")))
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    let stdin_is_terminal = io::stdin().is_terminal();
    let plan = Plan::of(&options, stdin_is_terminal)?;
    let code = read(&plan.source)?;
    // Where the code came from there are no answers.
    let can_answer = stdin_is_terminal && plan.source != Source::Stdin;
    match block_on(run(&options, &plan, code, can_answer))?? {
        0 => Ok(()),
        code => Err(Failure::Silent(code)),
    }
}

async fn run(options: &Options, plan: &Plan, code: String, can_answer: bool) -> Result<u8, Failure> {
    let mut connection = options.server.connect().await?;
    let (session, is_new) = match plan.session {
        Some(session) => (session, false),
        None => (open(&mut connection, options, &plan.source).await?, true),
    };
    let key = options.key.clone().unwrap_or_else(fresh_name);
    let mut request = Execute::new(session, code, key);
    request.allow_stdin = can_answer;
    request.priority = options.priority;
    request.deadline_ms = options
        .deadline
        .map(|deadline| u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX).clamp(1, TIME_LIMIT_MS_MAX));
    let ending = Follow::new(&mut connection, options.json).run(request).await;
    let closes = is_new && !options.opening.keep && !matches!(ending, Ok(Ending::Left(_)));
    if closes {
        close(&mut connection, session).await;
    } else {
        if let Some(promise) = ending.as_ref().ok().and_then(Ending::remains) {
            eprintln!(
                "cob: {promise} goes on; `cob logs {promise} --follow` shows it, `cob cancel {promise}` ends it"
            );
        }
        if is_new && !options.json {
            eprintln!("cob: {session} stays open; `cob kill {session}` ends it");
        }
    }
    Ok(ending?.exit_code())
}

async fn close(connection: &mut AgentConnection, session: SessionId) {
    let request = json!({ "session_id": session.to_string() });
    if let Err(Failure::Usage(why) | Failure::Failed(why)) = ask(connection, "session_close", request).await {
        eprintln!("cob: {session} is left open: {why}");
    }
}

async fn open(
    connection: &mut AgentConnection,
    options: &Options,
    source: &Source,
) -> Result<SessionId, Failure> {
    let request = options.opening.request(source.language(), options.key.as_deref())?;
    let reply = ask(connection, "session_open", request).await?;
    let session = reply["session_id"].as_str().and_then(|text| text.parse().ok());
    session.ok_or_else(|| Failure::Failed(format!("the server has opened no session: {reply}")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn plan(line: &str) -> Result<Plan, String> {
        let line = Line::try_parse_from(["exec"].into_iter().chain(line.split_whitespace()));
        let options = line.map_err(|error| error.to_string())?.options;
        Plan::of(&options, true).map_err(|failure| match failure {
            Failure::Usage(text) => text,
            other => unreachable!("{other:?}"),
        })
    }

    #[test]
    fn a_session_comes_before_the_file_and_none_is_a_new_one() {
        let code = || Source::Text("1".into());
        let file = || Source::File("s.py".into());
        let s7 = Some(SessionId(7));
        for (line, session, source) in [
            ("s7 -c 1", s7, code()),
            ("-c 1", None, code()),
            ("--new -c 1 --keep", None, code()),
            ("s7 s.py", s7, file()),
            ("s.py", None, file()),
            ("--new s7", None, Source::File("s7".into())),
            ("s7 -", s7, Source::Stdin),
        ] {
            assert_eq!(plan(line), Ok(Plan { session, source }), "{line}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        for (line, sentence) in [
            ("s7", "what is to run"),
            ("s7 a.py -c 1", "not both"),
            ("a.py b.py", "no session"),
            ("--new a.py b.py", "one file too many"),
            ("s7 --keep -c 1", "new sessions"),
            ("s7 --language js -c 1", "new sessions"),
            ("s7 -c 1 --priority 101", "101"),
        ] {
            let error = plan(line).unwrap_err();
            assert!(error.contains(sentence), "{line}: {error}");
        }
    }

    #[test]
    fn a_new_session_is_asked_for_as_it_is_described() {
        let line =
            Line::try_parse_from(["exec", "--name", "n", "--limits", "memory=1G", "--cwd", "/x", "-c", "1"]);
        let request = line.unwrap().options.opening.request(None, Some("k")).unwrap();
        let expected = json!({ "environment": { "cwd": "/x" }, "name": "n", "limits": "memory=1G",
                               "idempotency_key": "k" });
        assert_eq!(request, expected);
    }

    #[test]
    fn a_new_session_has_the_language_of_the_file_unless_another_is_named() {
        let language = |line: &str| {
            let line = Line::try_parse_from(["exec"].into_iter().chain(line.split_whitespace()));
            let options = line.unwrap().options;
            let source = Plan::of(&options, true).unwrap().source;
            let request = options.opening.request(source.language(), None).unwrap();
            request["language"].as_str().map(str::to_owned)
        };
        assert_eq!(language("a.ts").as_deref(), Some("javascript"));
        assert_eq!(language("a.py").as_deref(), Some("python"));
        assert_eq!(language("-c 1"), None);
        assert_eq!(language("--language TS -c 1").as_deref(), Some("javascript"));
        assert_eq!(language("--language python a.ts").as_deref(), Some("python"));
    }
}

//! `cob run`: a notebook, a script or a piece of code, once, from start to end.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use cob_clients::notebook::kernelspec;
use cob_kernel::local::{Happening, LocalClient, SessionEnded};
use cob_kernel::request::Command;
use cob_kernel::session::{Config, End};
use cob_protocol::json::Json;
use cob_protocol::message::Outgoing;
use serde_json::{Value, json};

use super::language::{Language, Runner};
use super::notebook_file::Notebook;
use super::surroundings::{Flags, Surroundings};
use super::terminal::{self, Terminal};
use super::{Failure, absolute, adopt_orphans, block_on, language};

/// Exit code of a program that was interrupted, by the shells' convention.
pub(crate) const INTERRUPTED: u8 = 130;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// FILE.ipynb (outputs are written back), FILE.py, FILE.ts, FILE.js, or - for code from stdin
    #[arg(required_unless_present = "code", conflicts_with = "code")]
    file: Option<PathBuf>,
    /// Arguments of the script: `sys.argv[1:]`, in JavaScript `cob.args`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
    /// Run this code
    #[arg(short, long, value_name = "CODE")]
    code: Option<String>,
    /// Write the executed notebook here instead of over FILE.ipynb
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    wanted: language::Wanted,
    /// Use the language and the interpreter of this kernelspec
    #[arg(long, value_name = "NAME", conflicts_with_all = ["language", "python"])]
    kernel: Option<String>,
    /// Go on after a cell that fails
    #[arg(long)]
    allow_errors: bool,
    /// One JSON object per line instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    surroundings: Flags,
}

/// What is run.
enum Work {
    Notebook { notebook: Notebook, path: PathBuf },
    Code { source: String, name: String, directory: Option<PathBuf> },
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    let work = read(&options)?;
    let runner = runner(&options, &work)?;
    // A notebook runs where it lies, as in every front end; a script where it is started.
    let directory = match &work {
        Work::Notebook { path, .. } => absolute(path)?.parent().map(Path::to_owned),
        Work::Code { .. } => None,
    };
    let session_options = session_options(&options, &work, runner.language)?;
    let Surroundings { config, private } =
        options.surroundings.surroundings(runner, directory, session_options)?;
    let code = block_on(run(config, &options, work))?;
    drop(private);
    let code = code?;
    if code == 0 { Ok(()) } else { Err(Failure::Silent(code)) }
}

/// What runs it: what was said, else what the notebook or the name of the file says.
fn runner(options: &Options, work: &Work) -> Result<Runner, Failure> {
    if let Some(name) = &options.kernel {
        return kernelspec_runner(name);
    }
    let usual = match work {
        Work::Notebook { notebook, .. } => {
            // One that was made on one of our kernelspecs runs on its interpreter again.
            let own = notebook.kernel_name().filter(|_| options.wanted.is_silent()).map(kernelspec_runner);
            if let Some(Ok(runner)) = own {
                return Ok(runner);
            }
            // One that was made with another kernel of a language runs with ours.
            notebook.languages().find_map(|name| Language::named(name).ok())
        }
        Work::Code { name, .. } => Language::of_file(Path::new(name)),
    };
    options.wanted.runner(usual.unwrap_or_default())
}

fn read(options: &Options) -> Result<Work, Failure> {
    if let Some(source) = &options.code {
        return Ok(Work::Code { source: source.clone(), name: "-c".to_owned(), directory: None });
    }
    let path = options.file.clone().unwrap_or_default();
    let name = path.display().to_string();
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("ipynb")) {
        if !options.arguments.is_empty() {
            return Err(Failure::usage("a notebook takes no arguments"));
        }
        return Ok(Work::Notebook { notebook: Notebook::read(&path)?, path });
    }
    if options.output.is_some() {
        return Err(Failure::usage("--output is for notebooks; redirect the output of a script instead"));
    }
    let mut bytes = Vec::new();
    let read = if name == "-" {
        io::stdin().lock().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(&path).map(|text| bytes = text)
    };
    read.map_err(|e| Failure::Usage(format!("cannot read {name}: {e}")))?;
    let source = String::from_utf8(bytes).map_err(|_| Failure::Usage(format!("{name} is not UTF-8 text")))?;
    let directory = if name == "-" { None } else { absolute(&path)?.parent().map(Path::to_owned) };
    Ok(Work::Code { source, name, directory })
}

/// What a script expects of what runs it: its arguments after its own name, that name, and the folder that it takes
/// others from.
fn session_options(options: &Options, work: &Work, language: Language) -> Result<Json, Failure> {
    let mut told = options.wanted.options(language)?;
    let Work::Code { name, directory, .. } = work else { return Ok(Json::from(Value::Object(told))) };
    let mut argv = vec![name.clone()];
    argv.extend_from_slice(&options.arguments);
    let file = directory.as_ref().map(|_| name);
    // Whoever starts a script trusts what lies beside it.
    if let (Language::JavaScript, Some(directory)) = (language, directory) {
        let mut permissions = options.wanted.allowed.asked(language)?.unwrap_or_default();
        permissions.read.push(directory.display().to_string());
        told.insert("permissions".to_owned(), json!(permissions));
    }
    for (name, value) in [("argv", json!(argv)), ("file", json!(file)), ("path", json!(directory))] {
        told.insert(name.to_owned(), value);
    }
    Ok(Json::from(Value::Object(told)))
}

/// What an installed kernelspec of ours runs.
fn kernelspec_runner(name: &str) -> Result<Runner, Failure> {
    let places = kernelspec::search_path();
    let installed = kernelspec::find(&places, name).map_err(|error| {
        let known: Vec<String> = kernelspec::list(&places)
            .into_iter()
            .filter(|installed| installed.spec.is_ours())
            .map(|installed| installed.name)
            .collect();
        let hint = if known.is_empty() {
            "`cob install` makes one".to_owned()
        } else {
            format!("known are: {}", known.join(", "))
        };
        Failure::Usage(format!("{error}; {hint}"))
    })?;
    let about = installed.spec.metadata.get("cob").ok_or_else(|| {
        Failure::Usage(format!(
            "the kernelspec `{name}` in {} does not run cob",
            installed.directory.display()
        ))
    })?;
    // Those that were written before there was another one say nothing of it.
    let language = about["language"].as_str().map_or(Ok(Language::Python), Language::named);
    Runner::find(language.map_err(Failure::Usage)?, about["python"].as_str().map(Path::new))
}

/// A run in progress.
struct Run {
    client: LocalClient,
    show: Show,
    allow_errors: bool,
    output: Option<PathBuf>,
}

enum Show {
    People(Terminal),
    Machines,
}

/// How a cell ended.
struct Outcome {
    reply: Value,
}

impl Outcome {
    fn failed(&self) -> bool {
        self.reply["status"] != "ok"
    }

    fn exit_code(&self) -> u8 {
        exit_code(&self.reply)
    }
}

/// 0, 1, or what the code said with `sys.exit`.
pub(crate) fn exit_code(reply: &Value) -> u8 {
    if reply["status"] == "ok" {
        return 0;
    }
    let status = (reply["ename"] == "SystemExit").then(|| reply["evalue"].as_str()).flatten();
    match status {
        None => 1,
        Some("" | "None") => 0,
        // The system keeps the low eight bits, as after any exit().
        Some(text) => text.parse::<i64>().map_or(1, |code| code.rem_euclid(256) as u8),
    }
}

/// Runs everything; returns the exit code.
async fn run(config: Config, options: &Options, work: Work) -> Result<u8, Failure> {
    adopt_orphans();
    let client = LocalClient::start(config);
    let (sender, interrupted) = tokio::sync::watch::channel(false);
    tokio::spawn(watch_interrupts(client.commands(), sender));
    let show = if options.json { Show::Machines } else { Show::People(Terminal::new()) };
    let mut run = Run { client, show, allow_errors: options.allow_errors, output: options.output.clone() };
    let code = match work {
        Work::Notebook { notebook, path } => run.notebook(notebook, &path).await,
        Work::Code { source, .. } => {
            run.execute(&source, 0, None).await.map(|outcome| outcome.exit_code()).map_err(ended)
        }
    };
    let code = if *interrupted.borrow() { code.map(|_| INTERRUPTED) } else { code };
    run.client.shut_down().await;
    run.show.end(code.as_ref().copied().unwrap_or(1));
    code
}

impl Run {
    async fn notebook(&mut self, mut notebook: Notebook, path: &Path) -> Result<u8, Failure> {
        let output = self.output.clone().unwrap_or_else(|| path.to_owned());
        let cells = notebook.code_cells();
        let mut exit_code = 0;
        let info = self.exchange("kernel_info_request", json!({}), None).await.map_err(ended)?;
        notebook.set_language(info.reply["language_info"].clone());
        for cell in &cells {
            notebook.begin(cell.index);
            let outcome = self.execute(&cell.source, cell.index, Some(&mut notebook)).await;
            let outcome = match outcome {
                Ok(outcome) => outcome,
                Err(error) => {
                    // What was printed until the end is not lost.
                    notebook.write(&output)?;
                    return Err(ended(error));
                }
            };
            notebook.set_count(cell.index, &outcome.reply["execution_count"]);
            if outcome.failed() && !cell.may_fail {
                exit_code = outcome.exit_code();
                if !self.allow_errors {
                    break;
                }
            }
        }
        notebook.write(&output)?;
        Ok(exit_code)
    }

    async fn execute(
        &mut self,
        code: &str,
        cell: usize,
        notebook: Option<&mut Notebook>,
    ) -> Result<Outcome, SessionEnded> {
        let content = json!({ "code": code, "allow_stdin": true, "stop_on_error": true });
        self.exchange("execute_request", content, Some((cell, notebook))).await
    }

    /// Sends a request, shows what comes of it, returns its reply.
    async fn exchange(
        &mut self,
        msg_type: &str,
        content: Value,
        mut cell: Option<(usize, Option<&mut Notebook>)>,
    ) -> Result<Outcome, SessionEnded> {
        self.client.request(msg_type, content).await?;
        let mut reply = None;
        loop {
            match self.client.next(&mut reply).await? {
                Happening::Broadcast(message) => {
                    if let Some((index, notebook)) = &mut cell {
                        self.show.message(*index, &message);
                        if let Some(notebook) = notebook {
                            notebook.take(*index, &message);
                        }
                    }
                }
                Happening::Asked { prompt, password } => {
                    let answer = tokio::task::spawn_blocking(move || terminal::ask(&prompt, password)).await;
                    self.client.answer(answer.unwrap_or_default()).await;
                }
                Happening::Ended(reply) => {
                    let reply: Value = reply.read().unwrap_or_default();
                    if let Some((index, _)) = cell {
                        self.show.reply(index, &reply);
                    }
                    return Ok(Outcome { reply });
                }
            }
        }
    }
}

fn ended(SessionEnded(end): SessionEnded) -> Failure {
    match end {
        End::StartFailed(error) => Failure::usage(error),
        End::Shutdown => Failure::failed("the session ended before the code did"),
    }
}

/// Ctrl-C interrupts the code; the second one ends the session.
async fn watch_interrupts(
    commands: tokio::sync::mpsc::Sender<Command>,
    interrupted: tokio::sync::watch::Sender<bool>,
) {
    for command in [Command::Interrupt, Command::Shutdown] {
        if tokio::signal::ctrl_c().await.is_err() || commands.send(command).await.is_err() {
            return;
        }
        interrupted.send_replace(true);
    }
}

impl Show {
    fn message(&mut self, cell: usize, message: &Outgoing) {
        let shown = match self {
            Self::People(terminal) => terminal.show(message),
            Self::Machines => match message.msg_type {
                "status" | "execute_input" => Ok(()),
                msg_type => line(
                    &json!({ "cell": cell, "type": msg_type, "content": message.content, "metadata": message.metadata }),
                ),
            },
        };
        // Whoever read us has gone: so do we, as any filter would.
        if shown.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            std::process::exit(1);
        }
    }

    fn reply(&mut self, cell: usize, reply: &Value) {
        if let Self::Machines = self {
            let _ = line(&json!({ "cell": cell, "type": "execute_reply", "content": reply }));
        }
    }

    fn end(&mut self, code: u8) {
        if let Self::Machines = self {
            let status = if code == 0 { "ok" } else { "error" };
            let _ = line(&json!({ "type": "end", "status": status, "exit_code": code }));
        }
    }
}

fn line(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

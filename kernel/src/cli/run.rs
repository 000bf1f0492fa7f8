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

use super::notebook_file::Notebook;
use super::surroundings::{Flags, Surroundings};
use super::terminal::{self, Terminal};
use super::{Failure, absolute, adopt_orphans, block_on, python};

/// Exit code of a program that was interrupted, by the shells' convention.
pub(crate) const INTERRUPTED: u8 = 130;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// FILE.ipynb (outputs are written back), FILE.py, or - for code from stdin
    #[arg(required_unless_present = "code", conflicts_with = "code")]
    file: Option<PathBuf>,
    /// Arguments of the script: `sys.argv[1:]`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
    /// Run this code
    #[arg(short, long, value_name = "CODE")]
    code: Option<String>,
    /// Write the executed notebook here instead of over FILE.ipynb
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The interpreter that runs the code [default: that of the active environment, else python3]
    #[arg(long, value_name = "PATH", conflicts_with = "kernel")]
    python: Option<PathBuf>,
    /// Use the interpreter of this kernelspec
    #[arg(long, value_name = "NAME")]
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
    let interpreter = match &options.kernel {
        Some(name) => interpreter_of(name)?,
        None => match (&options.python, &work) {
            // A notebook that was made on one of our kernelspecs runs on its interpreter again.
            (None, Work::Notebook { notebook, .. }) => match notebook.kernel_name().map(interpreter_of) {
                Some(Ok(interpreter)) => interpreter,
                Some(Err(_)) | None => python::choose(None)?,
            },
            (named, _) => python::choose(named.as_deref())?,
        },
    };
    // A notebook runs where it lies, as in every front end; a script where it is started.
    let directory = match &work {
        Work::Notebook { path, .. } => absolute(path)?.parent().map(Path::to_owned),
        Work::Code { .. } => None,
    };
    let session_options = script_options(&work, &options.arguments);
    let Surroundings { config, private } =
        options.surroundings.surroundings(python::resolve(interpreter)?, directory, session_options)?;
    let code = block_on(run(config, &options, work))?;
    drop(private);
    let code = code?;
    if code == 0 { Ok(()) } else { Err(Failure::Silent(code)) }
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

/// What a script expects of its interpreter: `sys.argv`, its own name, its folder first on `sys.path`.
fn script_options(work: &Work, arguments: &[String]) -> Json {
    let Work::Code { name, directory, .. } = work else { return Json::object() };
    let mut argv = vec![name.clone()];
    argv.extend_from_slice(arguments);
    let file = directory.as_ref().map(|_| name);
    Json::from(json!({ "argv": argv, "file": file, "path": directory }))
}

/// The interpreter of an installed kernelspec of ours.
fn interpreter_of(name: &str) -> Result<PathBuf, Failure> {
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
    let python = installed.spec.metadata.get("cob").and_then(|cob| cob["python"].as_str());
    python.map(PathBuf::from).ok_or_else(|| {
        Failure::Usage(format!(
            "the kernelspec `{name}` in {} does not run cob",
            installed.directory.display()
        ))
    })
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

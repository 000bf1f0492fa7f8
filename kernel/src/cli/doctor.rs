//! `cob doctor`: what works on this host, what does not, and how to mend it. Every check is the real thing.

use std::path::{Path, PathBuf};

use clap::Args;
use cob_clients::notebook::kernelspec;
use cob_kernel::local::{Happening, LocalClient, SessionEnded};
use cob_kernel::session::{Config, End};
use cob_pool::Workers;
use cob_pool::limits::{Cgroups, EnforcedRow, Means, forecast};
use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use cob_protocol::promise::Durability;
use cob_protocol::resources::{Limit, Limits};
use serde_json::{Value, json};

use super::language::{Language, Runner};
use super::python::{self, Interpreter};
use super::{Failure, block_on, javascript};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The interpreter to look at [default: that of the active environment, else python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// One JSON document instead of a table
    #[arg(long)]
    json: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Works without, but better with.
    Could,
    /// cob cannot run code like this.
    Bad,
}

#[derive(Debug)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do about it.
    fix: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Good, found: found.into(), fix: None }
    }

    fn lacks(name: &'static str, verdict: Verdict, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, verdict, found: found.into(), fix: Some(fix.into()) }
    }
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    let mut checks = vec![system(), limits()];
    let chosen = python::choose(options.python.as_deref()).and_then(|path| Interpreter::ask(&path));
    match chosen {
        Err(Failure::Usage(why) | Failure::Failed(why)) => checks.push(Check::lacks(
            "interpreter",
            Verdict::Bad,
            why,
            "install Python 3.10 or newer (Debian: apt install python3), or name one with --python",
        )),
        Err(Failure::Silent(_)) => {}
        Ok(interpreter) => {
            checks.push(interpreter_check(&interpreter));
            if interpreter.objection().is_none() {
                let runner = Runner::at(Language::Python, interpreter.executable.clone());
                checks.push(worker("worker", runner)?);
            }
            checks.extend(packages(&interpreter));
        }
    }
    checks.push(javascript_check()?);
    checks.push(kernelspecs());
    checks.push(front_end());
    report(&checks, options.json);
    if checks.iter().any(|check| check.verdict == Verdict::Bad) {
        return Err(Failure::Silent(1));
    }
    Ok(())
}

/// Files in memory, process descriptors, `/proc`: what a worker needs of the system.
fn system() -> Check {
    let name = "system";
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    let Ok(release) = release else {
        return Check::lacks(
            name,
            Verdict::Bad,
            "/proc is not mounted",
            "mount it: workers are loaded through it",
        );
    };
    let noexec = std::fs::read_to_string("/proc/sys/vm/memfd_noexec").unwrap_or_default();
    if noexec.trim() == "2" {
        return Check::lacks(
            name,
            Verdict::Bad,
            "programs in memory are forbidden (vm.memfd_noexec=2)",
            "sysctl vm.memfd_noexec=1",
        );
    }
    Check::good(name, format!("Linux {}", release.trim()))
}

/// What would enforce each limit of a session.
fn limits() -> Check {
    let forecast = forecast(&Cgroups::detect());
    let by_group = |row: &EnforcedRow| matches!(row.by, Means::CgroupV1 | Means::CgroupV2);
    let needs_group = |row: &&EnforcedRow| matches!(row.limit, Limit::Memory | Limit::Processes);
    let is_best = forecast.0.iter().filter(needs_group).all(by_group);
    let found = forecast.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    if is_best {
        return Check::good("limits", found);
    }
    Check::lacks(
        "limits",
        Verdict::Could,
        found,
        "start cob in a cgroup that is delegated to it: systemd-run --user --scope -p Delegate=yes cob …",
    )
}

fn interpreter_check(interpreter: &Interpreter) -> Check {
    let found = format!(
        "{} {} at {}",
        interpreter.implementation,
        interpreter.version,
        interpreter.executable.display()
    );
    match interpreter.objection() {
        Some(_) => Check::lacks(
            "interpreter",
            Verdict::Bad,
            found,
            "CPython 3.10 or newer is needed; name one with --python",
        ),
        None => Check::good("interpreter", found),
    }
}

/// The engine of JavaScript: there, and good for what?
fn javascript_check() -> Result<Check, Failure> {
    let name = "javascript";
    if !javascript::IS_BUILT_IN {
        return Ok(Check::lacks(name, Verdict::Could, "cob was built without it", javascript::HOW_TO_GET_IT));
    }
    let check = worker(name, Runner::find(Language::JavaScript, None)?)?;
    let found = format!("{}; {}", javascript::ENGINE, check.found);
    Ok(match javascript::LACKS {
        Some((lack, fix)) if check.verdict == Verdict::Good => {
            Check::lacks(name, Verdict::Could, format!("{found}\n{lack}"), fix)
        }
        _ => Check { found, ..check },
    })
}

/// Starts a worker and lets it compute.
fn worker(name: &'static str, runner: Runner) -> Result<Check, Failure> {
    let fix = match runner.language {
        Language::Python => "mend the interpreter, or name another with --python",
        Language::JavaScript => "please report this",
    };
    let config = Config {
        id: SessionId(1),
        program: runner.program(std::env::vars_os().collect(), None),
        options: Json::object(),
        limits: Limits::default(),
        interrupt_grace: None,
        umask: None,
        is_confined: false,
        workers: Workers::Cold,
        ports: None,
        durability: Durability::None,
        is_hosted: false,
        idle_timeout: None,
        about: None,
        survival: None,
        past: None,
        checkpoints: cob_protocol::checkpoint::Policy::default(),
        seed: None,
        history: Vec::new(),
    };
    let started = std::time::Instant::now();
    let answer = block_on(async {
        let mut client = LocalClient::start(config);
        let answer = compute(&mut client).await;
        let elapsed = started.elapsed();
        client.shut_down().await;
        answer.map(|text| (text, elapsed))
    })?;
    Ok(match answer {
        Ok((text, elapsed)) if text == "2" => {
            Check::good(name, format!("1+1 was computed {} ms after its start", elapsed.as_millis()))
        }
        Ok((text, _)) => Check::lacks(name, Verdict::Bad, format!("1+1 gave {text:?}"), "please report this"),
        Err(SessionEnded(End::StartFailed(error))) => {
            Check::lacks(name, Verdict::Bad, error.to_string(), fix)
        }
        Err(SessionEnded(End::Shutdown)) => {
            Check::lacks(name, Verdict::Bad, "the worker ended at once", "please report this")
        }
    })
}

async fn compute(client: &mut LocalClient) -> Result<String, SessionEnded> {
    client.request("execute_request", json!({ "code": "1+1", "allow_stdin": false })).await?;
    let (mut reply, mut result) = (None, String::new());
    loop {
        match client.next(&mut reply).await? {
            Happening::Broadcast(message) if message.msg_type == "execute_result" => {
                let content: Value = message.content.read().unwrap_or_default();
                result = content["data"]["text/plain"].as_str().unwrap_or_default().to_owned();
            }
            Happening::Ended(_) => return Ok(result),
            Happening::Broadcast(_) | Happening::Asked { .. } => {}
        }
    }
}

fn packages(interpreter: &Interpreter) -> Vec<Check> {
    let pip = |package: &str| format!("{} -m pip install {package}", interpreter.executable.display());
    let check = |name: &'static str, without: &str| match interpreter.packages.get(name) {
        Some(version) => Check::good(name, version.clone()),
        None => Check::lacks(name, Verdict::Could, format!("not installed: {without}"), pip(name)),
    };
    vec![
        check("ipython", "no magics (%time), no shell escapes (!ls)"),
        check("ipywidgets", "no sliders and buttons"),
        check("matplotlib", "no plots"),
    ]
}

fn kernelspecs() -> Check {
    let ours: Vec<_> =
        kernelspec::list(&kernelspec::search_path()).into_iter().filter(|i| i.spec.is_ours()).collect();
    let broken = ours.iter().find(|installed| {
        let python = installed.spec.metadata.get("cob").and_then(|cob| cob["python"].as_str());
        let cob = installed.spec.argv.first().map(String::as_str);
        [python, cob].into_iter().flatten().any(|path| !Path::new(path).exists())
    });
    if let Some(broken) = broken {
        return Check::lacks(
            "kernelspecs",
            Verdict::Could,
            format!("`{}` names a program that is gone", broken.name),
            format!("cob install --name {}, or cob install --remove {}", broken.name, broken.name),
        );
    }
    match ours.len() {
        0 => Check::lacks("kernelspecs", Verdict::Could, "none runs cob", "cob install"),
        _ => Check::good("kernelspecs", ours.into_iter().map(|i| i.name).collect::<Vec<_>>().join(", ")),
    }
}

fn front_end() -> Check {
    let programs = ["jupyter-lab", "jupyter-console", "jupyter-notebook", "jupyter"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &&&str| std::env::split_paths(&path).any(|place| place.join(program).is_file());
    match programs.iter().find(found) {
        Some(program) => Check::good("front end", *program),
        None => Check::lacks(
            "front end",
            Verdict::Could,
            "no Jupyter in the search path; `cob run` works without one",
            "pip install jupyterlab",
        ),
    }
}

fn report(checks: &[Check], as_json: bool) {
    let word = |verdict| match verdict {
        Verdict::Good => "ok",
        Verdict::Could => "could be better",
        Verdict::Bad => "MISSING",
    };
    if as_json {
        let rows: Vec<Value> = checks
            .iter()
            .map(|c| json!({ "check": c.name, "verdict": word(c.verdict), "found": c.found, "fix": c.fix }))
            .collect();
        println!("{}", json!({ "cob": env!("CARGO_PKG_VERSION"), "checks": rows }));
        return;
    }
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in checks {
        println!(
            "{:width$}  {:15}  {}",
            check.name,
            word(check.verdict),
            check.found.replace('\n', "\n    ")
        );
        if let Some(fix) = &check.fix {
            println!("{:width$}  {:15}  fix: {fix}", "", "");
        }
    }
}

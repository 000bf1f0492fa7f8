//! The benchmarks, when their client is at hand: cob against ipykernel in the same run. `--stage pool` measures what
//! warm workers give instead, `--stage bridge` what records cost, `--stage serve` agents and many sessions in one server,
//! `--stage checkpoints` what it takes to keep a session and to go back, `--stage javascript` the other language against
//! Deno's kernel.

use std::path::{Path, PathBuf};

use crate::env::{self, Envs};
use crate::shell::{self, Failure};
use crate::{cargo, paths};

pub(crate) fn run(envs: &Envs, arguments: &[String]) -> Result<(), Failure> {
    let client = folder();
    if !client.join("kernel_bench.py").exists() {
        let place = client.display();
        return Err(Failure::new(format!(
            "there is no kernel_bench.py in {place}; name its folder in COB_BENCH."
        )));
    }
    cargo::build(true)?;
    match arguments {
        [stage, name, rest @ ..] if stage == "--stage" && name == "pool" => pool(envs, &client, rest),
        [stage, name, rest @ ..] if stage == "--stage" && name == "bridge" => bridge(envs, rest),
        [stage, name, rest @ ..] if stage == "--stage" && name == "serve" => serve(envs, rest),
        [stage, name, rest @ ..] if stage == "--stage" && name == "checkpoints" => checkpoints(envs, rest),
        [stage, name, rest @ ..] if stage == "--stage" && name == "javascript" => {
            javascript(envs, &client, rest)
        }
        [stage, ..] if stage == "--stage" => {
            let stages = "pool, bridge, serve, checkpoints, javascript";
            Err(Failure::new(format!("the stages that can be measured alone: {stages}.")))
        }
        _ => kernels(envs, &client, arguments),
    }
}

fn kernels(envs: &Envs, client: &Path, arguments: &[String]) -> Result<(), Failure> {
    let prefix = paths::target().join("bench");
    let cob = paths::cob(true);
    for (name, python) in [("cob", &envs.rich), ("cob-bare", &envs.bare)] {
        let mut install = shell::command(&cob);
        install.args(["install", "--name", name, "--prefix"]).arg(&prefix).arg("--python").arg(python);
        shell::run(&mut install)?;
    }
    let kernels = prefix.join("share/jupyter/kernels");
    let mut bench = shell::command(&envs.client);
    bench.arg(client.join("kernel_bench.py")).args(["--language", "python", "--kernel", "python3"]);
    for name in ["cob", "cob-bare"] {
        bench.arg("--kernel").arg(format!("{name}={}", kernels.join(name).display()));
    }
    shell::run(bench.args(arguments))
}

/// Leases and a thousand sessions in one process, then what a front end sees. No server but their own is asked.
fn pool(envs: &Envs, client: &Path, arguments: &[String]) -> Result<(), Failure> {
    let runtime = paths::target().join("bench/runtime");
    shell::run(&mut cargo::command(&[
        "build",
        "--release",
        "--package",
        "cob-kernel",
        "--example",
        "leases",
    ]))?;
    let mut leases = shell::command(paths::target().join("release/examples/leases"));
    shell::run(leases.arg(&envs.rich).env("COB_RUNTIME_DIR", &runtime))?;
    let mut bench = shell::command(&envs.client);
    bench.arg(paths::tests().join("bench/pool.py")).arg("--kernel-bench").arg(client);
    bench
        .arg("--cob")
        .arg(paths::cob(true))
        .arg("--python")
        .arg(&envs.rich)
        .arg("--ipykernel")
        .arg(&envs.client);
    shell::run(bench.args(arguments).env("COB_RUNTIME_DIR", runtime))
}

/// The store and its handle by themselves, then what a front end sees of them.
fn bridge(envs: &Envs, arguments: &[String]) -> Result<(), Failure> {
    let examples = ["store", "latency", "opening"];
    let folder = paths::target().join("bench/store");
    for example in examples {
        let build = ["build", "--release", "--package", "cob-bridge", "--example", example];
        shell::run(&mut cargo::command(&build))?;
        let mut measure = shell::command(paths::target().join("release/examples").join(example));
        if example == "store" {
            measure.arg(&folder);
        }
        shell::run(&mut measure)?;
    }
    let mut bench = shell::command(&envs.client);
    bench.arg(paths::tests().join("bench/bridge.py")).arg("--cob").arg(paths::cob(true));
    shell::run(bench.arg("--python").arg(&envs.rich).args(arguments))
}

/// Agents of one server, against a kernel of its own and ipykernel.
fn serve(envs: &Envs, arguments: &[String]) -> Result<(), Failure> {
    shell::run(&mut cargo::command(&[
        "build",
        "--release",
        "--package",
        "cob-tests",
        "--bin",
        "agent-load",
    ]))?;
    let mut bench = shell::command(&envs.client);
    bench.arg(paths::tests().join("bench/serve.py")).arg("--cob").arg(paths::cob(true));
    bench.arg("--agent-load").arg(paths::target().join("release/agent-load"));
    bench.arg("--python").arg(&envs.rich).arg("--ipykernel").arg(&envs.client);
    shell::run(bench.args(arguments))
}

/// Keeping a session, going back and branching off, against what people do by hand: pickle and its kin.
fn checkpoints(envs: &Envs, arguments: &[String]) -> Result<(), Failure> {
    let python = env::bench()?;
    let mut bench = shell::command(&envs.client);
    bench.arg(paths::tests().join("bench/checkpoints.py")).arg("--cob").arg(paths::cob(true));
    shell::run(bench.arg("--python").arg(python).args(arguments))
}

/// Sessions in JavaScript against Deno's Jupyter kernel.
fn javascript(envs: &Envs, client: &Path, arguments: &[String]) -> Result<(), Failure> {
    let deno = env::deno()?.with_file_name("deno");
    let mut bench = shell::command(&envs.client);
    bench.arg(paths::tests().join("bench/javascript.py")).arg("--kernel-bench").arg(client);
    shell::run(bench.arg("--cob").arg(paths::cob(true)).arg("--deno").arg(deno).args(arguments))
}

fn folder() -> PathBuf {
    match std::env::var_os("COB_BENCH") {
        Some(folder) => folder.into(),
        None => paths::root().join("../shared/bench"),
    }
}

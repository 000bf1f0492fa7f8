//! The benchmark, when it is at hand: cob against ipykernel in the same run.

use std::path::PathBuf;

use crate::env::Envs;
use crate::shell::{self, Failure};
use crate::{cargo, paths};

pub(crate) fn run(envs: &Envs, arguments: &[String]) -> Result<(), Failure> {
    let script = folder().join("kernel_bench.py");
    if !script.exists() {
        return Err(Failure::new(format!("there is no {}; name its folder in COB_BENCH.", script.display())));
    }
    cargo::build(true)?;
    let prefix = paths::target().join("bench");
    let cob = paths::cob(true);
    for (name, python) in [("cob", &envs.rich), ("cob-bare", &envs.bare)] {
        let mut install = shell::command(&cob);
        install.args(["install", "--name", name, "--prefix"]).arg(&prefix).arg("--python").arg(python);
        shell::run(&mut install)?;
    }
    let kernels = prefix.join("share/jupyter/kernels");
    let mut bench = shell::command(&envs.client);
    bench.arg(&script).args(["--language", "python", "--kernel", "python3"]);
    for name in ["cob", "cob-bare"] {
        bench.arg("--kernel").arg(format!("{name}={}", kernels.join(name).display()));
    }
    shell::run(bench.args(arguments))
}

fn folder() -> PathBuf {
    match std::env::var_os("COB_BENCH") {
        Some(folder) => folder.into(),
        None => paths::root().join("../shared/bench"),
    }
}

//! The first thing to see: a real notebook, run by cob in an ordinary Python
//! environment with pandas and matplotlib.

use std::fs;

use crate::shell::{self, Failure};
use crate::{cargo, env, paths};

pub(crate) fn run() -> Result<(), Failure> {
    let envs = env::set_up()?;
    cargo::build(true)?;
    let prefix = paths::target().join("demo");
    fs::create_dir_all(&prefix)
        .map_err(|error| Failure::new(format!("cannot create {}: {error}", prefix.display())))?;

    let cob = paths::cob(true);
    let mut install = shell::command(&cob);
    install.args(["install", "--name", "cob", "--prefix"]).arg(&prefix).arg("--python").arg(&envs.rich);
    shell::run(&mut install)?;

    // A copy, so that the outputs do not land in the repository.
    let notebook = prefix.join("demo.ipynb");
    let source = paths::tests().join("notebooks/demo.ipynb");
    fs::copy(&source, &notebook)
        .map_err(|error| Failure::new(format!("cannot copy {}: {error}", source.display())))?;
    let mut cob_run = shell::command(&cob);
    cob_run.args(["run", "--kernel", "cob"]).arg(&notebook).env("JUPYTER_PATH", prefix.join("share/jupyter"));
    shell::run(&mut cob_run)?;
    println!("\nThe notebook with its outputs: {}", notebook.display());
    Ok(())
}

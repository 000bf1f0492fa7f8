//! The words after `cargo xtask`. Parsing only; nothing is run here.

use crate::suite;

pub(crate) const HELP: &str = "\
Set-up, demo and tests of cob.

Usage: cargo xtask <TASK>

The two commands:
  demo     Build cob and run a real notebook through it
  test     Set up, check, run every test; the last line is the total

The steps they are made of:
  setup    Create the Python environments in target/test-env
  check    rustfmt and clippy, warnings are errors
  rust     cargo test for the whole workspace
  python   The tests that speak through real Jupyter clients
           [--release] [--reference] [-- <pytest arguments>]
             --release    test the release build (default: debug)
             --reference  test ipykernel instead of cob, to judge the tests
  client   The tests of the Python client
  bench    Compare with ipykernel  [-- <arguments of kernel_bench.py>]
           [-- --stage pool <arguments of tests/bench/pool.py>] measures warm workers
           [-- --stage bridge <arguments of tests/bench/bridge.py>] measures what records cost
           [-- --stage serve <arguments of tests/bench/serve.py>] measures agents and many sessions
           [-- --stage checkpoints <arguments of tests/bench/checkpoints.py>] measures keeping a session
           [-- --stage javascript <arguments of tests/bench/javascript.py>] compares with Deno's kernel
           COB_BENCH names the folder of kernel_bench.py

Environment:
  COB_PYTHON  the Python that the environments are made from (default: python3)
";

#[derive(Debug, PartialEq)]
pub(crate) enum Task {
    Help,
    Setup,
    Demo,
    Test,
    Check,
    Rust,
    Python(suite::Options),
    Client,
    Bench(Vec<String>),
}

/// Turns the words into a task, or says in one sentence what is wrong.
pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Task, String> {
    let mut words = words.peekable();
    let Some(name) = words.next() else {
        return Err("name a task: demo, test, setup, check, rust, python, client or bench.".into());
    };
    if words.peek().is_some_and(|word| word == "--help" || word == "-h") {
        return Ok(Task::Help);
    }
    let task = match name.as_str() {
        "help" | "--help" | "-h" => Task::Help,
        "setup" => Task::Setup,
        "demo" => Task::Demo,
        "test" => Task::Test,
        "check" => Task::Check,
        "rust" => Task::Rust,
        "client" => Task::Client,
        "python" => return python(words).map(Task::Python),
        "bench" => return after_dashes("bench", words).map(Task::Bench),
        _ => return Err(format!("there is no task `{name}`.")),
    };
    match words.next() {
        None => Ok(task),
        Some(word) => Err(format!("`{name}` takes no argument, but got `{word}`.")),
    }
}

fn python(words: impl Iterator<Item = String>) -> Result<suite::Options, String> {
    let mut words = words.peekable();
    let mut options = suite::Options::default();
    while let Some(word) = words.next_if(|word| word != "--") {
        match word.as_str() {
            "--release" => options.release = true,
            "--reference" => options.reference = true,
            _ => return Err(format!("`python` does not know `{word}`; pytest arguments come after `--`.")),
        }
    }
    options.pytest = after_dashes("python", words)?;
    Ok(options)
}

fn after_dashes(task: &str, mut words: impl Iterator<Item = String>) -> Result<Vec<String>, String> {
    match words.next() {
        None => Ok(Vec::new()),
        Some(word) if word == "--" => Ok(words.collect()),
        Some(word) => {
            Err(format!("put `--` before the arguments that `{task}` hands on, as in `-- {word}`."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parsed(line: &str) -> Result<Task, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_task_is_in_the_help() {
        for name in ["demo", "test", "setup", "check", "rust", "python", "client", "bench"] {
            assert!(parsed(name).is_ok(), "{name}");
            assert!(HELP.contains(&format!("\n  {name} ")), "{name}");
        }
    }

    #[test]
    fn pytest_arguments_come_after_two_dashes() {
        let options =
            suite::Options { release: true, reference: false, pytest: vec!["-k".into(), "order".into()] };
        assert_eq!(parsed("python --release -- -k order"), Ok(Task::Python(options)));
    }

    #[test]
    fn wrong_use_is_a_sentence() {
        for line in ["", "tset", "demo now", "python -k order", "bench --only rtt"] {
            let sentence = parsed(line).expect_err(line);
            assert!(sentence.ends_with(['.', '`']), "{sentence}");
        }
    }

    #[test]
    fn help_is_found_after_a_task_too() {
        assert_eq!(parsed("test --help"), Ok(Task::Help));
    }
}

//! `cargo xtask`: the two commands of this repository, `demo` and `test`, and
//! the steps that they are made of.
//!
//! Nothing here knows how cob works; it sets up, builds, runs and counts.

mod bench;
mod cargo;
mod check;
mod cli;
mod demo;
mod engine;
mod env;
mod paths;
mod python;
mod shell;
mod suite;
mod system;
mod tally;

use std::process::ExitCode;

use cli::Task;
use shell::Failure;
use tally::Tally;

fn main() -> ExitCode {
    let task = match cli::parse(std::env::args().skip(1)) {
        Ok(task) => task,
        Err(sentence) => {
            eprintln!("xtask: {sentence}\nTry `cargo xtask --help`.");
            return ExitCode::from(2);
        }
    };
    match run(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<(), Failure> {
    match task {
        Task::Help => {
            print!("{}", cli::HELP);
            Ok(())
        }
        Task::Setup => env::set_up().map(|envs| println!("{envs}")),
        Task::Demo => demo::run(),
        Task::Check => engine::set_up().and_then(|()| check::run().into_result()),
        Task::Rust => cargo::test(&env::set_up()?).into_result(),
        Task::Python(options) => suite::run(&env::set_up()?, &options).into_result(),
        Task::Client => suite::run_client(&env::set_up()?).into_result(),
        Task::Bench(arguments) => bench::run(&env::set_up()?, &arguments),
        Task::Test => test(),
    }
}

/// Everything that must hold for a commit to land. The total is the last line
/// on standard output, whatever happened before.
fn test() -> Result<(), Failure> {
    let mut total = Tally::default();
    match env::set_up() {
        Ok(envs) => {
            total += check::run();
            total += cargo::test(&envs);
            total += suite::run(&envs, &suite::Options::default());
            total += suite::run_warm(&envs);
            total += suite::run_surviving(&envs);
            total += suite::run_client(&envs);
        }
        Err(failure) => {
            eprintln!("xtask: {failure}");
            total += Tally::one_failure();
        }
    }
    println!("{total}");
    // The total must stay the last line, so a failure adds no sentence to it.
    if total.failed == 0 { Ok(()) } else { std::process::exit(1) }
}

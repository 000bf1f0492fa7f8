//! The binary `cob`: a table of contents. Each subcommand has its file in `cli`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}

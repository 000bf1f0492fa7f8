//! `cob completions`: scripts that teach a shell the command line.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::{Cli, Failure};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The shell; for bash: `source <(cob completions bash)`
    #[arg(value_name = "bash|zsh|fish|…")]
    shell: Shell,
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(options.shell, &mut Cli::command(), "cob", &mut script);
    // A reader that has seen enough is no failure.
    let _ = std::io::Write::write_all(&mut std::io::stdout().lock(), &script);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            generate(shell, &mut Cli::command(), "cob", &mut script);
            let script = String::from_utf8(script).unwrap();
            let commands = Cli::command();
            let visible = commands.get_subcommands().filter(|command| !command.is_hide_set());
            for command in visible {
                assert!(script.contains(command.get_name()), "{shell} does not know {}", command.get_name());
            }
        }
    }
}

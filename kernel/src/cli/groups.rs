//! `cob --help`: the commands under headings, since there are too many for one list.

use clap::Command;

/// What stands under which heading. Every command that is not hidden is in one of them.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Notebooks and scripts", &["run", "install", "kernel"]),
    (
        "Sessions of a server",
        &["exec", "attach", "sessions", "checkpoint", "interrupt", "cancel", "restart", "kill"],
    ),
    ("Servers", &["serve", "config", "top", "info", "metrics", "keys"]),
    ("Records and help", &["logs", "promises", "audit", "doctor", "completions", "help"]),
];

const HELP: &str = "Print this message or the help of a command";

const EXAMPLES: &str = "\
Examples:
  cob run notebook.ipynb            run a notebook, and write its outputs back
  cob install --python .venv/bin/python
                                    a kernel for Jupyter that runs this interpreter
  cob serve                         sessions for agents and shared notebooks
  cob exec -c 'print(6 * 7)'        code in a session of that server";

/// The command line with its help by headings.
pub(super) fn grouped(command: Command) -> Command {
    let mut text = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    for (heading, names) in GROUPS {
        text.push_str(&format!("\n{heading}:\n"));
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map_or_else(|| HELP.to_owned(), ToString::to_string);
            text.push_str(&format!("  {name:12} {about}\n"));
        }
    }
    text.push_str(&format!("\nOptions:\n{{options}}\n\n{EXAMPLES}\n"));
    command.help_template(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_command_stands_under_one_heading() {
        let command = Cli::command();
        let mut visible: Vec<_> = command
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(Command::get_name)
            .collect();
        visible.push("help");
        let mut grouped: Vec<_> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        visible.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(grouped, visible);
    }

    #[test]
    fn the_help_has_the_headings_and_what_each_command_does() {
        let help = grouped(Cli::command()).render_help().to_string();
        for part in ["Servers:\n  serve ", "  exec         Run code in a session", "--version", "Examples:\n"]
        {
            assert!(help.contains(part), "{part} is not in\n{help}");
        }
    }
}

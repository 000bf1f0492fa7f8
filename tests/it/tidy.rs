//! What holds of the sources: who may depend on whom, what is banned, what must be written down.

use std::collections::BTreeMap;
use std::process::Command;

use cob_protocol::error::ErrorCode;
use cob_tests::source::{Source, root, rust_files};
use serde_json::Value;

/// The allowed edges between our own crates. A new one is a decision about the architecture: change
/// `docs/architecture.md` first.
const EDGES: &[(&str, &[&str])] = &[
    ("cob-protocol", &[]),
    ("cob-bridge", &["cob-protocol"]),
    ("cob-pool", &["cob-protocol"]),
    ("cob-clients", &["cob-protocol"]),
    ("cob-worker", &["cob-protocol"]),
    ("cob-python", &["cob-protocol", "cob-worker"]),
    ("cob-javascript", &["cob-protocol", "cob-worker"]),
    (
        "cob-kernel",
        &["cob-protocol", "cob-bridge", "cob-pool", "cob-clients", "cob-python", "cob-javascript"],
    ),
    ("xtask", &[]),
];

/// Crates that only one of ours may use (the tests may use everything).
const OWNED: &[(&str, &str)] = &[
    ("zeromq", "cob-clients"),
    ("rusqlite", "cob-bridge"),
    ("pyo3", "cob-python"),
    ("deno_core", "cob-javascript"),
    ("deno_web", "cob-javascript"),
    ("oxc", "cob-javascript"),
    ("clap", "cob-kernel"),
];

/// Name of each of our crates, and what it depends on, for whatever purpose.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    dependencies_if(|_| true)
}

/// The same, for purposes that count: `normal`, `build`, `dev`.
fn dependencies_if(counts: impl Fn(&str) -> bool) -> BTreeMap<String, Vec<String>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let used = package["dependencies"].as_array().unwrap().iter();
            let used = used.filter(|used| counts(used["kind"].as_str().unwrap_or("normal")));
            (text(&package["name"]), used.map(|used| text(&used["name"])).collect())
        })
        .collect()
}

/// Fails with one line for each place where `is_wrong` finds something.
#[track_caller]
fn none_of(files: &[Source], rule: &str, is_wrong: impl Fn(&Source, &str) -> bool) {
    let mut wrong = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            if !line.trim_start().starts_with("//") && is_wrong(file, line) {
                wrong.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

fn product() -> Vec<Source> {
    let files = rust_files().into_iter().filter(Source::is_product);
    files.map(|file| Source { text: file.code(), ..file }).collect()
}

#[test]
fn crates_depend_on_each_other_as_the_architecture_says() {
    let found = dependencies();
    for (name, used) in &found {
        let ours: Vec<_> = used.iter().filter(|used| found.contains_key(*used) && *used != name).collect();
        if name == "cob-tests" {
            continue;
        }
        let row = EDGES.iter().find(|(row, _)| row == name);
        let Some((_, allowed)) = row else { unreachable!("{name} has no row in the table of edges") };
        for edge in ours {
            assert!(allowed.contains(&edge.as_str()), "{name} may not depend on {edge}");
        }
    }
}

#[test]
fn what_belongs_to_one_crate_is_used_by_no_other() {
    for (name, used) in dependencies_if(|kind| kind != "dev") {
        for (theirs, owner) in OWNED {
            let is_allowed = name == *owner || name == "cob-tests";
            assert!(
                is_allowed || !used.iter().any(|used| used == theirs),
                "{name} uses {theirs}, which is {owner}'s"
            );
        }
    }
}

#[test]
fn the_kernel_library_knows_no_executor() {
    let library = product().into_iter().filter(|file| file.path.starts_with("kernel/src"));
    let library: Vec<_> = library.filter(|file| !file.path.contains("/cli/")).collect();
    none_of(&library, "only the command line names executors", |_, line| {
        line.contains("cob_python") || line.contains("cob_javascript")
    });
}

#[test]
fn tests_wait_for_events_and_never_for_time_to_pass() {
    // Spelt so that this file does not find itself.
    let banned = ["thread::", "time::", "tokio::"].map(|module| format!("{module}sleep("));
    let short = "sleep(Duration";
    let mut files = rust_files();
    for file in &mut files {
        if file.is_product() {
            let tests = file.text.split_once("\n#[cfg(test)]").map(|(_, tests)| tests.to_owned());
            file.text = tests.unwrap_or_default();
        }
    }
    files.retain(|file| !file.path.starts_with("tests/xtask") && file.path != "tests/it/tidy.rs");
    none_of(&files, "a test waits for a message, a readiness or the end of a process", |_, line| {
        banned.iter().any(|banned| line.contains(banned)) || line.contains(short)
    });
}

#[test]
fn every_channel_of_the_product_is_bounded() {
    none_of(&product(), "an unbounded channel is a leak with another name", |file, line| {
        line.contains("unbounded") || (line.contains("mpsc::channel()") && !file.path.starts_with("tests/"))
    });
}

#[test]
fn every_file_says_what_lives_in_it() {
    let silent: Vec<_> = rust_files().into_iter().filter(|file| !file.text.starts_with("//!")).collect();
    let names: Vec<_> = silent.iter().map(|file| file.path.as_str()).collect();
    assert!(names.is_empty(), "no `//!` in the first line of {names:?}");
}

#[test]
fn unsafe_code_lives_only_in_files_that_say_so() {
    let files: Vec<_> = rust_files().into_iter().filter(|file| file.path != "tests/it/tidy.rs").collect();
    none_of(&files, "`#![allow(unsafe_code)]` is missing at the top", |file, line| {
        let is_unsafe =
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|word| line.contains(word));
        is_unsafe && !file.text.contains("#![allow(unsafe_code")
    });
}

#[test]
fn every_crash_point_is_passed_somewhere() {
    // Whole files: the list of modules of some ends with that of their tests.
    let product: Vec<_> = rust_files().into_iter().filter(Source::is_product).collect();
    let points = cob_protocol::crash::POINTS.iter();
    let missing: Vec<_> = points
        .filter(|(name, _)| {
            !product.iter().any(|file| file.text.contains(&format!("crash_point!(\"{name}\")")))
        })
        .map(|(name, _)| name)
        .collect();
    assert!(missing.is_empty(), "nothing passes {missing:?}");
}

/// What is recorded and what is told can be told apart only by dying between the two.
#[test]
fn whatever_commits_or_tells_stands_between_crash_points() {
    // Where a store commits, and where an effect leaves a session.
    for (path, place) in [
        ("bridge/src/writer.rs", "self.store.commit(groups)"),
        ("bridge/src/writer.rs", "self.store.commit_now(group)"),
        ("kernel/src/telling.rs", "Effect::Show(message) => {"),
        ("kernel/src/telling.rs", "worker.send(&frame, payloads, lane)"),
        ("kernel/src/telling.rs", "self.finish_when_flushed(finishing)"),
    ] {
        let file = product().into_iter().find(|file| file.path == path).unwrap();
        let lines: Vec<_> = file.text.lines().collect();
        let at: Vec<_> = (0..lines.len()).filter(|at| lines[*at].contains(place)).collect();
        assert!(!at.is_empty(), "{path} has no `{place}`: name the place where it went");
        for at in at {
            let around = lines[at.saturating_sub(14)..(at + 8).min(lines.len())].join("\n");
            assert!(around.contains("crash_point!"), "{path}: no crash point near `{place}`");
        }
    }
}

#[test]
fn every_error_code_is_produced_somewhere() {
    let product = product();
    let missing: Vec<_> = ErrorCode::ALL
        .iter()
        .filter(|code| {
            let name = format!("ErrorCode::{code:?}");
            !product.iter().any(|file| file.path != "protocol/src/error.rs" && file.text.contains(&name))
        })
        .collect();
    assert!(missing.is_empty(), "nothing produces {missing:?}");
}

/// The error codes, for people.
fn codes() -> String {
    let mut table =
        "## Codes of errors\n\n| code | who can mend it | what to do |\n|---|---|---|\n".to_owned();
    for code in ErrorCode::ALL {
        let whose = format!("{:?}", code.fault()).to_lowercase();
        table += &format!("| `{}` | {whose} | {} |\n", code.code(), code.hint());
    }
    table
}

/// `COB_BLESS=1` rewrites the pages.
#[test]
fn the_protocol_pages_show_the_tables_of_messages() {
    const BEGIN: &str =
        "<!-- The tables are generated: COB_BLESS=1 cargo test -p cob-tests protocol_pages -->\n\n";
    const END: &str = "\n<!-- end of the generated tables -->\n";
    let pages = [
        ("docs/protocol.md", cob_protocol::registry::table()),
        ("docs/agent-protocol.md", format!("{}\n{}", cob_protocol::registry::agent_table(), codes())),
    ];
    for (name, table) in pages {
        let path = root().join(name);
        let page = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).expect("the mark before the tables");
        let (_, after) = rest.split_once(END).expect("the mark after the tables");
        let wanted = format!("{before}{BEGIN}{table}{END}{after}");
        if std::env::var_os("COB_BLESS").is_some() {
            std::fs::write(&path, wanted).unwrap();
        } else {
            assert_eq!(page, wanted, "{name} is out of date: COB_BLESS=1 rewrites it");
        }
    }
}

#[test]
fn every_promise_names_tests_that_exist() {
    let page = std::fs::read_to_string(root().join("docs/promises.md")).unwrap();
    let mut sources: String = rust_files().iter().map(|file| file.text.as_str()).collect();
    for entry in std::fs::read_dir(root().join("tests/python")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "py") {
            sources += &std::fs::read_to_string(path).unwrap();
        }
    }
    for entry in std::fs::read_dir(root().join("executors/javascript/tests/cells")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            sources += &std::fs::read_to_string(path).unwrap();
        }
    }
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && line.contains("**")).collect();
    assert!(rows.len() > 10, "the table of promises was not found");
    for row in rows {
        let names: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test holds: {row}");
        for name in names {
            let definitions = [format!("fn {name}("), format!("def {name}("), format!("\n## {name}\n")];
            let exists = definitions.iter().any(|definition| sources.contains(definition));
            assert!(exists, "no test is called {name}");
        }
    }
}

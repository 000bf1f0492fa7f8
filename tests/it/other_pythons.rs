//! Durable checkpoints that go to another interpreter, or meet other packages: refused with the reasons, unless forced.

use std::path::{Path, PathBuf};

use cob_tests::agents::{Agent, Serve, text};
use cob_tests::cgroups::skipped;
use cob_tests::source;
use serde_json::{Value, json};

/// Interpreters of two minor versions.
fn two_pythons() -> Option<[PathBuf; 2]> {
    let named = std::env::var_os("COB_TEST_PYTHONS").unwrap_or_default();
    let made =
        ["py311", "py312"].map(|name| source::root().join("target/test-env").join(name).join("bin/python"));
    let version = |path: &PathBuf| {
        let output = std::process::Command::new(path).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        Some(text.split('.').take(2).collect::<Vec<_>>().join("."))
    };
    let all: Vec<_> =
        std::env::split_paths(&named).chain(made).filter_map(|path| Some((version(&path)?, path))).collect();
    let (first, one) = all.first()?;
    let (_, other) = all.iter().find(|(version, _)| version != first)?;
    Some([one.clone(), other.clone()])
}

async fn opened(agent: &mut Agent, serve: &Serve, python: Option<&Path>, path: Option<&Path>) -> String {
    let (variable, value) = serve.server.marker().split_once('=').unwrap();
    let mut environment = json!({ "env": { variable: value } });
    if let Some(python) = python {
        environment["python"] = json!(python);
    }
    if let Some(path) = path {
        environment["env"]["PYTHONPATH"] = json!(path);
    }
    let open = json!({ "language": "python", "environment": environment });
    agent.ok("session_open", open).await["session_id"].as_str().unwrap().to_owned()
}

async fn printed(agent: &mut Agent, session: &str, code: &str) -> String {
    let (reply, events) = agent.run(session, code, code).await;
    assert_eq!(reply["status"], "ok", "{code}: {reply:#}");
    text(&events)
}

async fn stored(agent: &mut Agent, session: &str) -> String {
    let taken = agent.ok("checkpoint", json!({ "session_id": session, "durable": true })).await;
    taken["checkpoint"]["checkpoint"].as_str().unwrap().to_owned()
}

/// It is refused there with these words, into a new process as well as into this one, and what is there stays; forced it
/// works. What is told of that.
async fn refused_and_forced(agent: &mut Agent, there: &str, id: &str, words: &[&str]) -> Value {
    printed(agent, there, "own = 1").await;
    for fresh in [true, false] {
        let restore = json!({ "session_id": there, "checkpoint": id, "fresh": fresh });
        let refused = agent.refused("restore", restore, "incompatible_checkpoint").await;
        let why = refused["evalue"].as_str().unwrap();
        assert!(words.iter().all(|word| why.contains(word)), "{why}");
    }
    assert_eq!(printed(agent, there, "print(own, 'data' in globals())").await, "1 False\n");
    let restore = json!({ "session_id": there, "checkpoint": id, "force": true });
    let back = agent.ok("restore", restore).await["restored"].clone();
    assert!(back["restored"].as_array().unwrap().contains(&json!("data")), "{back:#}");
    assert!(back["kept"].as_array().unwrap().contains(&json!("own")), "{back:#}");
    back
}

#[tokio::test]
async fn another_minor_version_is_refused_with_the_reasons_unless_forced() {
    let Some([one, other]) = two_pythons() else {
        return skipped("there are no two versions of Python here");
    };
    let serve = Serve::start().await;
    let mut agent = serve.agent("a").await;
    let here = opened(&mut agent, &serve, Some(&one), None).await;
    printed(&mut agent, &here, "data = {'a': [1]}; also = [data]\ndef f(): return 1").await;
    let id = stored(&mut agent, &here).await;
    let there = opened(&mut agent, &serve, Some(&other), None).await;
    let back = refused_and_forced(&mut agent, &there, &id, &["it was made with Python", "ABI"]).await;
    let missing = &back["missing"][0];
    assert_eq!((&missing["name"], &back["missing"][1]), (&json!("f"), &Value::Null), "{back:#}");
    assert!(missing["reason"].as_str().unwrap().contains("another version of Python"), "{back:#}");
    assert_eq!(printed(&mut agent, &there, "print(also[0] is data, own)").await, "True 1\n");
    drop(agent);
    serve.end_unchecked().await;
}

#[tokio::test]
async fn another_version_of_a_package_is_refused_with_the_reasons_unless_forced() {
    let serve = Serve::start().await;
    let folders = ["1.0", "2.0"].map(|version| {
        let folder = serve.server.folder().join(version);
        let about = folder.join(format!("pretend-{version}.dist-info"));
        std::fs::create_dir_all(&about).unwrap();
        let metadata = format!("Metadata-Version: 2.1\nName: pretend\nVersion: {version}\n");
        std::fs::write(about.join("METADATA"), metadata).unwrap();
        std::fs::write(about.join("top_level.txt"), "pretend\n").unwrap();
        std::fs::write(about.join("RECORD"), "pretend.py,,\n").unwrap();
        std::fs::write(folder.join("pretend.py"), "class Thing: pass\n").unwrap();
        folder
    });
    let mut agent = serve.agent("a").await;
    let here = opened(&mut agent, &serve, None, Some(&folders[0])).await;
    printed(&mut agent, &here, "import pretend\ndata = [pretend.Thing()]; also = data").await;
    let id = stored(&mut agent, &here).await;
    // Where it is the same nothing is in the way.
    let same = opened(&mut agent, &serve, None, Some(&folders[0])).await;
    agent.ok("restore", json!({ "session_id": same, "checkpoint": id })).await;
    assert_eq!(
        printed(&mut agent, &same, "print(also is data, type(data[0]).__name__)").await,
        "True Thing\n"
    );
    let there = opened(&mut agent, &serve, None, Some(&folders[1])).await;
    refused_and_forced(&mut agent, &there, &id, &["pretend", "1.0", "2.0"]).await;
    assert_eq!(
        printed(&mut agent, &there, "print(also is data, type(data[0]).__name__)").await,
        "True Thing\n"
    );
    // Where it is missing altogether, so is what needs it. (A restore takes the places of modules along.)
    std::fs::remove_dir_all(&folders[0]).unwrap();
    let without = opened(&mut agent, &serve, None, None).await;
    let mut restore = json!({ "session_id": without, "checkpoint": id });
    agent.refused("restore", restore.clone(), "incompatible_checkpoint").await;
    restore["force"] = json!(true);
    let back = agent.ok("restore", restore).await["restored"].clone();
    let missing: Vec<_> =
        back["missing"].as_array().unwrap().iter().map(|missing| &missing["name"]).collect();
    assert!(missing.contains(&&json!("data")) && back["restored"].is_null(), "{back:#}");
    drop(agent);
    serve.end_unchecked().await;
}

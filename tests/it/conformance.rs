//! The pages of the agent protocol, played.

use cob_tests::agents::Serve;
use cob_tests::source::root;
use cob_tests::transcript::{Script, play};

async fn plays(name: &str) {
    let page = std::fs::read_to_string(root().join("tests/specs").join(name)).unwrap();
    let serve = Serve::start().await;
    if let Err(why) = play(&format!("tests/specs/{name}"), &page, &serve.place()).await {
        unreachable!("{why}");
    }
}

macro_rules! pages {
    ($($test:ident $page:literal;)*) => {
        $(#[tokio::test]
        async fn $test() {
            plays($page).await;
        })*

        const PAGES: &[&str] = &[$($page),*];
    };
}

pages! {
    conformance_hello "hello.md";
    conformance_sessions "sessions.md";
    conformance_execute "execute.md";
    conformance_subscribe "subscribe.md";
    conformance_promises "promises.md";
    conformance_input "input.md";
    conformance_tools "tools.md";
    conformance_channels "channels.md";
    conformance_control "control.md";
    conformance_errors "errors.md";
    conformance_jupyter "jupyter.md";
    conformance_checkpoints "checkpoints.md";
}

#[test]
fn conformance_every_page_is_played_and_can_be_read() {
    let files = std::fs::read_dir(root().join("tests/specs")).unwrap();
    let mut names: Vec<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    names.sort();
    let mut played: Vec<&str> = PAGES.to_vec();
    played.sort_unstable();
    assert_eq!(names, played);
    for name in names {
        let page = std::fs::read_to_string(root().join("tests/specs").join(&name)).unwrap();
        if let Err(why) = Script::parse(&page) {
            unreachable!("{name}: {why}");
        }
    }
}

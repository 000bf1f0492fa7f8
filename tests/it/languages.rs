//! What agents are told of a session, in every language.

use cob_tests::agents::{Agent, Serve};
use serde_json::{Value, json};

/// A language: its name, code, and what the session then says that it holds.
struct Language {
    name: &'static str,
    code: &'static str,
    holds: fn() -> Value,
    /// Code that does something whenever it is looked at, and counts that in `touched`.
    touchy: &'static str,
    /// Fails if it was.
    untouched: &'static str,
}

const LANGUAGES: &[Language] = &[
    Language {
        name: "python",
        code: "number = 1\ntext = 'abc'\nitems = [1, 2, 3]\nclass Box: pass\nbox = Box()\ndef double(x): return x * 2",
        holds: || {
            json!([
                {"name": "number", "type": "int"},
                {"name": "text", "type": "str", "len": 3},
                {"name": "items", "type": "list", "len": 3},
                {"name": "Box", "type": "type"},
                {"name": "box", "type": "Box"},
                {"name": "double", "type": "function"},
            ])
        },
        touchy: "touched = []\nclass Touchy:\n    def __len__(self):\n        touched.append(1)\n        return 1\n    __repr__ = __len__\ntouchy = Touchy()",
        untouched: "assert not touched",
    },
    Language {
        name: "javascript",
        code: "const number = 1, text = 'abc'\nlet items: number[] = [1, 2, 3]\nclass Box {}\nvar box = new Box(), bytes = new Float64Array(4), \
               seen = new Map([[1, 2]])\nfunction double(x: number) { return x * 2 }\nvar Iterator = 5",
        holds: || {
            json!([
                {"name": "number", "type": "number"},
                {"name": "text", "type": "string", "len": 3},
                {"name": "items", "type": "Array", "len": 3},
                {"name": "Box", "type": "class"},
                {"name": "box", "type": "Box"},
                {"name": "bytes", "type": "Float64Array", "shape": [4], "nbytes": 32},
                {"name": "seen", "type": "Map", "len": 1},
                {"name": "double", "type": "function"},
                {"name": "Iterator", "type": "number"},
            ])
        },
        touchy: "let touched = 0\nconst touch = () => { touched++ }\n\
                 const proxy = new Proxy({}, new Proxy({}, {get: touch}))\n\
                 Object.defineProperty(globalThis, 'computed', {get: touch, configurable: true})\n\
                 const named = {get constructor() { touch() }, get [Symbol.toStringTag]() { touch() }, get size() { touch() }, toJSON: touch}\n\
                 Object.prototype.toJSON = touch; undefined",
        untouched: "if (touched > 0) throw new Error('touched')",
    },
];

async fn held(agent: &mut Agent, session: &str) -> Vec<Value> {
    let reply = agent.ok("session_info", json!({ "session_id": session, "namespace": true })).await;
    reply["session"]["namespace"].as_array().unwrap_or_else(|| unreachable!("{reply:#}")).clone()
}

/// Sorted by name: in which order names stand that are declared by one cell is the language's affair.
fn sorted(mut names: Vec<Value>) -> Vec<Value> {
    names.sort_by_key(|entry| entry["name"].as_str().map(str::to_owned));
    names
}

#[tokio::test]
async fn what_a_session_holds_is_told_by_names_types_and_sizes() {
    let serve = Serve::start().await;
    let mut agent = serve.agent("a").await;
    for language in LANGUAGES {
        let session = agent.open_in(language.name).await;
        // It is busy until it has started.
        agent.run(&session, "k0", "").await;
        assert_eq!(held(&mut agent, &session).await, Vec::<Value>::new(), "{}", language.name);
        let (reply, _) = agent.run(&session, "k1", language.code).await;
        assert_eq!(reply["status"], "ok", "{reply:#}");
        let expected = (language.holds)().as_array().unwrap().clone();
        assert_eq!(sorted(held(&mut agent, &session).await), sorted(expected), "{}", language.name);
    }
    serve.finish().await;
}

#[tokio::test]
async fn nothing_of_a_session_runs_when_it_is_asked_what_it_holds() {
    let serve = Serve::start().await;
    let mut agent = serve.agent("a").await;
    for language in LANGUAGES {
        let session = agent.open_in(language.name).await;
        let (reply, _) = agent.run(&session, "k1", language.touchy).await;
        assert_eq!(reply["status"], "ok", "{reply:#}");
        assert!(held(&mut agent, &session).await.len() > 1);
        let (reply, _) = agent.run(&session, "k2", language.untouched).await;
        assert_eq!(reply["status"], "ok", "{}: {reply:#}", language.name);
    }
    serve.finish().await;
}

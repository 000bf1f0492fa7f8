//! Checkpoints of sessions in JavaScript: forks that go on with their timers, and data that outlives its process.

#![allow(clippy::panic)]

use cob_tests::agents::{self, Agent, Serve, text};
use serde_json::{Value, json};

async fn open(agent: &mut Agent) -> String {
    let reply = agent.ok("session_open", json!({ "language": "javascript" })).await;
    reply["session_id"].as_str().unwrap().to_owned()
}

/// What code of a session prints that ends well.
async fn printed(agent: &mut Agent, session: &str, key: &str, code: &str) -> String {
    let (reply, events) = agent.run(session, key, code).await;
    assert_eq!(reply["status"], "ok", "{code}: {reply:#}");
    text(&events)
}

fn names(reply: &Value) -> Vec<String> {
    let sessions = reply["sessions"].as_array().unwrap();
    sessions.iter().map(|session| session.as_str().unwrap().to_owned()).collect()
}

/// Runs code until it prints what is awaited; whatever is due between two cells happens meanwhile.
async fn awaited(agent: &mut Agent, session: &str, code: &str, wanted: &str) {
    for at in 0..2000 {
        let shown = printed(agent, session, &format!("{code} {at}"), code).await;
        if shown == wanted {
            return;
        }
        assert_eq!(shown, "0\n", "{code}");
    }
    panic!("{code} never prints {wanted}");
}

#[tokio::test]
async fn timers_go_on_in_every_branch_and_fire_once_in_each() {
    let serve = Serve::start().await;
    let mut agent = serve.agent("a").await;
    let parent = open(&mut agent).await;
    let make = "var fired = 0, ticks = 0; setTimeout(() => { fired += 1 }, 40); setInterval(() => { ticks += 1 }, 5)";
    printed(&mut agent, &parent, "make", make).await;
    let taken = agent.ok("checkpoint", json!({ "session_id": parent })).await["checkpoint"].clone();
    assert!(taken["findings"].to_string().contains("2 timers go on"), "{taken:#}");
    assert_eq!(taken["findings"].as_array().unwrap().len(), 1, "{taken:#}");
    let mut all = names(&agent.ok("fork", json!({ "session_id": parent, "count": 2 })).await);
    all.push(parent);
    for session in &all {
        awaited(&mut agent, session, "console.log(fired)", "1\n").await;
        let more = "var before = ticks";
        printed(&mut agent, session, "before", more).await;
        awaited(&mut agent, session, "console.log(ticks > before + 2 ? 1 : 0)", "1\n").await;
        assert_eq!(printed(&mut agent, session, "once", "console.log(fired)").await, "1\n");
        // New ones work as well.
        printed(&mut agent, session, "new", "var again = 0; setTimeout(() => { again += 1 }, 1)").await;
        awaited(&mut agent, session, "console.log(again)", "1\n").await;
        // A forked worker tells nothing of its own event loop either.
        let findings =
            agent.ok("checkpoint", json!({ "session_id": session })).await["checkpoint"]["findings"].clone();
        assert_eq!(findings.as_array().unwrap().len(), 1, "{findings:#}");
    }
    drop(agent);
    serve.end_unchecked().await;
}

#[tokio::test]
async fn branches_have_random_numbers_of_their_own_and_what_is_killed_goes_back() {
    let serve = Serve::start_as(agents::setup().argument("--checkpoints").argument("auto")).await;
    let mut agent = serve.agent("a").await;
    let parent = open(&mut agent).await;
    printed(
        &mut agent,
        &parent,
        "make",
        "var x = 1; var make = () => { let q = 1; return () => q++ }; var next = make(); Math.random()",
    )
    .await;
    let all = names(&agent.ok("fork", json!({ "session_id": parent, "count": 4 })).await);
    let mut numbers = Vec::new();
    for session in &all {
        numbers.push(printed(&mut agent, session, "random", "console.log(Math.random())").await);
    }
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), 4, "{numbers:?}");
    // Closures are what they were.
    assert_eq!(printed(&mut agent, &parent, "closure", "x = 2; console.log(next(), next())").await, "1 2\n");
    agent.ok("restore", json!({ "session_id": parent, "undo": 1 })).await;
    assert_eq!(printed(&mut agent, &parent, "undone", "console.log(x, next())").await, "1 1\n");
    let info = agent.ok("session_info", json!({ "session_id": parent })).await["session"].clone();
    let pid = info["worker"]["pid"].as_u64().unwrap_or_else(|| panic!("{info:#}"));
    assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    awaited_back(&mut agent, &parent).await;
    drop(agent);
    serve.end_unchecked().await;
}

/// The session is what it was before its worker was killed; the first request may still meet that one.
async fn awaited_back(agent: &mut Agent, session: &str) {
    for at in 0..100 {
        let (reply, events) = agent.run(session, &format!("back-{at}"), "console.log(x)").await;
        if reply["status"] == "ok" {
            assert_eq!(text(&events), "1\n");
            return;
        }
    }
    panic!("{session} does not come back");
}

/// Values of every kind that can be saved, and some that cannot.
const MAKE: &str = r#"
var shared = [1, "two", { deep: new Map([["k", new Set([1n, -0, NaN])]]) }];
var a = { shared, nothing: undefined, none: null }; a.self = a;
var b = { shared };
var A = class A { constructor(v) { this.v = v } double() { return 2 * this.v } };
var B = class B extends A { double() { return super.double() + 1 } };
var one = new B(20);
var Table = class Table extends Map { sum() { return this.get("x") + this.size } }; var table = new Table([["x", 1]]);
function twice(x) { return x * factor }
var factor = 2, plus = (x, y) => x + y;
var bytes = new Uint8Array(200_000); bytes[7] = 7; var part = new Uint16Array(bytes.buffer, 2, 3);
var error = new RangeError("far", { cause: a });
var tag = Symbol("tag"); var keyed = { [tag]: 1, [Symbol.for("x")]: 2 };
var frozen = Object.freeze([Object.freeze({ p: 1 })]); var sparse = [1, , 3]; sparse[50] = 5;
var when = new Date(86400000), pattern = /x+/gi, half = "\ud800", bare = Object.create(null);
var deep = null; for (let i = 0; i < 100_000; i++) deep = { deep };
var promise = Promise.resolve(1), steps = (function* () {})(), holder = { at: [steps] };
var inner = (() => { let q = 1; return () => q })(); class Hidden {}
console.log("made")"#;

const LOOK: &str = r#"
var levels = 0; for (let at = deep; at; at = at.deep) levels++;
console.log(JSON.stringify([
  a.self === a, a.shared === b.shared, "nothing" in a, [...a.shared[2].deep.get("k")].map((x) => Object.is(x, -0) ? "-0" : String(x)),
  one instanceof A, one.double(), table.sum(), twice(4), plus(1, 2), plus.name, part.buffer === bytes.buffer, part[2] === bytes[6] + 256 * bytes[7],
  error instanceof RangeError, error.message, error.cause === a, keyed[tag], keyed[Symbol.for("x")], Object.isFrozen(frozen[0]),
  sparse.length, 1 in sparse, when.getTime(), String(pattern), half.charCodeAt(0), Object.getPrototypeOf(bare), levels,
  typeof promise, typeof holder, typeof inner])); levels = undefined"#;

#[tokio::test]
async fn data_functions_and_classes_sleep_in_the_store_and_the_rest_is_named() {
    let serve = Serve::start().await;
    let mut agent = serve.agent("a").await;
    let session = open(&mut agent).await;
    assert_eq!(printed(&mut agent, &session, "make", MAKE).await, "made\n");
    let refused = agent.ask("hibernate", json!({ "session_id": session })).await;
    assert_eq!(refused["code"], "checkpoint_refused", "{refused}");
    for why in ["promise", "its part .at[0] is a generator", "not defined at the top level"] {
        assert!(refused["evalue"].as_str().unwrap().contains(why), "{why}: {refused}");
    }
    agent.ok("hibernate", json!({ "session_id": session, "force": true })).await;
    let expected = r#"[true,true,true,["1","0","NaN"],true,41,2,8,3,"plus",true,true,true,"far",true,1,2,true,51,false,86400000,"/x+/gi",55296,null,100000,"undefined","undefined","undefined"]"#;
    assert_eq!(printed(&mut agent, &session, "look", LOOK).await.trim_end(), expected);
    // What was restored can be saved again, and costs nothing that is there already.
    let content = json!({ "session_id": session, "durable": true });
    let first = agent.ok("checkpoint", content.clone()).await["checkpoint"].clone();
    assert_eq!(first["missing"].as_array().map_or(0, Vec::len), 0, "{first:#}");
    let second = agent.ok("checkpoint", content).await["checkpoint"].clone();
    assert!(second["new_bytes"].as_u64() < Some(100_000), "{second:#}");
    drop(agent);
    serve.end_unchecked().await;
}

/// Makes a graph of values at random, and says what it looks like from its variables, with identity.
const GRAPH: &str = r#"
function makeGraph(seed) {
  const next = (n) => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0, Math.floor(seed / 2 ** 32 * n));
  const leaves = [() => next(1000), () => -0, () => NaN, () => undefined, () => null, () => `s${next(99)}\ud800`, () => BigInt(next(9e6)) ** 9n,
    () => next(2) === 0, () => Infinity, () => Symbol.iterator, () => Symbol.for("q"), () => Math.max, () => "x".repeat(300)];
  const kinds = [() => ({}), () => [], () => new Map(), () => new Set(), () => Object.create(null), () => new Date(next(1e9)),
    () => new Float64Array(next(5)), () => Object.assign(new Point(), { w: 1 }), () => new TypeError(`e${next(9)}`), () => Symbol("own"),
    () => Object(next(9)), () => new Array(next(4)), () => /a|b/g, () => new DataView(new ArrayBuffer(8), 2)];
  const all = Array.from({ length: 60 }, () => kinds[next(kinds.length)]());
  const any = () => next(3) === 0 ? leaves[next(leaves.length)]() : all[next(all.length)];
  for (const it of all) {
    for (let i = next(4); i > 0; i--) {
      if (it instanceof Map) it.set(any(), any());
      else if (it instanceof Set) it.add(any());
      else if (Array.isArray(it) && next(2)) it.push(any());
      else if (typeof it === "object" && !ArrayBuffer.isView(it)) {
        const key = next(5) === 0 ? Symbol.for(`k${next(3)}`) : `k${next(9)}`;
        Object.defineProperty(it, key, { value: any(), writable: next(4) > 0, enumerable: next(4) > 0, configurable: true });
      }
    }
    if (typeof it === "object" && !ArrayBuffer.isView(it) && next(12) === 0) [Object.freeze, Object.seal, Object.preventExtensions][next(3)](it);
  }
  return [any(), all[1], all[2], { all: next(2) ? all : 1 }];
}
var Point = class Point { norm() { return this.w } };
function tellGraph(roots) {
  const ids = new Map(), queue = [];
  const tell = (value) => {
    if (value === null || !["object", "symbol", "function"].includes(typeof value)) return Object.is(value, -0) ? "-0" : `${typeof value} ${JSON.stringify(String(value))}`;
    if (value === Math.max || Symbol.keyFor(value?.description && typeof value === "symbol" ? value : Symbol()) || value === Symbol.iterator) return String(value);
    if (!ids.has(value)) { ids.set(value, ids.size); queue.push(value); }
    return `#${ids.get(value)}`;
  };
  const lines = [roots.map(tell).join()];
  for (const it of queue) {
    if (typeof it === "symbol") { lines.push(String(it)); continue; }
    const proto = Object.getPrototypeOf(it);
    const line = [proto === Point.prototype ? "Point" : proto && proto.constructor.name, Object.isFrozen(it), Object.isSealed(it), Object.isExtensible(it)];
    if (it instanceof Map) it.forEach((v, k) => line.push(`${tell(k)}=>${tell(v)}`));
    if (it instanceof Set) it.forEach((v) => line.push(tell(v)));
    if (it instanceof Date || it instanceof Number) line.push(it.valueOf());
    if (it instanceof DataView) line.push(it.byteOffset, it.byteLength);
    for (const key of Reflect.ownKeys(it)) {
      if (key === "stack") continue; // of the engine: a text comes back
      const d = Object.getOwnPropertyDescriptor(it, key);
      line.push(`${String(key)}:${tell(d.value)}${d.writable}${d.enumerable}${d.configurable}`);
    }
    lines.push(line.slice(0, 4).concat(line.slice(4).sort()).join(" "));
  }
  return lines.join("\n");
}
console.log("ready")"#;

#[tokio::test]
async fn graphs_of_values_at_random_come_back_as_they_were() {
    let serve = Serve::start().await;
    let mut agent = serve.agent("a").await;
    let session = open(&mut agent).await;
    assert_eq!(printed(&mut agent, &session, "graph", GRAPH).await, "ready\n");
    let make = "for (let i = 0; i < 100; i++) globalThis[`g${i}`] = makeGraph(i * 7919 + 1); var more = [g1[1], g2[1]]; console.log('made')";
    assert_eq!(printed(&mut agent, &session, "make", make).await, "made\n");
    let tell = "{ const told = []; for (let i = 0; i < 100; i++) told.push(tellGraph(globalThis[`g${i}`])); told.push(more[0] === g1[1]); console.log(told.join('\\n--\\n')) }";
    let before = printed(&mut agent, &session, "before", tell).await;
    assert!(before.lines().count() > 1000, "{before}");
    agent.ok("hibernate", json!({ "session_id": session })).await;
    let after = printed(&mut agent, &session, "after", tell).await;
    if let Some((was, is)) = before.lines().zip(after.lines()).find(|(was, is)| was != is) {
        panic!("a graph has changed:\n{was}\n{is}");
    }
    assert_eq!(before.len(), after.len());
    drop(agent);
    serve.end_unchecked().await;
}

//! Random histories of sessions, of everything that can happen to them: whatever an answer says of the variables is so.

use std::collections::BTreeMap;

use cob_tests::agents::Got;
use cob_tests::process;
use cob_tests::seed::Seed;
use rustix::process::Signal;

use super::model::{Namespace, SHOW};
use super::*;

/// A checkpoint that somebody was told of.
struct Mark {
    holds: Namespace,
    is_durable: bool,
    is_in_memory: bool,
}

/// What is known of a session.
#[derive(Default)]
struct Known {
    session: String,
    now: Namespace,
    /// What the variables were, by the number of cells that had run then.
    were: BTreeMap<u64, Vec<Namespace>>,
    cells: u64,
    marks: BTreeMap<String, Mark>,
    highest: u64,
    /// Cells since the last thing that was none.
    in_a_row: usize,
    /// Where it has gone back to since a cell ran, and we were told.
    is_at: Option<String>,
    keys: u64,
}

impl Known {
    fn new(session: &str, now: Namespace) -> Self {
        let mut known = Self { session: session.to_owned(), ..Self::default() };
        known.is_now(now);
        known
    }

    fn is_now(&mut self, now: Namespace) {
        self.were.entry(self.cells).or_default().push(now.clone());
        self.now = now;
    }

    /// What the variables may be after a way back that is told like this.
    fn claimed(&self, restored: &Value) -> Vec<Namespace> {
        if let Some(mark) = self.marks.get(restored["checkpoint"].as_str().unwrap()) {
            return vec![mark.holds.clone()];
        }
        let since = restored["executions_since"].as_u64().unwrap();
        self.were.get(&(self.cells - since)).cloned().unwrap_or_default()
    }

    fn gone_from_memory(&mut self) {
        self.marks.values_mut().for_each(|mark| mark.is_in_memory = false);
        self.marks.retain(|_, mark| mark.is_durable);
        self.in_a_row = 0;
    }
}

/// A server, its sessions, and everything that was done.
struct World {
    serve: Serve,
    agent: Agent,
    seed: Seed,
    known: Vec<Known>,
    is_auto: bool,
    done: Vec<String>,
}

fn told(reply: &Got) -> Option<Value> {
    let told = [&reply.content["restored"], &reply.metadata["cob"]["restored"]];
    told.into_iter().find(|told| !told.is_null()).cloned()
}

impl World {
    async fn new(number: u64) -> Self {
        let is_auto = number.is_multiple_of(2);
        let mode = if is_auto { "auto" } else { "manual" };
        let serve = Serve::start_as(with_grace(15).argument("--checkpoints").argument(mode)).await;
        let mut agent = serve.agent("a").await;
        let known = vec![Known::new(&agent.open().await, Namespace::default())];
        Self { serve, agent, seed: Seed::new(number), known, is_auto, done: Vec::new() }
    }

    fn wrong(&self, what: &str) -> ! {
        unreachable!("{what}, after:\n{}", self.done.join("\n"))
    }

    /// Runs code that does `code`, which makes `then` of the variables, and checks what is said and shown.
    async fn run(&mut self, at: usize, code: &str, change: impl Fn(&Namespace) -> Namespace) {
        let known = &mut self.known[at];
        known.keys += 1;
        let (session, key) = (known.session.clone(), format!("{}-{}", known.session, known.keys));
        let asked = self.agent.execute(&session, &key, &format!("{code}\n{SHOW}")).await;
        let reply = self.agent.reply(&asked).await;
        let shown = text(&self.agent.events(&asked));
        self.done.push(format!("{session}: {code}: {}: {shown}", reply.content["status"]));
        let known = &mut self.known[at];
        let restored = told(&reply);
        if reply.content["status"] == "ok" {
            let before = match &restored {
                // That is what was asked for.
                Some(restored) if known.is_at.as_deref() == restored["checkpoint"].as_str() => {
                    vec![known.now.clone()]
                }
                Some(restored) => known.claimed(restored),
                None => vec![known.now.clone()],
            };
            known.is_at = None;
            known.in_a_row = if restored.is_some() { 0 } else { known.in_a_row + 1 };
            let Some(now) = before.iter().map(&change).find(|now| now.shown() == shown) else {
                let expected: Vec<_> = before.iter().map(|before| change(before).shown()).collect();
                self.wrong(&format!("it shows {shown}, not {expected:?}: {reply:?}"));
            };
            known.cells += 1;
            known.is_now(now);
            return;
        }
        known.cells += 1;
        self.lost(at, &reply.content, restored).await;
    }

    /// A cell ended with its worker: what is said of the variables is looked at.
    async fn lost(&mut self, at: usize, content: &Value, restored: Option<Value>) {
        let known = &mut self.known[at];
        let is_sure = self.is_auto && std::mem::take(&mut known.in_a_row) > 1;
        if is_sure && restored.as_ref().is_none_or(|restored| restored["executions_since"] != 1) {
            self.wrong(&format!("it went back further than to before the cell: {content:#}"));
        }
        let maybe = match (content["session_state"].as_str(), restored) {
            (Some("restored"), Some(restored)) => {
                known.is_at = restored["checkpoint"].as_str().map(str::to_owned);
                known.claimed(&restored)
            }
            (Some("lost"), None) => vec![Namespace::default()],
            _ => self.wrong(&format!("{content:#}")),
        };
        self.is_one_of(at, maybe).await;
    }

    /// What the variables are is one of these.
    async fn is_one_of(&mut self, at: usize, maybe: Vec<Namespace>) {
        let known = &mut self.known[at];
        known.keys += 1;
        let (session, key) = (known.session.clone(), format!("{}-{}", known.session, known.keys));
        let shown = printed(&mut self.agent, &session, &key, SHOW).await;
        self.done.push(format!("{session}: looked at: {shown}"));
        let Some(now) = maybe.iter().find(|now| now.shown() == shown) else {
            let maybe: Vec<_> = maybe.iter().map(Namespace::shown).collect();
            self.wrong(&format!("it shows {shown}, none of {maybe:?}"));
        };
        let known = &mut self.known[at];
        known.is_now(now.clone());
        known.cells += 1;
        known.is_now(now.clone());
        known.is_at = None;
    }

    async fn take(&mut self, at: usize, durable: bool) {
        let session = self.known[at].session.clone();
        let content = json!({ "session_id": session, "durable": durable });
        let taken = self.agent.ok("checkpoint", content).await;
        let id = name(&taken["checkpoint"]);
        self.mark(at, &id, durable, true);
    }

    fn mark(&mut self, at: usize, id: &str, is_durable: bool, is_in_memory: bool) {
        self.done.push(format!("{id} is taken"));
        let known = &mut self.known[at];
        if number(id) <= known.highest {
            self.wrong(&format!("{id} is not a new number"));
        }
        known.highest = number(id);
        known.in_a_row = 0;
        known.marks.insert(id.to_owned(), Mark { holds: known.now.clone(), is_durable, is_in_memory });
    }

    fn any_mark(&mut self, at: usize) -> Option<String> {
        let ids: Vec<_> = self.known[at].marks.keys().cloned().collect();
        (!ids.is_empty()).then(|| ids[self.seed.below(ids.len())].clone())
    }

    async fn restore(&mut self, at: usize) {
        let Some(id) = self.any_mark(at) else { return };
        let fresh = self.seed.below(2) == 0;
        let session = self.known[at].session.clone();
        let content = json!({ "session_id": session, "checkpoint": id, "fresh": fresh });
        let restored = self.agent.ok("restore", content).await["restored"].clone();
        self.done.push(format!("{session} goes back to {id}, fresh {fresh}: {restored}"));
        let known = &self.known[at];
        let mark = &known.marks[&id];
        let is_memory = restored["tier"] == "memory";
        // A session that slept has nothing that could be merged with.
        let kept: Vec<_> = restored["kept"].as_array().into_iter().flatten().cloned().collect();
        let mut maybe = vec![mark.holds.clone()];
        if !is_memory && !fresh {
            let theirs = mark.holds.names();
            let own: Vec<_> = known.now.names().into_iter().filter(|name| !theirs.contains(name)).collect();
            assert!(own.iter().all(|name| kept.contains(&json!(name))), "{own:?} {restored:#}");
            maybe = vec![known.now.merged(&mark.holds)];
        }
        if is_memory != mark.is_in_memory
            || restored["checkpoint"] != json!(id)
            || !restored["missing"].is_null()
        {
            self.wrong("it goes back otherwise");
        }
        self.is_back(at, &id, maybe).await;
    }

    async fn is_back(&mut self, at: usize, id: &str, maybe: Vec<Namespace>) {
        self.known[at].in_a_row = 0;
        self.known[at].is_at = Some(id.to_owned());
        self.is_one_of(at, maybe).await;
    }

    async fn undo(&mut self, at: usize) {
        let back = 1 + self.seed.below(3);
        let known = &self.known[at];
        let content = json!({ "session_id": known.session, "undo": back });
        let reply = self.agent.ask("restore", content).await;
        self.done.push(format!("{} undoes {back}: {reply}", known.session));
        let is_sure = self.is_auto && back < known.in_a_row;
        if reply["status"] != "ok" {
            if is_sure || reply["code"] != "unknown_checkpoint" {
                self.wrong("it cannot be undone");
            }
            return;
        }
        let restored = reply["restored"].clone();
        let since = restored["executions_since"].as_u64().unwrap();
        if is_sure && since != back as u64 || since < back as u64 {
            self.wrong(&format!("{since} are undone, not {back}"));
        }
        let mut maybe = known.claimed(&restored);
        if restored["tier"] != "memory" {
            maybe = maybe.iter().map(|maybe| known.now.merged(maybe)).collect();
        }
        let id = restored["checkpoint"].as_str().unwrap().to_owned();
        self.is_back(at, &id, maybe).await;
    }

    async fn fork(&mut self, at: usize) {
        let count = 1 + self.seed.below(2);
        if self.known.len() + count > 4 {
            return;
        }
        let parent = self.known[at].session.clone();
        let forked = self.agent.ok("fork", json!({ "session_id": parent, "count": count })).await;
        self.done.push(format!("{parent} is forked: {forked}"));
        self.known[at].in_a_row = 0;
        if let Some(from) = forked["checkpoint"].as_str() {
            // A checkpoint that was taken for it has a number as well.
            self.known[at].highest = self.known[at].highest.max(number(from));
        }
        for branch in forked["sessions"].as_array().unwrap() {
            let now = self.known[at].now.clone();
            self.known.push(Known::new(branch.as_str().unwrap(), now));
            let last = self.known.len() - 1;
            self.run(last, "pass", Namespace::clone).await;
        }
    }

    async fn drop_one(&mut self, at: usize) {
        let Some(id) = self.any_mark(at) else { return };
        let session = self.known[at].session.clone();
        let dropped = self.agent.ask("checkpoint_delete", json!({ "checkpoint": id })).await;
        self.done.push(format!("{id} is dropped: {}", dropped["status"]));
        if dropped["status"] != "ok" {
            // Only what it wakes up from stays.
            assert_eq!(info(&mut self.agent, &session).await["wakes_at"], json!(id), "{dropped:#}");
            return;
        }
        let gone = json!({ "session_id": session, "checkpoint": id });
        self.agent.refused("restore", gone, "unknown_checkpoint").await;
        self.known[at].marks.remove(&id);
        self.known[at].in_a_row = 0;
    }

    async fn hibernate(&mut self, at: usize) {
        let session = self.known[at].session.clone();
        let is_all_stored = self.known[at].marks.values().all(|mark| mark.is_durable);
        if !is_all_stored {
            let hibernate = json!({ "session_id": session });
            self.agent.refused("hibernate", hibernate, "checkpoint_refused").await;
        }
        let hibernate = json!({ "session_id": session, "force": !is_all_stored });
        let before = info(&mut self.agent, &session).await["wakes_at"].clone();
        let slept = self.agent.ok("hibernate", hibernate).await;
        if !before.is_null() {
            // It slept already.
            return assert_eq!(slept["checkpoint"]["checkpoint"], before);
        }
        self.known[at].gone_from_memory();
        self.mark(at, &name(&slept["checkpoint"]), true, false);
        // Some sleep on.
        if self.seed.below(2) == 0 {
            self.run(at, "pass", Namespace::clone).await;
        }
    }

    async fn kill_worker(&mut self, at: usize) {
        let session = self.known[at].session.clone();
        let Some(pid) = info(&mut self.agent, &session).await["worker"]["pid"].as_u64() else { return };
        process::signal(u32::try_from(pid).unwrap(), Signal::KILL);
        process::ended(u32::try_from(pid).unwrap()).await;
        self.done.push(format!("the worker of {session} is killed"));
        self.goes_on_without_its_worker(at).await;
    }

    /// The next reply says where the variables are from, or there are none.
    async fn goes_on_without_its_worker(&mut self, at: usize) {
        let known = &mut self.known[at];
        (known.in_a_row, known.is_at) = (0, None);
        known.keys += 1;
        let (session, key) = (known.session.clone(), format!("{}-{}", known.session, known.keys));
        let asked = self.agent.execute(&session, &key, SHOW).await;
        let reply = self.agent.reply(&asked).await;
        let shown = text(&self.agent.events(&asked));
        self.done.push(format!("{session} goes on: {} {:?}: {shown}", reply.content, told(&reply)));
        self.known[at].cells += 1;
        if reply.content["status"] != "ok" {
            // It went with the worker.
            return self.lost(at, &reply.content.clone(), told(&reply)).await;
        }
        let known = &mut self.known[at];
        known.cells -= 1;
        let maybe =
            told(&reply).map_or_else(|| vec![Namespace::default()], |restored| known.claimed(&restored));
        let Some(now) = maybe.into_iter().find(|maybe| maybe.shown() == shown) else {
            self.wrong("that is not what was told");
        };
        known.is_now(now.clone());
        known.cells += 1;
        known.is_now(now);
    }

    async fn kill_server(&mut self, with_workers: bool) {
        let mut workers = Vec::new();
        for known in &self.known {
            workers.push(info(&mut self.agent, &known.session).await["worker"]["pid"].as_u64());
        }
        self.serve.kill().await;
        if with_workers {
            for pid in workers.iter().flatten() {
                process::signal(u32::try_from(*pid).unwrap(), Signal::KILL);
                process::ended(u32::try_from(*pid).unwrap()).await;
            }
        }
        self.serve.start_again().await;
        self.agent = self.serve.agent("a").await;
        self.done.push(format!("the server is killed, with its workers {with_workers}: {workers:?}"));
        for (at, worker) in workers.into_iter().enumerate() {
            self.known[at].gone_from_memory();
            if with_workers && worker.is_some() {
                self.goes_on_without_its_worker(at).await;
            } else {
                self.run(at, "pass", Namespace::clone).await;
            }
        }
    }

    async fn step(&mut self) {
        let at = self.seed.below(self.known.len());
        match self.seed.below(24) {
            0 | 1 => self.take(at, false).await,
            2 => self.take(at, true).await,
            3..=5 => self.restore(at).await,
            6..=8 => self.undo(at).await,
            9 => self.fork(at).await,
            10 => self.drop_one(at).await,
            11 => self.hibernate(at).await,
            12 => self.kill_worker(at).await,
            13 if self.seed.below(2) == 0 => {
                let with_workers = self.seed.below(2) == 0;
                self.kill_server(with_workers).await;
            }
            14 => self.run(at, "a = -1; import os; os.kill(os.getpid(), 9)", Namespace::clone).await,
            _ => {
                let mut then = self.known[at].now.clone();
                let code = then.change(&mut self.seed);
                self.run(at, &code, |_| then.clone()).await;
            }
        }
    }
}

async fn histories(numbers: std::ops::Range<u64>, steps: usize) {
    for number in numbers {
        let mut world = World::new(number).await;
        for _ in 0..steps {
            world.step().await;
        }
        let World { serve, agent, .. } = world;
        drop(agent);
        ends_clean(serve).await;
    }
}

#[tokio::test]
async fn whatever_is_said_of_the_variables_of_random_sessions_is_so() {
    histories(0..4, 60).await;
}

#[tokio::test]
#[ignore = "minutes"]
async fn whatever_is_said_of_the_variables_of_many_random_sessions_is_so() {
    histories(100..130, 150).await;
}

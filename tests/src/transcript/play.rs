//! Plays a page against a server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use super::pattern::{Captures, Pattern};
use super::script::{Script, Step};
use crate::agents::{Agent, Got, Place};

/// No answer of these conversations takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Plays a page. `name` is its file, for the report.
///
/// # Errors
/// What is not as the page says: where, what was expected, and what came instead.
pub async fn play(name: &str, page: &str, place: &Place) -> Result<(), String> {
    let script = Script::parse(page).map_err(|why| format!("{name}: {why}"))?;
    let mut play = Play { place, known: Captures::new(), clients: BTreeMap::new(), current: String::new() };
    for line in script.lines {
        play.step(line.step).await.map_err(|why| format!("{name}:{}: {why}", line.number))?;
    }
    play.end().await.map_err(|why| format!("{name}, at its end: {why}"))
}

struct Play<'a> {
    place: &'a Place,
    known: Captures,
    clients: BTreeMap<String, Client>,
    current: String,
}

struct Client {
    agent: Agent,
    /// The id of its last request.
    last: String,
    /// Ids of requests, by what the page calls them.
    labels: BTreeMap<String, String>,
    /// Those of which whatever else comes does not matter.
    ignored: BTreeSet<String>,
}

/// How many of these come depends on when one looks.
const SESSION_STATUS: &str = "session_status";

/// The row of messages that one belongs to: the id of a request, or nothing.
fn row(got: &Got) -> &str {
    match got.content["subscription"].as_str() {
        // The reply to `credit` and `unsubscribe` may name it as well.
        _ if is_unasked(&got.msg_type) => "",
        Some(subscription) if !got.msg_type.ends_with("_reply") => subscription,
        _ => &got.parent,
    }
}

fn is_unasked(msg_type: &str) -> bool {
    matches!(msg_type, "call" | "session_detached" | SESSION_STATUS)
}

impl Play<'_> {
    async fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Client(name) => self.client(name).await,
            Step::HangUp => {
                let client = self.clients.remove(&self.current).ok_or("it has hung up already")?;
                client.end().await
            }
            Step::Send { label, msg_type, content } => {
                let content = content.fill(&self.known)?;
                let client = self.current()?;
                client.last = client.agent.send(&msg_type, content).await;
                if !label.is_empty() {
                    client.labels.insert(label, client.last.clone());
                }
                Ok(())
            }
            Step::Whatever { label } => {
                let client = self.current()?;
                let id = client.id(&label)?;
                client.ignored.insert(id);
                Ok(())
            }
            Step::Expect { label, msg_type, content } => self.expect(&label, &msg_type, &content).await,
        }
    }

    async fn client(&mut self, name: String) -> Result<(), String> {
        if !self.clients.contains_key(&name) {
            let agent =
                Agent::try_connect(self.place, &name).await.ok_or("the server takes no connection")?;
            let (labels, ignored) = (BTreeMap::new(), BTreeSet::new());
            self.clients.insert(name.clone(), Client { agent, last: String::new(), labels, ignored });
        }
        self.current = name;
        Ok(())
    }

    fn current(&mut self) -> Result<&mut Client, String> {
        self.clients.get_mut(&self.current).ok_or_else(|| format!("{} has hung up", self.current))
    }

    async fn expect(&mut self, label: &str, msg_type: &str, content: &Pattern) -> Result<(), String> {
        let client = self.clients.get_mut(&self.current).ok_or("it has hung up")?;
        let id = if is_unasked(msg_type) { String::new() } else { client.id(label)? };
        let coming = client.agent.try_take("the next message", |got| row(got) == id);
        let Ok(got) = tokio::time::timeout(PATIENCE, coming).await else {
            return Err(format!("`{msg_type}` never came{}", client.aside()));
        };
        let got = got.ok_or_else(|| format!("the server closed the connection before `{msg_type}`"))?;
        let mut known = self.known.clone();
        let mut wrong = content.differences(&got.content, &mut known);
        if got.msg_type != msg_type {
            wrong.insert(0, format!("expected `{msg_type}`, got `{}`", got.msg_type));
        }
        if wrong.is_empty() {
            self.known = known;
            return Ok(());
        }
        Err(format!("{}\n  it was {}: {:#}{}", wrong.join("\n  "), got.msg_type, got.content, client.aside()))
    }

    async fn end(self) -> Result<(), String> {
        for (name, client) in self.clients {
            client.end().await.map_err(|why| format!("client {name}: {why}"))?;
        }
        Ok(())
    }
}

impl Client {
    fn id(&self, label: &str) -> Result<String, String> {
        match (label, self.last.as_str()) {
            ("", "") => Err("no request was sent yet".to_owned()),
            ("", last) => Ok(last.to_owned()),
            _ => self
                .labels
                .get(label)
                .cloned()
                .ok_or(format!("no request of this client is called `{label}`")),
        }
    }

    /// What is there and was not asked for yet.
    fn aside(&self) -> String {
        let mut text = String::new();
        for got in self.agent.aside() {
            let _ = write!(text, "\n  aside: {got:?}");
        }
        text
    }

    /// Nothing may have come that the page does not mention.
    async fn end(mut self) -> Result<(), String> {
        let ping = self.agent.send("ping", serde_json::json!({})).await;
        let answered = self.agent.try_take("the answer to ping", |got| got.is_reply_to(&ping));
        // One that was never greeted, or that the server cut off, gets another answer, or none.
        let _ = tokio::time::timeout(PATIENCE, answered).await;
        let strange: Vec<String> = self
            .agent
            .aside()
            .iter()
            .filter(|got| !self.ignored.contains(row(got)) && got.msg_type != SESSION_STATUS)
            .map(|got| format!("{got:?}"))
            .collect();
        if strange.is_empty() {
            Ok(())
        } else {
            Err(format!("the page does not mention\n  {}", strange.join("\n  ")))
        }
    }
}

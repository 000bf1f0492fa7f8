//! What a session of a server is, as it is recorded: what people are told of it, and what it is started with again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cob_bridge::SessionRecord;
use cob_protocol::checkpoint::Policy;
use cob_protocol::content::agent::{Environment, ForkRequest, SessionOpen};
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::CheckpointId;
use cob_protocol::json::Json;
use cob_protocol::limits::{INTERRUPT_GRACE_MS, SESSION_TEXT_BYTES_MAX};
use cob_protocol::permissions::Permissions;
use cob_protocol::promise::Durability;
use cob_protocol::resources::Limits;
use serde::{Deserialize, Serialize};

use crate::request::Refusal;

/// See the module. Recorded once, with the beginning of the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSpec {
    /// `python`
    pub language: String,
    /// What its code finds around it, as it was asked for.
    #[serde(default)]
    pub environment: Environment,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// On whose behalf it was opened.
    #[serde(rename = "principal")]
    pub owner: String,
    /// Milliseconds without an execution after which it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// Milliseconds between an interrupt and the end by force; 0: it is never ended by force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt_grace_ms: Option<u64>,
    /// How safe its records are before anybody is told, unless a request says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// Its owner's name for the request that opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// A hash of that request: the key names no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// What it does about checkpoints.
    #[serde(default)]
    pub checkpoints: Policy,
    /// The checkpoint of another session where it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<CheckpointId>,
    /// The program that was found for it.
    #[serde(default)]
    pub program: PathBuf,
    /// Where its code runs.
    #[serde(default)]
    pub directory: PathBuf,
}

impl SessionSpec {
    /// What `owner` asks for.
    ///
    /// # Errors
    /// A refusal that names what is wrong with it.
    pub fn asked(open: SessionOpen, owner: &str) -> Result<Self, Refusal> {
        let body = open.idempotency_key.is_some().then(|| digest(&open));
        let limits = match open.limits.as_deref() {
            None => Limits::default(),
            Some(text) => Limits::parse(text)
                .map_err(|error| Refusal::new(ErrorCode::InvalidLimit, error.to_string()))?,
        };
        check_texts(open.name.as_ref(), open.idempotency_key.as_ref())?;
        if open.idle_timeout_ms == Some(0) {
            let why = "`idle_timeout_ms` must be more than 0; leave it out for a session that stays";
            return Err(Refusal::new(ErrorCode::BadRequest, why));
        }
        check_variables(&open.environment)?;
        check_permissions(&open.language, open.environment.permissions.as_ref())?;
        Ok(Self {
            language: open.language,
            environment: open.environment,
            limits,
            name: open.name,
            owner: owner.to_owned(),
            idle_timeout_ms: open.idle_timeout_ms,
            interrupt_grace_ms: open.interrupt_grace_ms,
            durability: open.durability,
            idempotency_key: open.idempotency_key,
            body,
            checkpoints: Policy::default(),
            forked_from: None,
            program: PathBuf::new(),
            directory: PathBuf::new(),
        })
    }

    /// Those that `owner` wants to begin where the session of this one stands: the same but for their names. Program,
    /// folder and the checkpoint they come of are not known yet.
    ///
    /// # Errors
    /// A refusal that names what is wrong with it.
    pub(crate) fn forked(&self, fork: &ForkRequest, owner: &str) -> Result<Vec<Self>, Refusal> {
        check_texts(fork.name.as_ref(), fork.idempotency_key.as_ref())?;
        let body = fork_body(fork);
        let name = fork.name.as_ref().or(self.name.as_ref());
        let named = |number: usize| match (name, fork.name.is_some() && fork.count == 1) {
            (Some(name), true) => Some(name.clone()),
            (Some(name), false) => Some(format!("{name}-{number}")),
            (None, _) => None,
        };
        let one = |number| Self {
            name: named(number),
            owner: owner.to_owned(),
            idempotency_key: fork.idempotency_key.clone(),
            body: body.clone(),
            ..self.clone()
        };
        Ok((1..=fork.count).map(one).collect())
    }

    /// What was recorded of a session; `None` when it is not one of a server.
    #[must_use]
    pub fn of(record: &SessionRecord) -> Option<Self> {
        record.about.read().ok()
    }

    /// The record.
    #[must_use]
    pub fn about(&self) -> Json {
        Json::of(self).unwrap_or_default()
    }

    /// Who named it how, if it was named.
    pub(crate) fn key(&self) -> Option<(String, String)> {
        Some((self.owner.clone(), self.idempotency_key.clone()?))
    }

    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout_ms.map(Duration::from_millis)
    }

    pub(crate) fn interrupt_grace(&self) -> Option<Duration> {
        let grace = Duration::from_millis(self.interrupt_grace_ms.unwrap_or(INTERRUPT_GRACE_MS));
        (!grace.is_zero()).then_some(grace)
    }

    /// What its executor is told beside its environment.
    pub(crate) fn options(&self) -> Json {
        match &self.environment.permissions {
            Some(permissions) => Json::from(serde_json::json!({ "permissions": permissions })),
            None => Json::object(),
        }
    }

    /// The working directory that was asked for, which must be there.
    pub(crate) fn named_directory(&self) -> Result<Option<&Path>, Refusal> {
        let Some(named) = self.environment.cwd.as_deref().map(Path::new) else { return Ok(None) };
        let wrong = |why: &str| {
            let why = format!("the working directory `{}` {why}", named.display());
            Err(Refusal::new(ErrorCode::BadRequest, why))
        };
        match named.metadata() {
            _ if !named.is_absolute() => wrong("must be named from the root on"),
            Ok(found) if found.is_dir() => Ok(Some(named)),
            Ok(_) => wrong("is no folder"),
            Err(error) => wrong(&format!("cannot be used: {error}")),
        }
    }
}

/// Variables that the system would not take.
fn check_variables(environment: &Environment) -> Result<(), Refusal> {
    for (name, value) in &environment.env {
        let is_name = !name.is_empty() && !name.contains(['=', '\0']);
        if !is_name || value.contains('\0') {
            let why = format!("`{}` cannot be a variable of the environment", name.escape_default());
            return Err(Refusal::new(ErrorCode::BadRequest, why));
        }
    }
    Ok(())
}

/// Only one language lets cob decide what its code may reach.
fn check_permissions(language: &str, permissions: Option<&Permissions>) -> Result<(), Refusal> {
    let Some(permissions) = permissions else { return Ok(()) };
    if !asks_permission(language) {
        let why = format!(
            "`permissions` are for sessions in JavaScript; code in {language} may do what the user of the server may"
        );
        return Err(Refusal::new(ErrorCode::BadRequest, why));
    }
    permissions.check().map_err(|error| Refusal::new(ErrorCode::BadRequest, error.to_string()))
}

/// Whether code in this language reaches only what it is permitted.
pub(crate) fn asks_permission(language: &str) -> bool {
    language == "javascript"
}

fn check_texts(name: Option<&String>, key: Option<&String>) -> Result<(), Refusal> {
    for (what, text) in [("name", name), ("idempotency_key", key)] {
        if text.is_some_and(|text| text.is_empty() || text.len() > SESSION_TEXT_BYTES_MAX) {
            let why = format!("`{what}` must have 1 to {SESSION_TEXT_BYTES_MAX} bytes");
            return Err(Refusal::new(ErrorCode::BadRequest, why));
        }
    }
    Ok(())
}

/// What tells one request to open a session from another.
fn digest(open: &SessionOpen) -> String {
    let SessionOpen { language, environment, limits, name, .. } = open;
    let rest = (open.idle_timeout_ms, open.interrupt_grace_ms, open.durability);
    let asked = (language, environment, limits, name, rest);
    // As another client writes it; and without it, as it was before there were any.
    let mut checkpoints = open.checkpoints.as_ref().and_then(|asked| asked.read::<serde_json::Value>().ok());
    // The order of its keys says nothing; what keeps it depends on who else is built into this program.
    checkpoints.iter_mut().for_each(serde_json::Value::sort_all_objects);
    hash_of(match checkpoints {
        None => Json::of(&asked),
        Some(checkpoints) => Json::of(&(asked, checkpoints)),
    })
}

/// What tells one request to fork from another, and from one to open a session, if it has a key.
pub(crate) fn fork_body(fork: &ForkRequest) -> Option<String> {
    let ForkRequest { session_id, checkpoint, count, name, force, idempotency_key } = fork;
    let text = Json::of(&("fork", session_id, checkpoint, count, name, force));
    idempotency_key.is_some().then(|| hash_of(text))
}

fn hash_of(text: Result<Json, serde_json::Error>) -> String {
    hex::encode(cob_protocol::signing::body_hash(text.unwrap_or_default().as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(content: serde_json::Value) -> Result<SessionSpec, Refusal> {
        SessionSpec::asked(serde_json::from_value(content).unwrap(), "ann")
    }

    #[test]
    fn what_is_recorded_is_what_was_asked_for() {
        let spec = asked(json!({
            "environment": { "cwd": "/", "env": { "A": "1" } }, "limits": "memory=2G,time=30s", "name": "n",
            "idle_timeout_ms": 5, "interrupt_grace_ms": 0, "durability": "power", "idempotency_key": "k",
        }))
        .unwrap();
        let record = SessionRecord::new(
            cob_protocol::ids::SessionId(7),
            spec.about(),
            cob_protocol::time::Timestamp::from_micros(0),
        );
        assert_eq!(SessionSpec::of(&record).unwrap(), spec);
        assert_eq!(spec.key(), Some(("ann".to_owned(), "k".to_owned())));
        assert_eq!(spec.interrupt_grace(), None);
        assert_eq!(spec.idle_timeout(), Some(Duration::from_millis(5)));
        assert!(spec.limits.memory_bytes.is_some());
    }

    #[test]
    fn one_key_with_another_wish_is_told_apart() {
        let body = |content| asked(content).unwrap().body;
        let first = body(json!({ "idempotency_key": "k", "name": "a" }));
        assert_eq!(first, body(json!({ "name": "a", "idempotency_key": "other" })));
        assert_ne!(first, body(json!({ "idempotency_key": "k", "name": "b" })));
        assert_eq!(body(json!({})), None);
        let wish =
            |checkpoints| body(json!({ "idempotency_key": "k", "name": "a", "checkpoints": checkpoints }));
        assert_ne!(first, wish(json!("auto")));
        assert_ne!(wish(json!("off")), wish(json!("auto")));
        assert_eq!(wish(json!({ "mode": "auto", "keep": 2 })), wish(json!({ "keep": 2, "mode": "auto" })));
    }

    #[test]
    fn branches_are_as_their_parent_but_for_their_names() {
        let parent = asked(json!({ "name": "p", "limits": "memory=2G", "idempotency_key": "p" })).unwrap();
        let forked = |content| {
            let fork: ForkRequest = serde_json::from_value(content).unwrap();
            parent.forked(&fork, "bob").unwrap()
        };
        let names = |specs: &[SessionSpec]| {
            specs.iter().map(|spec| spec.name.clone().unwrap_or_default()).collect::<Vec<_>>()
        };
        let two = forked(json!({ "session_id": "s1", "count": 2, "idempotency_key": "k" }));
        assert_eq!(names(&two), ["p-1", "p-2"]);
        assert_eq!(two[0].key(), Some(("bob".to_owned(), "k".to_owned())));
        assert_eq!((&two[1].body, &two[1].limits), (&two[0].body, &parent.limits));
        let other = forked(json!({ "session_id": "s2", "count": 2, "idempotency_key": "k" }));
        assert_ne!(two[0].body, other[0].body);
        assert_eq!(names(&forked(json!({ "session_id": "s1", "name": "q" }))), ["q"]);
        assert_eq!(names(&forked(json!({ "session_id": "s1", "name": "q", "count": 2 }))), ["q-1", "q-2"]);
        let fork: ForkRequest = serde_json::from_value(json!({ "session_id": "s1", "name": "" })).unwrap();
        assert!(parent.forked(&fork, "bob").is_err());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refused = |content, code, part: &str| {
            let refusal = asked(content).unwrap_err();
            assert_eq!(refusal.code, code);
            assert!(refusal.why.contains(part), "{}", refusal.why);
        };
        refused(json!({ "limits": "memory=much" }), ErrorCode::InvalidLimit, "memory");
        refused(json!({ "name": "" }), ErrorCode::BadRequest, "name");
        refused(json!({ "idle_timeout_ms": 0 }), ErrorCode::BadRequest, "idle_timeout_ms");
        refused(json!({ "environment": { "env": { "A=B": "" } } }), ErrorCode::BadRequest, "A=B");
        let permissions = json!({ "permissions": { "read": ["."] } });
        refused(json!({ "environment": permissions }), ErrorCode::BadRequest, "JavaScript");
        let permissions = json!({ "permissions": { "read": [""] } });
        refused(
            json!({ "language": "javascript", "environment": permissions }),
            ErrorCode::BadRequest,
            "cannot be the path",
        );
    }

    #[test]
    fn what_is_permitted_is_recorded_and_told_to_the_executor() {
        let permissions = json!({ "read": ["/data"], "write": ["."] });
        let spec = asked(json!({
            "language": "javascript", "environment": { "permissions": permissions }, "idempotency_key": "k",
        }))
        .unwrap();
        let told: serde_json::Value = spec.options().read().unwrap();
        assert_eq!(told, json!({ "permissions": permissions }));
        let again: SessionSpec = spec.about().read().unwrap();
        assert_eq!(again.options(), spec.options());
        let fork: ForkRequest = serde_json::from_value(json!({ "session_id": "s1" })).unwrap();
        assert_eq!(spec.forked(&fork, "bob").unwrap()[0].options(), spec.options());
        let none = asked(json!({ "language": "javascript", "idempotency_key": "k" })).unwrap();
        assert_ne!(none.body, spec.body);
        assert_eq!(none.options(), Json::object());
    }

    #[test]
    fn a_directory_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let directory = |cwd: &Path| {
            let spec = asked(json!({ "environment": { "cwd": cwd } })).unwrap();
            spec.named_directory().map(|found| found.map(Path::to_owned))
        };
        assert_eq!(directory(folder.path()).unwrap(), Some(folder.path().to_owned()));
        for wrong in [folder.path().join("none"), PathBuf::from("here")] {
            assert_eq!(directory(&wrong).unwrap_err().code, ErrorCode::BadRequest);
        }
        assert_eq!(asked(json!({})).unwrap().named_directory().unwrap(), None);
    }
}

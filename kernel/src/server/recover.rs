//! A server goes on where the last one stopped: every session that was not closed is taken up again, and every promise
//! with a deadline is looked after.

use std::collections::HashMap;
use std::sync::Arc;

use cob_bridge::{BridgeError, Entry, SessionRecord, Write};
use cob_protocol::content::ErrorReply;
use cob_protocol::error::ErrorCode;
use cob_protocol::event::ErrorText;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::limits::{HISTORY_ENTRIES_MAX, RECOVERIES_MAX};
use cob_protocol::promise::{Durability, SessionState, Settlement, State};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::life::Sessions;
use super::own::sweep;
use super::spec::SessionSpec;
use crate::calls::{Answered, CallEnd};
use crate::recovery::Past;
use crate::request::Command;

impl Sessions {
    /// Takes up every session that was not closed; says how many. Before anybody can reach the server.
    ///
    /// # Errors
    /// [`BridgeError`] when the store cannot be read. What was begun by then goes on.
    pub async fn recover(&self) -> Result<usize, BridgeError> {
        let mut history: HashMap<SessionId, Vec<(SessionId, Entry)>> = HashMap::new();
        for (session, entry) in self.bridge().history(HISTORY_ENTRIES_MAX).await? {
            history.entry(session).or_default().push((session, entry));
        }
        let turns = Arc::new(Semaphore::new(RECOVERIES_MAX));
        let mut under_way = JoinSet::new();
        let mut open = Vec::new();
        for record in self.bridge().sessions().await? {
            self.used(record.session);
            let is_open = record.closed_at.is_none();
            let Some(spec) = SessionSpec::of(&record) else {
                if is_open {
                    tracing::warn!(session = %record.session, "this is no session of a server; it is left alone");
                    open.push(record.session);
                }
                continue;
            };
            self.known(record.session, &spec, is_open);
            if !is_open {
                continue;
            }
            open.push(record.session);
            let history = history.remove(&record.session).unwrap_or_default();
            let (sessions, turns) = (self.clone(), Arc::clone(&turns));
            under_way.spawn(async move {
                // It is never closed.
                let _turn = turns.acquire().await;
                sessions.take_up(record, spec, history).await
            });
        }
        let (folder, next) = (self.settings().folder.clone(), self.next());
        // A folder may hold much, and nobody waits for it: sessions are opened meanwhile.
        let is_open = move |session| session >= next || open.contains(&session);
        drop(tokio::task::spawn_blocking(move || sweep(&folder, is_open)));
        let mut count = 0;
        while let Some(taken) = under_way.join_next().await {
            // None of them panics.
            let Ok(taken) = taken else { continue };
            taken?;
            count += 1;
        }
        Ok(count)
    }

    async fn take_up(
        &self,
        record: SessionRecord,
        spec: SessionSpec,
        history: Vec<(SessionId, Entry)>,
    ) -> Result<(), BridgeError> {
        let (id, created_at) = (record.session, record.created_at);
        let own = self.own(id);
        if let Err(error) = own.make() {
            tracing::warn!(session = %id, %error, "the session's folder cannot be made");
        }
        let program = self.languages().program(&spec, &own);
        let past = Past::read(self.bridge(), record).await?.of_branch(spec.forked_from.is_some());
        let config = self.config(id, &spec, program);
        let config = crate::session::Config { past: Some(past), history, ..config };
        drop(self.start(config, &spec, spec.about(), created_at));
        Ok(())
    }

    /// Sees to promises whose deadline passes, for ever: their session ends them, or this if there is none.
    pub async fn watch_deadlines(&self) {
        loop {
            let due = self.bridge().due().await;
            // It is due again only if that end could not be recorded.
            self.bridge().attend(due);
            match self.directory().get(due.session) {
                Some(handle) => {
                    let commands = handle.senders.commands.clone();
                    if let Err(error) = commands.try_send(Command::Overdue(due)) {
                        let command = error.into_inner();
                        // A session that is busy does not hold up the others; one that has ended has settled it.
                        tokio::spawn(async move { commands.send(command).await });
                    }
                }
                None => self.expire(due),
            }
        }
    }

    /// Nobody holds this promise.
    fn expire(&self, due: PromiseId) {
        tracing::warn!(promise = %due, "a promise of no session has passed its deadline");
        let value = match due.call {
            Some(_) => Json::of(&CallEnd { request: 0, answer: Answered::TimedOut, input: None }),
            None => {
                let error = ErrorText::coded(ErrorCode::DeadlinePassed, "the deadline of the request passed");
                Json::of(&ErrorReply::coded(&error, ErrorCode::DeadlinePassed, SessionState::Lost))
            }
        };
        let settlement =
            Settlement::silent(State::RejectedTimedOut, value.unwrap_or_default(), SessionState::Lost);
        drop(self.bridge().submit(Durability::Process, vec![Write::Expire { id: due, settlement }]));
    }
}

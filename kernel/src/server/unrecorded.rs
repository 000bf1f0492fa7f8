//! Executions that have ended although their end could not be recorded: those who wait for them must not wait for ever.

use std::collections::VecDeque;

use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::SESSION_OPEN_MAX;
use tokio::sync::watch;

/// The last ones of a session: more than can be open are never waited for.
#[derive(Debug, Default)]
pub(crate) struct Unrecorded {
    recent: VecDeque<(u64, PromiseId, Json)>,
    /// How many there were.
    count: u64,
}

impl Unrecorded {
    pub(crate) fn add(&mut self, promise: PromiseId, reply: Json) {
        if self.recent.len() >= SESSION_OPEN_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((self.count, promise, reply));
        self.count += 1;
    }

    /// Waits for the reply of a promise, if its end cannot be recorded from now on. What was said earlier does not
    /// count: the end may have been recorded since. Cancel-safe; for ever, if that does not happen.
    pub(crate) fn watch(
        all: &watch::Sender<Self>,
        promise: PromiseId,
    ) -> impl Future<Output = Json> + Send + use<> {
        let mut all = all.subscribe();
        let since = all.borrow_and_update().count;
        async move {
            loop {
                let found = all.borrow_and_update().find(since, promise);
                match found {
                    Some(reply) => return reply,
                    None if all.changed().await.is_err() => std::future::pending().await,
                    None => {}
                }
            }
        }
    }

    fn find(&self, since: u64, promise: PromiseId) -> Option<Json> {
        let newest = self.recent.iter().rev().take_while(|(number, ..)| *number >= since);
        newest.into_iter().find(|(_, id, _)| *id == promise).map(|(.., reply)| reply.clone())
    }
}

#[cfg(test)]
mod tests {
    use cob_protocol::ids::SessionId;

    use super::*;

    #[tokio::test]
    async fn only_what_is_said_from_now_on_counts() {
        let all = watch::Sender::<Unrecorded>::default();
        let promise = PromiseId::execution(SessionId(1), 1);
        let say = |text: &str| {
            let reply = Json::parse(text).unwrap();
            all.send_modify(|all| all.add(promise, reply));
        };
        say("\"old\"");
        let watching = Unrecorded::watch(&all, promise);
        say("\"new\"");
        assert_eq!(watching.await.as_str(), "\"new\"");
    }
}

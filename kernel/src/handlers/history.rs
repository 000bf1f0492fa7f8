//! `history_request`: answered from the kernel's own record, so it works while the interpreter is gone.

use cob_bridge::Entry;
use cob_protocol::content::HistoryRequest;
use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use serde_json::json;

use crate::request::ClientRequest;
use crate::session::Session;

impl Session {
    pub(crate) fn answer_history(&mut self, request: &ClientRequest, body: &HistoryRequest) {
        let entry = |(session, e): (SessionId, &Entry)| {
            if body.output {
                json!([session.0, e.line, [e.source, e.output]])
            } else {
                json!([session.0, e.line, e.source])
            }
        };
        let history: Vec<_> = self.history.query(&body.access).into_iter().map(entry).collect();
        self.reply(request, "history_reply", Json::from(json!({ "status": "ok", "history": history })));
    }
}

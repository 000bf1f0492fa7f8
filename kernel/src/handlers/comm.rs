//! Comms: messages of front ends to code run like cells, and print like them.

use std::collections::BTreeMap;

use cob_protocol::content::{CommInfo, CommInfoReply, CommInfoRequest};
use cob_protocol::frame::{Comm, CommAction};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;

use crate::request::ClientRequest;
use crate::session::{Running, Session};

/// Open comms that are remembered; code that opens more is not stopped, they are only not listed.
const COMMS_MAX: usize = 65_536;

impl Session {
    /// Hands a comm message to the worker.
    pub(crate) async fn comm(&mut self, request: ClientRequest, comm: Comm, promise: PromiseId) {
        match comm.action {
            CommAction::Open => {
                self.open_comm(&comm.comm_id, comm.target_name.as_deref().unwrap_or_default())
            }
            CommAction::Close => {
                self.comms.remove(&comm.comm_id);
            }
            CommAction::Msg => {}
        }
        self.open(&request, promise).await;
        let buffers = request.message.buffers.clone();
        let sent = self.send(comm.into(), buffers);
        self.begun(Running::new(request, promise, None), sent).await;
    }

    pub(crate) fn open_comm(&mut self, comm_id: &str, target: &str) {
        if self.comms.len() < COMMS_MAX {
            self.comms.insert(comm_id.to_owned(), target.to_owned());
        }
    }

    pub(crate) fn answer_comm_info(&mut self, request: &ClientRequest, body: &CommInfoRequest) {
        let wanted = body.target_name.as_deref();
        let comms: BTreeMap<&str, CommInfo<'_>> = self
            .comms
            .iter()
            .filter(|(_, target)| wanted.is_none_or(|wanted| wanted == target.as_str()))
            .map(|(id, target)| (id.as_str(), CommInfo { target_name: target }))
            .collect();
        let content = Json::of(&CommInfoReply { status: "ok", comms }).unwrap_or_default();
        self.reply(request, "comm_info_reply", content);
    }
}

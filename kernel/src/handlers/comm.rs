//! Comms: messages of front ends to code run like cells, and print like them.

use std::collections::BTreeMap;

use cob_pool::Lane;
use cob_protocol::content::{CommInfo, CommInfoReply, CommInfoRequest};
use cob_protocol::frame::{Comm, CommAction};
use cob_protocol::json::Json;

use crate::dispatch::Promised;
use crate::request::ClientRequest;
use crate::session::{Running, Session};

/// Open comms that are remembered; code that opens more is not stopped, they are only not listed.
const COMMS_MAX: usize = 65_536;

impl Session {
    /// Hands a comm message to the worker.
    pub(crate) fn comm(&mut self, request: ClientRequest, comm: Comm, promised: Promised) {
        match comm.action {
            CommAction::Open => {
                self.open_comm(&comm.comm_id, comm.target_name.as_deref().unwrap_or_default())
            }
            CommAction::Close => {
                self.comms.remove(&comm.comm_id);
            }
            CommAction::Msg => {}
        }
        self.open(&request, promised);
        let buffers = request.message.buffers.clone();
        let comm = Comm { execution: promised.id.execution, ..comm };
        self.send(comm.into(), buffers, Lane::Data);
        self.begun(Running::new(request, promised, None));
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

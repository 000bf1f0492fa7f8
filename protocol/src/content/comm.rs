//! Comms: `comm_open`, `comm_msg`, `comm_close`, `comm_info_request`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::Json;

/// `comm_open`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CommOpen {
    /// The comm.
    pub comm_id: String,
    /// Who shall answer on the other side.
    pub target_name: String,
    /// A module that provides the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_module: Option<String>,
    /// The message.
    #[serde(default)]
    pub data: Json,
}

/// `comm_msg`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CommMsg {
    /// The comm.
    pub comm_id: String,
    /// The message.
    #[serde(default)]
    pub data: Json,
}

/// `comm_close`
pub type CommClose = CommMsg;

/// `comm_info_request`
#[derive(Clone, Debug, Default, Deserialize)]
pub struct CommInfoRequest {
    /// Only comms of this target.
    #[serde(default)]
    pub target_name: Option<String>,
}

/// One open comm.
#[derive(Debug, Serialize)]
pub struct CommInfo<'a> {
    /// Its target.
    pub target_name: &'a str,
}

/// `comm_info_reply`
#[derive(Debug, Serialize)]
pub struct CommInfoReply<'a> {
    /// `ok`
    pub status: &'static str,
    /// Open comms by id.
    pub comms: BTreeMap<&'a str, CommInfo<'a>>,
}

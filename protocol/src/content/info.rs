//! `kernel_info_reply`, `connect_reply`.

use serde::Serialize;

use crate::json::Json;
use crate::promise::Durability;

/// `kernel_info_reply`
#[derive(Debug, Serialize)]
pub struct KernelInfoReply<'a> {
    /// `ok`
    pub status: &'static str,
    /// Of the messaging protocol.
    pub protocol_version: &'static str,
    /// `cob`
    pub implementation: &'static str,
    /// Version of cob.
    pub implementation_version: &'static str,
    /// As the executor says.
    pub language_info: &'a Json,
    /// As the executor says.
    pub banner: &'a str,
    /// The debug adapter protocol is not offered yet.
    pub debugger: bool,
    /// JEP 92: only what works.
    pub supported_features: &'static [&'static str],
    /// For the help menu.
    pub help_links: &'static [HelpLink],
    /// Ours.
    pub cob: SessionInfo<'a>,
}

/// What only cob tells of a session.
#[derive(Debug, Serialize)]
pub struct SessionInfo<'a> {
    /// Its name in the store.
    pub session: &'a str,
    /// How safe its records are before anybody is told, unless a request says otherwise.
    pub durability: Durability,
    /// What is pending, with ages; commits; what waits for the writer; the health of the store: a JSON object.
    pub records: &'a Json,
    /// Where its worker came from: `warm`, `forked` or `cold`.
    pub worker: &'a str,
    /// Its limits and what enforces each: an array of objects with `limit`, `value` and `by`.
    pub limits: &'a Json,
    /// What confines it: sentences.
    pub confinement: &'a [String],
}

/// An entry of the help menu.
#[derive(Debug, Serialize)]
pub struct HelpLink {
    /// What it says.
    pub text: &'static str,
    /// Where it leads.
    pub url: &'static str,
}

/// `connect_reply`: the ports, for TCP connections.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ConnectReply {
    /// `ok`
    pub status: &'static str,
    /// Shell.
    pub shell_port: u16,
    /// Iopub.
    pub iopub_port: u16,
    /// Stdin.
    pub stdin_port: u16,
    /// Control.
    pub control_port: u16,
    /// Heartbeat.
    pub hb_port: u16,
}

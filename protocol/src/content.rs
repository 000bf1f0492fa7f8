//! Bodies of the Jupyter messages, one family per file, with Jupyter's own field names.
//!
//! Requests are read generously (every field a real client leaves out has the specification's default); what we
//! send is complete.

pub mod agent;
mod comm;
mod control;
mod execute;
mod history;
mod info;
mod introspect;
mod options;
mod output;

pub use comm::{CommClose, CommInfo, CommInfoReply, CommInfoRequest, CommMsg, CommOpen};
pub use control::{HostMemory, InterruptRequest, ShutdownReply, ShutdownRequest, UsageReply};
pub use execute::{
    AbortedReply, ErrorReply, ExecuteInput, ExecuteReply, ExecuteRequest, InputReply, InputRequest,
};
pub use history::{HistoryAccess, HistoryRequest};
pub use info::{ConnectReply, HelpLink, KernelInfoReply, SessionInfo};
pub use introspect::{CompleteRequest, InspectRequest, IsCompleteRequest};
pub use options::ExecuteOptions;
pub use output::{ClearOutputContent, ExecutionState, StatusContent, StreamContent};

//! **The table** of message types: name, what its body is, where it travels, in which direction.
//!
//! The protocol page of the documentation is generated from it ([`table`]). A request that is not here is
//! unknown; a request that is here cannot be forgotten by the kernel, because [`Request`] is a closed enum.

use thiserror::Error;

use crate::content::agent;
use crate::content::{
    CommClose, CommInfoRequest, CommMsg, CommOpen, CompleteRequest, ExecuteRequest, HistoryRequest,
    InputReply, InspectRequest, InterruptRequest, IsCompleteRequest, ShutdownRequest,
};
use crate::message::Channel::{self, Control, Iopub, Shell, Stdin};

/// A request without content.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct Empty {}

/// Why the content of a message could not be read.
#[derive(Debug, Error)]
pub enum RequestError {
    /// No row of the table.
    #[error("message type `{0}` is unknown")]
    Unknown(String),
    /// A row, but on other channels.
    #[error("`{name}` does not belong on the {} channel", channel.as_str())]
    WrongChannel {
        /// The message type.
        name: &'static str,
        /// Where it came.
        channel: Channel,
    },
    /// The content is not what its row says.
    #[error("the content of `{name}` cannot be read: {source}")]
    Content {
        /// The message type.
        name: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

macro_rules! requests {
    ($($kind:ident($body:ty) $name:literal => $reply:literal on $channels:expr, $doc:literal;)*) => {
        /// What a client can ask, read.
        #[derive(Clone, Debug)]
        pub enum Request { $(#[doc = concat!("`", $name, "`: ", $doc)] $kind($body),)* }

        impl Request {
            /// Reads the content of a message that came on `channel`.
            ///
            /// # Errors
            /// [`RequestError`] when there is no such type, not on this channel, or with other content.
            pub fn read(msg_type: &str, channel: Channel, content: &[u8]) -> Result<Self, RequestError> {
                match msg_type {
                    $($name => {
                        let channels: &[Channel] = &$channels;
                        if !channels.contains(&channel) {
                            return Err(RequestError::WrongChannel { name: $name, channel });
                        }
                        serde_json::from_slice(content)
                            .map(Self::$kind)
                            .map_err(|source| RequestError::Content { name: $name, source })
                    })*
                    other => Err(RequestError::Unknown(other.to_owned())),
                }
            }

            /// The type of the reply; empty when there is none.
            #[must_use]
            pub fn reply_type(&self) -> &'static str {
                match self { $(Self::$kind(_) => $reply,)* }
            }
        }

        /// The reply type of a request type; `None` when it is unknown or has no reply.
        #[must_use]
        pub fn reply_type(msg_type: &str) -> Option<&'static str> {
            match msg_type { $($name => Some($reply).filter(|reply| !reply.is_empty()),)* _ => None }
        }

        const REQUESTS: &[Row] = &[$(Row { name: $name, reply: $reply, channels: &$channels, doc: $doc }),*];
    };
}

requests! {
    Execute(ExecuteRequest) "execute_request" => "execute_reply" on [Shell], "Run code.";
    Complete(CompleteRequest) "complete_request" => "complete_reply" on [Shell], "Propose completions.";
    Inspect(InspectRequest) "inspect_request" => "inspect_reply" on [Shell], "Describe what stands at the cursor.";
    IsComplete(IsCompleteRequest) "is_complete_request" => "is_complete_reply" on [Shell], "Is this code whole?";
    History(HistoryRequest) "history_request" => "history_reply" on [Shell], "Earlier input.";
    CommOpen(CommOpen) "comm_open" => "" on [Shell, Control], "Open a comm.";
    CommMsg(CommMsg) "comm_msg" => "" on [Shell, Control], "Send over a comm.";
    CommClose(CommClose) "comm_close" => "" on [Shell, Control], "Close a comm.";
    CommInfo(CommInfoRequest) "comm_info_request" => "comm_info_reply" on [Shell, Control], "Which comms are open?";
    KernelInfo(Empty) "kernel_info_request" => "kernel_info_reply" on [Shell, Control], "Who are you?";
    Connect(Empty) "connect_request" => "connect_reply" on [Shell, Control], "Which ports?";
    Shutdown(ShutdownRequest) "shutdown_request" => "shutdown_reply" on [Shell, Control], "End the kernel.";
    Interrupt(InterruptRequest) "interrupt_request" => "interrupt_reply" on [Control], "Stop the running code.";
    Usage(Empty) "usage_request" => "usage_reply" on [Shell, Control], "Memory and processor use.";
    Input(InputReply) "input_reply" => "" on [Stdin], "The answer to `input_request`.";
}

/// How a request of an agent is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Before everything else; it waits for no session's queue.
    Control,
    /// In its turn.
    Data,
}

macro_rules! agent_requests {
    ($($kind:ident($body:ty) $name:literal => $reply:literal $lane:ident, $doc:literal;)*) => {
        /// What an agent can ask of a server, read.
        #[derive(Clone, Debug)]
        pub enum AgentRequest { $(#[doc = concat!("`", $name, "`: ", $doc)] $kind($body),)* }

        impl AgentRequest {
            /// Reads the content of a message.
            ///
            /// # Errors
            /// [`RequestError`] when there is no such type, or with other content.
            pub fn read(msg_type: &str, content: &[u8]) -> Result<Self, RequestError> {
                match msg_type {
                    $($name => serde_json::from_slice(content)
                        .map(Self::$kind)
                        .map_err(|source| RequestError::Content { name: $name, source }),)*
                    other => Err(RequestError::Unknown(other.to_owned())),
                }
            }

            /// The type of the reply; empty when there is none.
            #[must_use]
            pub fn reply_type(&self) -> &'static str {
                match self { $(Self::$kind(_) => $reply,)* }
            }
        }

        /// The reply type and the lane of a request type of agents.
        #[must_use]
        pub fn agent_row(msg_type: &str) -> Option<(&'static str, Lane)> {
            match msg_type { $($name => Some(($reply, Lane::$lane)),)* _ => None }
        }

        /// The same name, but from the table: what is counted must not be made up by whoever asks.
        #[must_use]
        pub fn agent_request_name(msg_type: &str) -> Option<&'static str> {
            match msg_type { $($name => Some($name),)* _ => None }
        }

        const AGENT_REQUESTS: &[AgentRow] =
            &[$(AgentRow { name: $name, reply: $reply, lane: Lane::$lane, doc: $doc }),*];
    };
}

struct AgentRow {
    name: &'static str,
    reply: &'static str,
    lane: Lane,
    doc: &'static str,
}

agent_requests! {
    Hello(agent::HelloRequest) "hello_request" => "hello_reply" Control, "Versions and who one is; nothing else is accepted before.";
    Ping(agent::Nothing) "ping" => "ping_reply" Control, "Are you there?";
    SessionOpen(agent::SessionOpen) "session_open" => "session_open_reply" Data, "Begin a session.";
    SessionClose(agent::SessionClose) "session_close" => "session_close_reply" Data, "End a session.";
    SessionList(agent::SessionList) "session_list" => "session_list_reply" Data, "Which sessions are there?";
    SessionInfo(agent::SessionInfoRequest) "session_info" => "session_info_reply" Control, "Everything about one session but its values.";
    SessionAttach(agent::SessionAttach) "session_attach" => "session_attach_reply" Data, "Bind Jupyter channels for a session.";
    SessionDetach(agent::SessionDetach) "session_detach" => "session_detach_reply" Data, "Give them up.";
    ServerInfo(agent::Nothing) "server_info" => "server_info_reply" Control, "What the server holds and does.";
    Metrics(agent::Nothing) "metrics" => "metrics_reply" Control, "The same in Prometheus' text format.";
    ServerHandover(agent::Nothing) "server_handover" => "server_handover_reply" Control, "Make room for the next server; code goes on.";
    Execute(agent::AgentExecute) "execute_request" => "execute_reply" Data, "Run code: `ack` when it is recorded, events as credit allows, the reply when it is settled.";
    Subscribe(agent::Subscribe) "subscribe" => "subscribe_reply" Data, "Replay and follow events.";
    Credit(agent::Credit) "credit" => "" Control, "So many more events.";
    Unsubscribe(agent::Unsubscribe) "unsubscribe" => "unsubscribe_reply" Control, "No more events.";
    PromiseGet(agent::PromiseGet) "promise_get" => "promise_get_reply" Control, "How does it stand?";
    PromiseWait(agent::PromiseWait) "promise_wait" => "promise_wait_reply" Data, "Tell me when it is settled.";
    PromiseList(agent::PromiseList) "promise_list" => "promise_list_reply" Data, "Which promises are there?";
    Answer(agent::AnswerRequest) "answer" => "answer_reply" Control, "The answer to a call.";
    Interrupt(agent::OfSession) "interrupt" => "interrupt_reply" Control, "Stop the running code.";
    Cancel(agent::Cancel) "cancel" => "cancel_reply" Control, "An execution is not wanted any more.";
    Restart(agent::OfSession) "restart" => "restart_reply" Control, "Begin again with a fresh namespace.";
    Checkpoint(agent::TakeCheckpoint) "checkpoint" => "checkpoint_reply" Data, "Keep the session as it is at the next moment without running code.";
    CheckpointList(agent::OfSession) "checkpoint_list" => "checkpoint_list_reply" Control, "Which checkpoints has it?";
    CheckpointDelete(agent::CheckpointDelete) "checkpoint_delete" => "checkpoint_delete_reply" Data, "It is not needed any more.";
    CheckpointExport(agent::CheckpointExport) "checkpoint_export" => "checkpoint_export_reply" Data, "Write a durable one into a file.";
    CheckpointImport(agent::CheckpointImport) "checkpoint_import" => "checkpoint_import_reply" Data, "Take one in from a file.";
    Restore(agent::RestoreRequest) "restore" => "restore_reply" Control, "Go back to a checkpoint, or to before the last executions.";
    Fork(agent::ForkRequest) "fork" => "fork_reply" Data, "Open sessions that begin where this one stands.";
    Hibernate(agent::Hibernate) "hibernate" => "hibernate_reply" Data, "Put the session into the store, and give up its worker.";
    ToolRegister(agent::ToolRegister) "tool_register" => "tool_register_reply" Data, "Offer functions to the code of a session.";
    ToolUnregister(agent::ToolUnregister) "tool_unregister" => "tool_unregister_reply" Data, "Do not offer them any more.";
    ChannelOpen(agent::ChannelOpen) "channel_open" => "channel_open_reply" Data, "Read what code sends into a channel.";
    ChannelData(agent::ChannelData) "channel_data" => "channel_data_reply" Data, "An item for the code.";
    ChannelClose(agent::ChannelClose) "channel_close" => "channel_close_reply" Data, "No more items for the code.";
}

/// Messages that a server sends to agents unasked, or beside a reply.
const AGENT_NOTICES: &[AgentRow] = &[
    notice("ack", Lane::Data, "An execution is recorded: `promise`, `durability`, `joined`."),
    notice("event", Lane::Data, "An output of a subscription; costs one credit."),
    notice("gap", Lane::Data, "Events that the journal has forgotten."),
    notice("execution_began", Lane::Data, "To subscribers of a session: an execution and its code."),
    notice("execution_ended", Lane::Data, "To subscribers of a session: its promise is settled."),
    notice(
        "session_restored",
        Lane::Data,
        "To subscribers of a session: its variables are those of a checkpoint now.",
    ),
    notice("session_status", Lane::Data, "To subscribers of a session: its state."),
    notice("subscription_end", Lane::Data, "Nothing more comes, and why."),
    notice("call", Lane::Data, "Code asks this client: answer by the promise."),
    notice("channel_data", Lane::Data, "An item from the code."),
    notice(
        "error_reply",
        Lane::Data,
        "What is wrong with a message of an unknown type, or of one that has no reply.",
    ),
    notice("session_detached", Lane::Data, "The Jupyter channels of an attachment are closed."),
];

const fn notice(name: &'static str, lane: Lane, doc: &'static str) -> AgentRow {
    AgentRow { name, reply: "", lane, doc }
}

/// The tables of the agent protocol as Markdown, for the documentation.
#[must_use]
pub fn agent_table() -> String {
    let line = |row: &AgentRow| {
        let lane = match row.lane {
            Lane::Control => "control",
            Lane::Data => "data",
        };
        let reply = if row.reply.is_empty() { "–".to_owned() } else { format!("`{}`", row.reply) };
        format!("| `{}` | {lane} | {reply} | {} |\n", row.name, row.doc)
    };
    let head = |title: &str| format!("## {title}\n\n| message | lane | reply | what |\n|---|---|---|---|\n");
    let requests: String = AGENT_REQUESTS.iter().map(line).collect();
    let notices: String = AGENT_NOTICES.iter().map(line).collect();
    format!("{}{requests}\n{}{notices}", head("From agents"), head("To agents"))
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// `msg_type`
    pub name: &'static str,
    /// `msg_type` of the reply; empty when there is none.
    pub reply: &'static str,
    /// Where it travels.
    pub channels: &'static [Channel],
    /// What it is for.
    pub doc: &'static str,
}

/// Messages that the kernel sends unasked.
const BROADCASTS: &[Row] = &[
    row("status", &[Iopub], "Busy before and idle after every request."),
    row("execute_input", &[Iopub], "The code that runs now."),
    row("stream", &[Iopub], "Text on stdout or stderr."),
    row("display_data", &[Iopub], "A rich output."),
    row("update_display_data", &[Iopub], "A rich output that replaces an earlier one."),
    row("execute_result", &[Iopub], "The value of the last expression."),
    row("error", &[Iopub], "The code failed."),
    row("clear_output", &[Iopub], "Remove the output so far."),
    row("comm_open", &[Iopub], "Code opened a comm."),
    row("comm_msg", &[Iopub], "Code sent over a comm."),
    row("comm_close", &[Iopub], "Code closed a comm."),
    row("shutdown_reply", &[Iopub], "The kernel ends."),
    row("iopub_welcome", &[Iopub], "To each new subscription, alone (JEP 65)."),
    row("input_request", &[Stdin], "Code asks the one who ran it."),
];

const fn row(name: &'static str, channels: &'static [Channel], doc: &'static str) -> Row {
    Row { name, reply: "", channels, doc }
}

/// The table as Markdown, for the documentation.
#[must_use]
pub fn table() -> String {
    let line = |row: &Row| {
        let channels: Vec<_> = row.channels.iter().map(|c| c.as_str()).collect();
        let reply = if row.reply.is_empty() { "–".to_owned() } else { format!("`{}`", row.reply) };
        format!("| `{}` | {} | {reply} | {} |\n", row.name, channels.join(", "), row.doc)
    };
    let head =
        |title: &str| format!("## {title}\n\n| message | channel | reply | what |\n|---|---|---|---|\n");
    let requests: String = REQUESTS.iter().map(line).collect();
    let broadcasts: String = BROADCASTS.iter().map(line).collect();
    format!("{}{requests}\n{}{broadcasts}", head("From clients"), head("From the kernel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_clients_leave_fields_out_and_are_understood() {
        for (name, channel, content) in [
            ("execute_request", Shell, r#"{"code":"1"}"#),
            (
                "execute_request",
                Shell,
                r#"{"code":"1","silent":null,"allow_stdin":null,"user_expressions":null}"#,
            ),
            ("complete_request", Shell, r#"{"code":"a","cursor_pos":-1}"#),
            ("history_request", Shell, r#"{"hist_access_type":"tail","n":3,"raw":true,"output":false}"#),
            (
                "history_request",
                Shell,
                r#"{"hist_access_type":"range","session":null,"start":0,"stop":null}"#,
            ),
            ("kernel_info_request", Control, "{}"),
            ("shutdown_request", Control, "{}"),
            ("interrupt_request", Control, "{}"),
            ("comm_info_request", Shell, r#"{"target_name":null}"#),
            ("input_reply", Stdin, r#"{"value":"x","status":"ok"}"#),
        ] {
            assert!(Request::read(name, channel, content.as_bytes()).is_ok(), "{name} {content}");
        }
    }

    #[test]
    fn wrong_content_channel_and_type_are_told_apart() {
        let read = |name, channel, content: &str| Request::read(name, channel, content.as_bytes());
        assert!(matches!(read("execute_request", Shell, "{}"), Err(RequestError::Content { .. })));
        assert!(matches!(read("execute_request", Control, "{}"), Err(RequestError::WrongChannel { .. })));
        assert!(matches!(read("make_coffee", Shell, "{}"), Err(RequestError::Unknown(_))));
    }

    #[test]
    fn every_row_is_in_the_documentation_table() {
        let text = table();
        assert!(REQUESTS.iter().chain(BROADCASTS).all(|row| text.contains(&format!("`{}`", row.name))));
    }
}

//! `cob interrupt`, `cob cancel`, `cob restart`, `cob kill`: what overtakes everything.

use clap::Args;
use cob_protocol::ids::{PromiseId, SessionId};
use serde_json::{Value, json};

use super::remote::{self, Server, ask, say};
use super::{Failure, block_on};

#[derive(Debug, Args)]
pub(crate) struct Interrupt {
    /// The session whose running code is to stop
    #[arg(value_name = "SESSION", value_parser = remote::session)]
    session: SessionId,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The execution (s1.e7): it is taken out of the queue, or interrupted when it runs
    #[arg(value_name = "EXECUTION", value_parser = remote::execution)]
    execution: PromiseId,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// The session that is to begin again, without variables; what runs or waits in it is cancelled
    #[arg(value_name = "SESSION", value_parser = remote::session)]
    session: SessionId,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// The session that is to end; what runs or waits in it is cancelled
    #[arg(value_name = "SESSION", value_parser = remote::session)]
    session: SessionId,
    /// Let what runs and waits come to its end first
    #[arg(long)]
    drain: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn interrupt(options: Interrupt) -> Result<(), Failure> {
    request(&options.server, "interrupt", json!({ "session_id": options.session.to_string() }))?;
    say(format_args!("{} is interrupted", options.session));
    Ok(())
}

pub(crate) fn cancel(options: Cancel) -> Result<(), Failure> {
    let reply = request(&options.server, "cancel", json!({ "promise": options.execution }))?;
    say(format_args!("{} {}", options.execution, became(reply["state"].as_str())));
    Ok(())
}

fn became(stood: Option<&str>) -> &'static str {
    match stood {
        Some("queued") => "is cancelled; nothing of it was run",
        _ => "was running and is interrupted",
    }
}

pub(crate) fn restart(options: Restart) -> Result<(), Failure> {
    request(&options.server, "restart", json!({ "session_id": options.session.to_string() }))?;
    say(format_args!("{} has begun again, without variables", options.session));
    Ok(())
}

pub(crate) fn kill(options: Kill) -> Result<(), Failure> {
    let mode = if options.drain { "drain" } else { "now" };
    let content = json!({ "session_id": options.session.to_string(), "mode": mode });
    request(&options.server, "session_close", content)?;
    say(format_args!("{} is closed", options.session));
    Ok(())
}

fn request(server: &Server, msg_type: &'static str, content: Value) -> Result<Value, Failure> {
    block_on(async {
        let mut connection = server.connect().await?;
        ask(&mut connection, msg_type, content).await
    })?
}

//! Asking the host.

use std::sync::atomic::{AtomicBool, Ordering};

use cob_protocol::frame::Outcome;
use cob_protocol::json::Json;
use deno_core::op2;
use deno_error::JsErrorBox;

use super::{json, settled};
use crate::here::Here;
use crate::worker::worker;

/// Whether the client of the running execution can be asked for input.
static CAN_ASK: AtomicBool = AtomicBool::new(false);

/// Says so for the execution that begins.
pub(crate) fn allow_input(allowed: bool) {
    CAN_ASK.store(allowed, Ordering::Relaxed);
}

/// Whether a question to the person at the client makes sense.
#[op2(fast)]
pub(super) fn op_cob_can_ask() -> bool {
    CAN_ASK.load(Ordering::Relaxed)
}

/// Asks and waits: a letter for how that ended, and the answer or the reason. `v`alue and JSON, `f`ailed and name and
/// text as JSON, `e`nd of input, `d`eclined, `t`imed out, `i`nterrupted.
#[op2]
#[string]
pub(super) fn op_cob_call(#[string] kind: String, #[string] arguments: String) -> Result<String, JsErrorBox> {
    let Some(worker) = worker() else { return Ok("dthere is no host".to_owned()) };
    let outcome = match worker.call(&Here, kind, json(arguments)?) {
        Ok(outcome) => outcome,
        Err(error) => return settled(Err(error)).map(|_| "i".to_owned()),
    };
    Ok(match outcome {
        Outcome::Value(value) => format!("v{}", value.as_str()),
        Outcome::Failed { ename, evalue } => {
            format!("f{}", Json::of(&[ename, evalue]).unwrap_or_default().as_str())
        }
        Outcome::Eof(why) => format!("e{why}"),
        Outcome::Declined(why) => format!("d{why}"),
        Outcome::TimedOut(why) => format!("t{why}"),
        Outcome::Again => "dthe host does not know the question".to_owned(),
    })
}

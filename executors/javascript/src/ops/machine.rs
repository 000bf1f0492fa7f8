//! What the machine has to offer: chance, and its processors.

use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;

use cob_protocol::json::Json;
use deno_core::op2;
use deno_error::JsErrorBox;

use crate::random;

static ARGUMENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Takes what the script was called with from the options of the session: `argv`, as of `cob run`.
pub(crate) fn set_arguments(options: &Json) {
    #[derive(Default, serde::Deserialize)]
    struct Options {
        #[serde(default)]
        argv: Vec<String>,
    }
    let Options { argv } = options.read().unwrap_or_default();
    *ARGUMENTS.lock().unwrap_or_else(PoisonError::into_inner) = argv.into_iter().skip(1).collect();
}

/// What the script was called with, behind its name: a JSON array.
#[op2]
#[string]
pub(super) fn op_cob_args() -> String {
    let arguments = ARGUMENTS.lock().unwrap_or_else(PoisonError::into_inner);
    serde_json::json!(*arguments).to_string()
}

/// Fills a buffer with random bytes of the system: they differ in every process, forked or not.
#[op2(fast)]
pub(super) fn op_cob_random(#[buffer] bytes: &mut [u8]) -> Result<(), JsErrorBox> {
    fill(bytes)
}

/// A random UUID (version 4).
#[op2]
#[string]
pub(super) fn op_cob_uuid() -> Result<String, JsErrorBox> {
    let mut bytes = [0u8; 16];
    fill(&mut bytes)?;
    let random = u128::from_be_bytes(bytes);
    let version = 0xf << 76;
    let variant = 0x3 << 62;
    let number = (random & !version & !variant) | (0x4 << 76) | (0x2 << 62);
    let digits = format!("{number:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| digits.get(part).unwrap_or_default());
    Ok(parts.join("-"))
}

/// How many processors this process may use.
#[op2(fast)]
pub(super) fn op_cob_processors() -> u32 {
    available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}

/// What this is called.
#[op2]
#[string]
pub(super) fn op_cob_user_agent() -> String {
    concat!("cob/", env!("CARGO_PKG_VERSION")).to_owned()
}

fn fill(bytes: &mut [u8]) -> Result<(), JsErrorBox> {
    random::fill(bytes)
        .map_err(|error| JsErrorBox::generic(format!("the system has no random bytes: {error}")))
}

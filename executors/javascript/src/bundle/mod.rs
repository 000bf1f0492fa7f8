//! Durable checkpoints: what a session holds as data, in a form that every engine reads.
//!
//! The graph of values is taken apart and put together by `js/bundle.js`, which asks for [blobs](pen) here. Functions
//! and classes are saved as their source, and only those that [stand in a cell themselves](definitions): what is made
//! inside of another function needs what that function had.

mod definitions;
pub(crate) mod pen;

use cob_protocol::bundle::{Component, Outline, Runtime};
use cob_protocol::checkpoint::{Loaded, Missing};
use cob_protocol::frame::Outcome;
use cob_protocol::json::Json;
use cob_worker::bundle::{BundleReader, BundleWriter};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::errors::Stop;

const LANGUAGE: &str = "javascript";
#[cfg(not(feature = "v8"))]
const ENGINE: &str = "quickjs";
#[cfg(feature = "v8")]
const ENGINE: &str = "v8";

/// Before any code of the user: whatever stands in the global scope now is not a variable of the session.
pub(crate) fn begin(engine: &mut Engine) {
    // It only lists names. Without it checkpoints would hold too much, which the first one would show.
    let _ = engine.call("bundle.begin", &[]);
}

/// A cell has run, be it to its end: which functions and classes of it can be saved.
pub(crate) fn note(engine: &mut Engine, source: &str) {
    let found = definitions::find(source);
    if let (false, Ok(found)) = (found.is_empty(), serde_json::to_string(&found)) {
        // Nothing of the user's runs in it; if the heap is used up, they cannot be saved.
        let _ = engine.ask("bundle.define", &[&found]);
    }
}

/// What `bundle.save` says of the blobs that it has written.
#[derive(Deserialize)]
struct Saved {
    components: Vec<Component>,
    missing: Vec<Missing>,
}

/// Writes down what the session holds.
///
/// # Errors
/// A sentence: nothing of it is of use.
pub(crate) fn save(engine: &mut Engine, writer: &mut BundleWriter) -> Result<(), String> {
    let pending = engine.pending();
    let saved = {
        let _lent = pen::lend_writer(writer);
        engine.ask("bundle.save", &[]).map_err(|stop| told(engine, "the session cannot be saved", stop))?
    };
    let Saved { components, missing } =
        serde_json::from_str(&saved).map_err(|error| format!("the session cannot be saved: {error}"))?;
    let runtime = Runtime {
        implementation: ENGINE.to_owned(),
        version: deno_core::v8::V8::get_version().to_owned(),
        platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        ..Runtime::default()
    };
    let extra = json!({ "pending": pending.timers + pending.operations });
    let outline = Outline { language: LANGUAGE.to_owned(), runtime, components, missing, extra };
    writer.finish(&outline).map_err(|error| format!("the session cannot be saved: {error}"))
}

/// Takes a bundle in, beside what is there. It does not matter which engine it was made by.
pub(crate) fn load(engine: &mut Engine, reader: &mut BundleReader, _force: bool) -> Outcome {
    let outline = match pen::patiently(|| reader.outline()) {
        Ok(outline) => outline,
        Err(error) => return failed(&error.to_string()),
    };
    if outline.language != LANGUAGE {
        return Outcome::Declined(format!("it holds a session of {}", outline.language));
    }
    match try_load(engine, reader, outline) {
        Ok(loaded) => Outcome::Value(loaded),
        Err(why) => failed(&why),
    }
}

fn try_load(engine: &mut Engine, reader: &mut BundleReader, outline: Outline) -> Result<Json, String> {
    let asked = json!({ "components": outline.components, "missing": outline.missing }).to_string();
    let loaded = {
        let _lent = pen::lend_reader(reader);
        engine.ask("bundle.load", &[&asked]).map_err(|stop| told(engine, "the rest is missing", stop))?
    };
    let mut loaded: Loaded = serde_json::from_str(&loaded).map_err(|error| error.to_string())?;
    if let Some(pending @ 1..) = outline.extra.get("pending").and_then(Value::as_u64) {
        loaded.findings.push(cob_protocol::checkpoint::Finding {
            kind: "timer".to_owned(),
            text: format!("timers and operations that were under way are not kept: {pending}"),
            blocks: false,
        });
    }
    Json::of(&loaded).map_err(|error| error.to_string())
}

fn failed(why: &str) -> Outcome {
    Outcome::Failed {
        ename: "Error".to_owned(),
        evalue: format!("the bundle was taken in only in part: {why}"),
    }
}

fn told(engine: &mut Engine, what: &str, stop: Stop) -> String {
    let told = engine.tell(stop);
    format!("{what}: {}: {}", told.name, told.value)
}

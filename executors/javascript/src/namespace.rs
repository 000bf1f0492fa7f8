//! What a session holds: names, types and sizes, never a value. No code of the user's runs for it.

use cob_protocol::frame::Outcome;
use cob_protocol::json::Json;
use cob_protocol::limits::{NAMESPACE_NAME_CHARACTERS_MAX, NAMESPACE_NAMES_MAX};

use crate::engine::Engine;

/// A JSON array; what was defined last stands last.
pub(crate) fn summary(engine: &mut Engine) -> Outcome {
    let (names, characters) = (NAMESPACE_NAMES_MAX.to_string(), NAMESPACE_NAME_CHARACTERS_MAX.to_string());
    let listed = engine.ask("introspect.namespace", &[&names, &characters]);
    match listed.map(Json::parse) {
        Ok(Ok(json)) => Outcome::Value(json),
        Ok(Err(error)) => Outcome::Declined(format!("the session could not be listed: {error}")),
        Err(stop) => Outcome::Declined(engine.tell(stop).traceback.join("\n")),
    }
}

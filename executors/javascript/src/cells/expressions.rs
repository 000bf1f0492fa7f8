//! The `user_expressions` of an execution: evaluated after the cell, answered with its end.

use cob_protocol::frame::Execute;
use cob_protocol::json::Json;
use serde_json::{Map, Value, json};

use super::script;
use crate::engine::Engine;
use crate::errors::{Stop, Told};
use crate::transform;

pub(super) fn is_empty(expressions: &Json) -> bool {
    expressions.as_str().len() <= 2
}

/// Each by its name: its representations, or its error.
pub(super) fn evaluate(engine: &mut Engine, request: &Execute) -> Json {
    let asked: Map<String, Value> =
        serde_json::from_str(request.user_expressions.as_str()).unwrap_or_default();
    engine.belongs_to(request.execution);
    let mut answers = Map::new();
    for (name, expression) in asked {
        let answer = one(engine, expression.as_str().unwrap_or_default());
        // Whoever is interrupted is not asked for more.
        let is_over = matches!(answer, Err(Stop::Interrupted));
        let answer = answer.unwrap_or_else(|stop| {
            let Told { name, value, traceback } = engine.tell(stop);
            json!({"status": "error", "ename": name, "evalue": value, "traceback": traceback})
        });
        answers.insert(name, answer);
        if is_over {
            break;
        }
    }
    drop(engine.uncaught_of(request.execution));
    engine.belongs_to(0);
    Json::of(&answers).unwrap_or_else(|_| Json::object())
}

fn one(engine: &mut Engine, expression: &str) -> Result<Value, Stop> {
    let name = engine.sources.name_expression();
    let value = script(engine, &name, expression, transform::expression)?;
    let shown = engine.call("display.represented", &[value])?;
    let shown = engine.settled(shown)?;
    let data: Value = serde_json::from_str(&engine.text_of(&shown))
        .map_err(|error| Stop::Failed(format!("how the value looks cannot be told: {error}")))?;
    Ok(json!({"status": "ok", "data": data, "metadata": {}}))
}

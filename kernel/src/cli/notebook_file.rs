//! A notebook on disk: its code cells, their new outputs, and nbformat's way of writing it.
//!
//! Whatever cob does not know is kept as it was found. (nbformat documentation, "The notebook file format".)

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use cob_protocol::message::Outgoing;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Failure;

/// A notebook that is being run.
#[derive(Debug)]
pub(crate) struct Notebook {
    document: Map<String, Value>,
    cells: Vec<Value>,
    /// Places of outputs by display id.
    displays: HashMap<String, Vec<(usize, usize)>>,
    /// Cells whose outputs go when the next one arrives.
    clear_pending: Vec<usize>,
}

/// A cell to be run.
#[derive(Debug)]
pub(crate) struct CodeCell {
    /// Its place among all cells.
    pub(crate) index: usize,
    pub(crate) source: String,
    /// Tagged `raises-exception`: an error does not end the run.
    pub(crate) may_fail: bool,
}

impl Notebook {
    /// Reads a notebook of format 4.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let text = std::fs::read(path).map_err(|e| Failure::Usage(format!("cannot read {name}: {e}")))?;
        let document: Value = serde_json::from_slice(&text)
            .map_err(|e| Failure::Usage(format!("{name} is no notebook: it is not JSON: {e}")))?;
        Self::from_json(document).map_err(|why| Failure::Usage(format!("{name} is no notebook: {why}")))
    }

    fn from_json(document: Value) -> Result<Self, String> {
        let Value::Object(mut document) = document else { return Err("it is not a JSON object".to_owned()) };
        match document.get("nbformat").and_then(Value::as_u64) {
            Some(4) => {}
            Some(other) => {
                return Err(format!(
                    "it has nbformat {other}, not 4; `jupyter nbconvert` can bring it up to date"
                ));
            }
            None => return Err("it does not say its nbformat".to_owned()),
        }
        let Some(Value::Array(cells)) = document.remove("cells") else {
            return Err("it has no cells".to_owned());
        };
        if let Some(place) = cells.iter().position(|cell| !is_cell(cell)) {
            return Err(format!("cell {} has no cell_type or no source", place + 1));
        }
        Ok(Self { document, cells, displays: HashMap::new(), clear_pending: Vec::new() })
    }

    /// The cells that hold code, in order, without those tagged `skip-execution` and empty ones.
    pub(crate) fn code_cells(&self) -> Vec<CodeCell> {
        let tagged = |cell: &Value, tag: &str| {
            cell["metadata"]["tags"].as_array().is_some_and(|tags| tags.iter().any(|t| t == tag))
        };
        self.cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| cell["cell_type"] == "code" && !tagged(cell, "skip-execution"))
            .map(|(index, cell)| CodeCell {
                index,
                source: joined(&cell["source"]),
                may_fail: tagged(cell, "raises-exception"),
            })
            .filter(|cell| !cell.source.trim().is_empty())
            .collect()
    }

    /// The name of the kernel it asks for, if it does.
    pub(crate) fn kernel_name(&self) -> Option<&str> {
        self.document.get("metadata")?.get("kernelspec")?.get("name")?.as_str()
    }

    /// The languages that it names, what it was last run with first.
    pub(crate) fn languages(&self) -> impl Iterator<Item = &str> {
        let metadata = self.document.get("metadata");
        let named = [("language_info", "name"), ("kernelspec", "language")];
        named.into_iter().filter_map(move |(part, key)| metadata?.get(part)?.get(key)?.as_str())
    }

    /// What the kernel says of its language.
    pub(crate) fn set_language(&mut self, language: Value) {
        let metadata = self.document.entry("metadata").or_insert_with(|| json!({}));
        if let Value::Object(metadata) = metadata {
            metadata.insert("language_info".to_owned(), language);
        }
    }

    /// A cell is about to run: what it showed before goes.
    pub(crate) fn begin(&mut self, index: usize) {
        if let Some(Value::Object(cell)) = self.cells.get_mut(index) {
            cell.insert("outputs".to_owned(), json!([]));
            cell.insert("execution_count".to_owned(), Value::Null);
        }
    }

    pub(crate) fn set_count(&mut self, index: usize, count: &Value) {
        if let Some(Value::Object(cell)) = self.cells.get_mut(index) {
            cell.insert("execution_count".to_owned(), count.clone());
        }
    }

    /// Takes in what was broadcast while the cell ran.
    pub(crate) fn take(&mut self, index: usize, message: &Outgoing) {
        let Ok(mut content) = message.content.read::<Map<String, Value>>() else { return };
        let transient = content.remove("transient").unwrap_or_default();
        match message.msg_type {
            "stream" | "execute_result" | "error" => {}
            "display_data" => {
                if let Some(id) = transient["display_id"].as_str() {
                    let place = (index, self.outputs(index).map_or(0, |outputs| outputs.len()));
                    self.displays.entry(id.to_owned()).or_default().push(place);
                }
            }
            "update_display_data" => {
                return self.update(transient["display_id"].as_str().unwrap_or_default(), &content);
            }
            "clear_output" => {
                if content.get("wait") == Some(&Value::Bool(true)) {
                    self.clear_pending.push(index);
                } else {
                    self.clear(index);
                }
                return;
            }
            _ => return,
        }
        if self.clear_pending.contains(&index) {
            self.clear(index);
        }
        content.insert("output_type".to_owned(), message.msg_type.into());
        let Some(outputs) = self.outputs(index) else { return };
        if message.msg_type == "stream"
            && let Some(last) = outputs.last_mut()
            && last["output_type"] == "stream"
            && last["name"] == content["name"]
        {
            let text = format!("{}{}", joined(&last["text"]), joined(&content["text"]));
            last["text"] = text.into();
            return;
        }
        outputs.push(Value::Object(content));
    }

    fn outputs(&mut self, index: usize) -> Option<&mut Vec<Value>> {
        self.cells.get_mut(index)?.get_mut("outputs")?.as_array_mut()
    }

    fn clear(&mut self, index: usize) {
        self.clear_pending.retain(|pending| *pending != index);
        self.displays.values_mut().for_each(|places| places.retain(|(cell, _)| *cell != index));
        if let Some(outputs) = self.outputs(index) {
            outputs.clear();
        }
    }

    fn update(&mut self, id: &str, content: &Map<String, Value>) {
        for (cell, place) in self.displays.get(id).cloned().unwrap_or_default() {
            if let Some(output) = self.outputs(cell).and_then(|outputs| outputs.get_mut(place)) {
                for part in ["data", "metadata"] {
                    output[part] = content.get(part).cloned().unwrap_or_else(|| json!({}));
                }
            }
        }
    }

    /// Writes the notebook: a reader sees the old one or the new one, never half of it.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::Failed(format!("cannot write {}: {e}", path.display()));
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}.new", std::process::id()));
        let draft = PathBuf::from(draft);
        std::fs::write(&draft, self.to_text()).map_err(failed)?;
        if let Ok(existing) = std::fs::metadata(path) {
            // A mode that cannot be kept is no reason to lose the outputs.
            let _ = std::fs::set_permissions(&draft, existing.permissions());
        }
        std::fs::rename(&draft, path).map_err(failed)
    }

    /// nbformat's form: keys sorted, one space of indent, long texts as lists of lines.
    fn to_text(&self) -> String {
        let mut document = self.document.clone();
        let cells: Vec<Value> = self.cells.iter().cloned().map(split_cell).collect();
        document.insert("cells".to_owned(), cells.into());
        // As nbformat does; what is versioned shall not change by being run.
        let mut document = Value::Object(document);
        document.sort_all_objects();
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        // Writing JSON values to memory does not fail.
        let _ = document.serialize(&mut serializer);
        String::from_utf8(text).unwrap_or_default() + "\n"
    }
}

fn is_cell(cell: &Value) -> bool {
    cell["cell_type"].is_string() && (cell["source"].is_string() || cell["source"].is_array())
}

/// A text, which nbformat allows to be a list of lines.
fn joined(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        _ => String::new(),
    }
}

fn split_cell(mut cell: Value) -> Value {
    split(&mut cell, "source");
    if let Some(outputs) = cell.get_mut("outputs").and_then(Value::as_array_mut) {
        for output in outputs {
            split(output, "text");
            if let Some(data) = output.get_mut("data").and_then(Value::as_object_mut) {
                let is_lines = |mime: &str| {
                    mime.starts_with("text/") || mime == "application/javascript" || mime == "image/svg+xml"
                };
                data.iter_mut().filter(|(mime, _)| is_lines(mime)).for_each(|(_, value)| split_value(value));
            }
        }
    }
    cell
}

fn split(owner: &mut Value, key: &str) {
    if let Some(value) = owner.get_mut(key) {
        split_value(value);
    }
}

fn split_value(value: &mut Value) {
    if let Value::String(text) = value {
        *value = text.split_inclusive('\n').collect();
    }
}

#[cfg(test)]
mod tests {
    use cob_protocol::json::Json;

    use super::*;

    fn notebook() -> Notebook {
        Notebook::from_json(json!({
            "cells": [
                { "cell_type": "markdown", "metadata": {}, "source": ["# t"] },
                { "cell_type": "code", "metadata": {}, "source": ["a\n", "b"], "outputs": [1], "execution_count": 7 },
                { "cell_type": "code", "metadata": { "tags": ["skip-execution"] }, "source": "c", "outputs": [] },
                { "cell_type": "code", "metadata": { "tags": ["raises-exception"] }, "source": "d", "outputs": [] },
            ],
            "metadata": { "mine": 1 }, "nbformat": 4, "nbformat_minor": 5,
        }))
        .unwrap()
    }

    fn message(msg_type: &'static str, content: Value) -> Outgoing {
        Outgoing::new(msg_type, Json::object(), Json::from(content))
    }

    fn outputs(notebook: &Notebook) -> Value {
        serde_json::from_str::<Value>(&notebook.to_text()).unwrap()["cells"][1]["outputs"].clone()
    }

    #[test]
    fn only_code_that_shall_run_is_run() {
        let cells = notebook().code_cells();
        let found: Vec<_> = cells.iter().map(|c| (c.index, c.source.as_str(), c.may_fail)).collect();
        assert_eq!(found, [(1, "a\nb", false), (3, "d", true)]);
    }

    #[test]
    fn the_languages_that_it_names_are_known_whoever_wrote_them() {
        let named = |metadata: Value| {
            let document = json!({ "cells": [], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5 });
            let notebook = Notebook::from_json(document).unwrap();
            notebook.languages().map(str::to_owned).collect::<Vec<_>>()
        };
        let both = json!({ "kernelspec": { "name": "deno", "language": "typescript" },
                           "language_info": { "name": "javascript" } });
        assert_eq!(named(both), ["javascript", "typescript"]);
        assert_eq!(named(json!({ "kernelspec": { "language": 5 } })), [""; 0]);
        assert_eq!(named(json!({})), [""; 0]);
    }

    #[test]
    fn outputs_are_gathered_as_nbformat_wants_them() {
        let mut notebook = notebook();
        notebook.begin(1);
        for text in ["a", "b\nc"] {
            notebook.take(1, &message("stream", json!({ "name": "stdout", "text": text })));
        }
        let display = |id: &str, text: &str| json!({ "data": { "text/plain": text }, "metadata": {}, "transient": { "display_id": id } });
        notebook.take(1, &message("display_data", display("x", "old")));
        notebook.take(1, &message("update_display_data", display("x", "new")));
        notebook.take(1, &message("status", json!({ "execution_state": "idle" })));
        assert_eq!(
            outputs(&notebook),
            json!([
                { "output_type": "stream", "name": "stdout", "text": ["ab\n", "c"] },
                { "output_type": "display_data", "data": { "text/plain": ["new"] }, "metadata": {} },
            ])
        );
    }

    #[test]
    fn clear_output_with_wait_clears_when_the_next_output_comes() {
        let mut notebook = notebook();
        notebook.begin(1);
        let text = |text: &str| message("stream", json!({ "name": "stdout", "text": text }));
        notebook.take(1, &text("old"));
        notebook.take(1, &message("clear_output", json!({ "wait": true })));
        assert_eq!(outputs(&notebook)[0]["text"][0], "old");
        notebook.take(1, &text("new"));
        assert_eq!(
            outputs(&notebook),
            json!([{ "output_type": "stream", "name": "stdout", "text": ["new"] }])
        );
    }

    #[test]
    fn what_is_no_notebook_is_refused_with_the_reason() {
        for (document, reason) in [
            (json!([]), "not a JSON object"),
            (json!({ "nbformat": 3, "cells": [] }), "nbformat 3"),
            (json!({ "nbformat": 4 }), "no cells"),
            (json!({ "nbformat": 4, "cells": [5] }), "cell 1 has no cell_type"),
            (json!({ "nbformat": 4, "cells": [{ "cell_type": "code" }] }), "no source"),
            (json!({}), "does not say"),
        ] {
            let why = Notebook::from_json(document).unwrap_err();
            assert!(why.contains(reason), "{why}");
        }
    }

    #[test]
    fn the_file_is_written_in_nbformats_own_form() {
        let text = notebook().to_text();
        assert!(text.starts_with("{\n \"cells\": [\n  {\n   \"cell_type\": \"markdown\""), "{text}");
        assert!(text.ends_with("}\n"));
        assert!(text.contains("\"mine\": 1"));
    }
}

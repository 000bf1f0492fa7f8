// What code can ask of its own session's past: `cob.checkpoint()`, `cob.undo()` and the like.
//
// The host answers at once; what was asked for happens when the running cell has ended, however it ends.

import { $display } from "ext:cob/mime.js";
import { ask, CheckpointError, encoded } from "ext:cob/questions.js";
import { table } from "ext:cob/display.js";
import { obey } from "ext:cob/stop.js";

const { ops } = globalThis.Deno.core;
const {
  ArrayPrototypeMap,
  DatePrototypeToISOString,
  Date,
  NumberIsInteger,
  ObjectDefineProperty,
  RangeError,
  RegExpPrototypeTest,
  SafeRegExp,
  StringPrototypeToLowerCase,
  TypeError,
} = globalThis.__bootstrap.primordials;

const NAME = new SafeRegExp("^s[0-9]+\\.k[0-9]+$");
const NOT_UNDONE = "files, mail and databases are not undone";

function asked(kind, question) {
  const answer = ask(kind, encoded(question));
  switch (answer.outcome) {
    case "value":
      return answer.value;
    case "failed":
      throw new CheckpointError(snakeCase(answer.why[0]), answer.why[1]);
    default:
      throw new CheckpointError("unavailable", answer.why || "this host keeps no checkpoints");
  }
}

function snakeCase(name) {
  let text = "";
  for (let i = 0; i < name.length; i++) {
    const small = StringPrototypeToLowerCase(name[i]);
    text += small !== name[i] && i > 0 ? "_" + small : small;
  }
  return text;
}

const say = (text) => obey(ops.op_cob_print(text + "\n", false));

/**
 * Has a checkpoint of the session taken when this cell ends; returns its name. With `durable` it is also written down,
 * and survives the server; `force` takes it although something would be missing.
 */
export function checkpoint(label, options) {
  if (label !== undefined && (typeof label !== "string" || label === "")) {
    throw new TypeError("the label of a checkpoint is a text");
  }
  const wanted = { __proto__: null, durable: !!options?.durable, force: !!options?.force };
  if (label !== undefined) wanted.label = label;
  const name = asked("checkpoint", wanted).checkpoint;
  say(`${name}${label === undefined ? "" : ` (${label})`} is taken when this cell ends`);
  return name;
}

/** The session's checkpoints, oldest first. */
export function checkpoints() {
  const found = asked("checkpoints", { __proto__: null });
  const rows = () =>
    ArrayPrototypeMap(found, (view) => ({
      __proto__: null,
      name: view.checkpoint,
      before: `In [${view.count + 1}]`,
      taken: DatePrototypeToISOString(new Date(view.taken_at / 1000)),
      "kept in": view.tier,
      label: view.label ?? (view.automatic ? "(automatic)" : ""),
    }));
  ObjectDefineProperty(found, $display, { __proto__: null, value: () => table(rows())[$display]() });
  return found;
}

/** Goes back to a checkpoint, by its name or its label, when this cell ends. */
export function restore(name) {
  const wanted = typeof name === "object" && name !== null ? name.checkpoint : name;
  if (typeof wanted !== "string") throw new TypeError("a checkpoint is known by its name or its label");
  back({ __proto__: null, [RegExpPrototypeTest(NAME, wanted) ? "checkpoint" : "label"]: wanted });
}

/** Goes back to before the last cell, or before the last `count`, when this one ends. */
export function undo(count = 1) {
  if (!NumberIsInteger(count) || count < 1) throw new RangeError("at least one cell can be undone");
  back({ __proto__: null, undo: count });
}

function back(wanted) {
  const found = asked("restore", wanted);
  const label = found.label ? ` (${found.label})` : "";
  const before = NumberIsInteger(found.count) ? `, before In [${found.count + 1}],` : "";
  say(`back to ${found.checkpoint}${label}${before} when this cell ends; ${NOT_UNDONE}`);
}

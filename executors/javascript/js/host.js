// The namespace `cob`: what a session has that the web has not.

import * as channels from "ext:cob/channels.js";
import { comm } from "ext:cob/comms.js";
import * as display from "ext:cob/display.js";
import { define } from "ext:cob/globals.js";
import * as input from "ext:cob/input.js";
import { $display } from "ext:cob/mime.js";
import * as questions from "ext:cob/questions.js";
import * as timeline from "ext:cob/timeline.js";
import { tools } from "ext:cob/tools.js";

const { ops } = globalThis.Deno.core;
const { Error, JSONParse, ObjectDefineProperty, ObjectFreeze } = globalThis.__bootstrap.primordials;

/** What the host knows this execution by: an object with `promise`, `session`, `key` and `durability`. */
function execution() {
  const answer = questions.ask("execution", "{}");
  if (answer.outcome === "value") return answer.value;
  throw new Error(`the execution is not known: ${answer.why}`);
}

/** More is put into it by others before the session starts. */
export const cob = {
  __proto__: null,
  $display,
  ChannelClosed: questions.ChannelClosed,
  CheckpointError: questions.CheckpointError,
  InputError: questions.InputError,
  TimeoutError: questions.TimeoutError,
  ToolError: questions.ToolError,
  ToolUnavailable: questions.ToolUnavailable,
  channel: channels.channel,
  checkpoint: timeline.checkpoint,
  checkpoints: timeline.checkpoints,
  clearOutput: display.clearOutput,
  comm,
  display: display.display,
  execution,
  html: display.html,
  image: display.image,
  input: input.input,
  json: display.json,
  latex: display.latex,
  md: display.md,
  restore: timeline.restore,
  svg: display.svg,
  table: display.table,
  tools,
  undo: timeline.undo,
};

ObjectDefineProperty(cob, "args", {
  __proto__: null,
  enumerable: true,
  /** The arguments behind the name of the script, in `cob run`. */
  get: () => ObjectFreeze(JSONParse(ops.op_cob_args())),
});

define(globalThis, "prompt", input.prompt);
define(globalThis, "confirm", input.confirm);
define(globalThis, "alert", input.alert);

/** Once everything of the runtime is there; `Deno` is that of the engine until then. */
export function start() {
  define(globalThis, "cob", ObjectFreeze(cob));
  define(globalThis, "Deno", ObjectFreeze({ jupyter: display.jupyter }));
}

/** In a copy of the process. */
export function renew() {
  channels.renew();
}

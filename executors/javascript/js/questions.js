// Questions to the host, and the errors that tell why there is no answer.
//
// A question holds the one thread until it is answered; only the running cell can ask.

import { obey } from "ext:cob/stop.js";

const { core } = globalThis.Deno;
const { ops } = core;
const {
  Error,
  JSONParse,
  JSONStringify,
  MathMax,
  MathTrunc,
  Number,
  NumberIsFinite,
  ObjectDefineProperty,
  RangeError,
  StringPrototypeSlice,
  TypeError,
} = globalThis.__bootstrap.primordials;

function named(type, name) {
  ObjectDefineProperty(type.prototype, "name", { __proto__: null, value: name, writable: true, configurable: true });
  return type;
}

/** Nobody can answer: the input has ended, or the client cannot be asked. */
export const InputError = named(class InputError extends Error {}, "InputError");

/** Nobody answered in time. */
export const TimeoutError = named(class TimeoutError extends Error {}, "TimeoutError");

/** A tool of a client failed: `ename` and `evalue` say how. */
export const ToolError = named(
  class ToolError extends Error {
    constructor(ename, evalue) {
      super(evalue ? `${ename}: ${evalue}` : ename);
      this.ename = ename;
      this.evalue = evalue;
    }
  },
  "ToolError",
);

/** No client offered the tool in the time that the call was to wait. */
export const ToolUnavailable = named(class ToolUnavailable extends Error {}, "ToolUnavailable");

/** The channel was closed: by the client for what it sends, by the code for what the code sends. */
export const ChannelClosed = named(class ChannelClosed extends Error {}, "ChannelClosed");

/** There is no such checkpoint, or none can be taken: `code` is a word for programs. */
export const CheckpointError = named(
  class CheckpointError extends Error {
    constructor(code, text) {
      super(text || code);
      this.code = code;
    }
  },
  "CheckpointError",
);

/** JSON of a value; it must be something that JSON can hold. */
export function encoded(value, what) {
  const text = JSONStringify(value);
  if (text === undefined) throw new TypeError(`${what} is nothing that JSON can hold`);
  return text;
}

/** Milliseconds, for the host. */
export function milliseconds(timeout) {
  const number = Number(timeout);
  if (!NumberIsFinite(number)) throw new RangeError("a timeout is a number of milliseconds");
  return MathMax(0, MathTrunc(number));
}

/**
 * Asks; `{ outcome, value }` or `{ outcome, why }`. The outcome is `value`, `eof`, `declined`, `timed_out` or `failed`;
 * of the last one `why` is name and text of an error.
 */
export function ask(kind, json) {
  const answer = ops.op_cob_call(kind, json);
  obey(answer === "i");
  const text = StringPrototypeSlice(answer, 1);
  switch (answer[0]) {
    case "v":
      return { outcome: "value", value: JSONParse(text) };
    case "e":
      return { outcome: "eof", why: text };
    case "t":
      return { outcome: "timed_out", why: text };
    case "f":
      return { outcome: "failed", why: JSONParse(text) };
    default:
      return { outcome: "declined", why: text };
  }
}

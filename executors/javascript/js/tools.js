// Functions of clients: `await cob.tools.NAME({ name: value })`.
//
// A client of the session registers them; a call waits for the client's answer. Arguments have names, as in the
// schema that the client gave, so a call takes one object. Arguments and values are JSON.

import { $display } from "ext:cob/mime.js";
import { ask, encoded, milliseconds, TimeoutError, ToolError, ToolUnavailable } from "ext:cob/questions.js";

const { ArrayIsArray, ArrayPrototypeIncludes, ObjectDefineProperty, ObjectFreeze, Proxy, TypeError } =
  globalThis.__bootstrap.primordials;

/**
 * Calls the tool `name` with an object of arguments. `timeout`: milliseconds to wait for a client that offers it (60 s
 * if not given), and for its answer.
 */
async function call(name, tool, options) {
  if (tool !== undefined && (typeof tool !== "object" || tool === null || ArrayIsArray(tool))) {
    throw new TypeError(`the arguments of a tool have names: cob.tools.${name}({ name: value })`);
  }
  const question = { __proto__: null, name: `${name}`, arguments: tool ?? {} };
  if (options?.timeout !== undefined) question.timeout_ms = milliseconds(options.timeout);
  const answer = ask("tool", encoded(question));
  switch (answer.outcome) {
    case "value":
      return answer.value;
    case "failed":
      if (answer.why[0] === "ToolUnavailable") throw new ToolUnavailable(answer.why[1]);
      throw new ToolError(answer.why[0], answer.why[1]);
    case "timed_out":
      throw new TimeoutError(`the tool ${name} has not answered in time`);
    default:
      throw new ToolError("ToolDeclined", answer.why);
  }
}

const NO_TOOLS = ["call", "constructor", "then", "toJSON"];
const own = ObjectFreeze({
  __proto__: null,
  call,
  [$display]: () => ({ "text/plain": "the tools of the clients: await cob.tools.NAME({ name: value })" }),
});

export const tools = new Proxy(own, {
  __proto__: null,
  get(_, name) {
    // What is looked for in every object, by libraries and by `await`, is no tool.
    if (typeof name === "symbol" || ArrayPrototypeIncludes(NO_TOOLS, name) || name[0] === "_") return own[name];
    const tool = async function (...values) {
      if (values.length > 1) {
        throw new TypeError(`the arguments of a tool have names: cob.tools.${name}({ name: value })`);
      }
      return await call(name, values[0]);
    };
    ObjectDefineProperty(tool, "name", { __proto__: null, value: name });
    return tool;
  },
});

// `console`: what it prints goes to the pipes, like the output of every language, one write for a call.

import { define } from "ext:cob/globals.js";
import { obey } from "ext:cob/stop.js";

const { core } = globalThis.Deno;
const { ops } = core;
const {
  ErrorCaptureStackTrace,
  ObjectCreate,
  ReflectApply,
  StringPrototypeIncludes,
  StringPrototypeRepeat,
  SymbolToStringTag,
} = globalThis.__bootstrap.primordials;
const { Console, inspectArgs, setNoColorFns } = core.loadExtScript("ext:deno_web/01_console.js");

const WARN = 2;

// Colours come only from `%c`.
let isColoured = false;
setNoColorFns(() => !isColoured, () => !isColoured);

function write(text, isError) {
  obey(ops.op_cob_print(text, isError));
}

function print(text, level) {
  write(text, level >= WARN);
}

const full = new Console(print);
// How many groups are open.
let depth = 0;

/** The text of a call that needs no formatting; undefined if it does. */
function plain(values) {
  const count = values.length;
  if (depth > 0) return undefined;
  const first = values[0];
  if (count === 1) return typeof first === "string" ? first + "\n" : undefined;
  if (typeof first === "string" && StringPrototypeIncludes(first, "%")) return undefined;
  let text = "";
  for (let i = 0; i < count; i++) {
    const value = values[i];
    if (typeof value === "string") {
      text += i === 0 ? value : " " + value;
    } else if (typeof value === "number" && value !== 0) { // zero may be negative
      text += i === 0 ? `${value}` : ` ${value}`;
    } else {
      return undefined;
    }
  }
  return text + "\n";
}

function printer(name, isError) {
  const format = full[name];
  // A method with the right name and no `prototype`.
  return {
    [name](...values) {
      const text = plain(values);
      if (text !== undefined) {
        write(text, isError);
        return;
      }
      isColoured = typeof values[0] === "string" && StringPrototypeIncludes(values[0], "%c");
      try {
        ReflectApply(format, full, values);
      } finally {
        isColoured = false;
      }
    },
  }[name];
}

const console = ObjectCreate({}, { [SymbolToStringTag]: { __proto__: null, value: "console", configurable: true } });
const log = printer("log", false);

const methods = {
  __proto__: null,
  log,
  debug: printer("debug", false),
  info: printer("info", false),
  dirxml: printer("dirxml", false),
  warn: printer("warn", true),
  error: printer("error", true),
  group(...label) {
    if (label.length > 0) ReflectApply(log, console, label);
    full.group();
    depth++;
  },
  groupEnd() {
    full.groupEnd();
    if (depth > 0) depth--;
  },
  trace(...values) {
    const trace = { name: "Trace", message: inspectArgs(values, { __proto__: null, colors: false }) };
    ErrorCaptureStackTrace(trace, methods.trace);
    print(StringPrototypeRepeat("  ", depth) + trace.stack + "\n", WARN);
  },
  clear() {
    obey(ops.op_cob_clear_output(false));
  },
};
methods.groupCollapsed = methods.group;

const kept = [
  "assert", "count", "countReset", "dir", "profile", "profileEnd", "table", "time", "timeEnd", "timeLog", "timeStamp",
];
for (let i = 0; i < kept.length; i++) methods[kept[i]] = full[kept[i]];
for (const name in methods) console[name] = methods[name];

define(globalThis, "console", console);

/** What `console.table` would print. */
export function tableText(rows, columns) {
  let text = "";
  new Console((part) => (text += part)).table(rows, columns);
  return text;
}

// What is known of an error: for tracebacks, and for whoever looks at it later as `_error`.
//
// Everything that is read of an error may be a getter of the user, which throws, or returns anything.

const { core } = globalThis.Deno;
const { ops } = core;
const { inspect: show } = core.loadExtScript("ext:deno_web/01_console.js");
const timers = core.loadExtScript("ext:deno_web/02_timers.js");
const { stringify } = JSON;
const { defineProperty, getOwnPropertyDescriptor, keys, prototype: { isPrototypeOf } } = Object;
const { isArray } = Array;
const { apply } = Reflect;
const { Error, String } = globalThis;
const { Set, SetPrototypeAdd, SetPrototypeHas, StringPrototypeSlice, StringPrototypeToWellFormed } = globalThis.__bootstrap.primordials;
const errorPrototype = Error.prototype;

// What an error says may be as large as its code wants; of a description no more is read, and no more is told.
/** Causes of causes. */
const DEPTH_MAX = 10;
/** Errors within one error, at all depths together. */
const ERRORS_MAX = 40;
/** Own properties of one error. */
const PROPERTIES_MAX = 20;

core.setReportExceptionCallback((error) => ops.op_cob_uncaught(error));

/** An error, as JSON, and `_error` from now on. */
export function describe(error) {
  lastError = error;
  return stringify(described(error, { seen: new Set(), left: ERRORS_MAX }, 0));
}

/** A value as text, whatever it does. */
export function inspect(value) {
  // In a list a string stands in quotes.
  const text = typeof value === "string" ? StringPrototypeSlice(show([value]), 2, -2) : show(value);
  return StringPrototypeToWellFormed(text);
}

/** The value of a cell is `_` from now on. */
export function remember(value) {
  lastValue = value;
}

/**
 * Lets the timers go on after code was stopped: be it in the middle of one, or while one was made. What calls the
 * process is what fails first then, so the process has to be told again that there are timers, and when to look.
 */
export function wake() {
  timers.setTimeout(() => {}, 0);
  ops.op_timer_schedule(-1);
  ops.op_timer_schedule(1);
}

function described(error, state, depth) {
  if (!isError(error)) return { __proto__: null, thrown: attempt(() => inspect(error)) };
  SetPrototypeAdd(state.seen, error);
  const name = text(error, "name");
  const told = {
    __proto__: null,
    name: name === "" ? "Error" : name,
    message: text(error, "message"),
    stack: text(error, "stack"),
    properties: properties(error),
  };
  if (depth >= DEPTH_MAX) return told;
  const inner = (value) => {
    if (state.left-- <= 0 || SetPrototypeHas(state.seen, value)) return undefined;
    return described(value, state, depth + 1);
  };
  const cause = read(error, "cause");
  if (cause !== undefined) told.cause = inner(cause);
  const errors = read(error, "errors");
  if (isArray(errors)) {
    const all = [];
    for (let at = 0; at < errors.length && state.left > 0; at++) {
      const one = inner(read(errors, at));
      if (one !== undefined) defineProperty(all, all.length, { __proto__: null, value: one, enumerable: true });
    }
    told.errors = all;
  }
  return told;
}

function isError(value) {
  try {
    return core.isNativeError(value) || apply(isPrototypeOf, errorPrototype, [value]);
  } catch {
    return false;
  }
}

function read(object, key) {
  try {
    return object[key];
  } catch {
    return undefined;
  }
}

function text(error, key) {
  let value;
  try {
    value = error[key];
  } catch {
    return "<the getter of " + key + " threw an error>";
  }
  if (value === undefined) return "";
  return attempt(() => StringPrototypeToWellFormed(String(value)));
}

function attempt(what) {
  try {
    return what();
  } catch {
    return "<a value that cannot be shown>";
  }
}

const USUAL = [
  "name",
  "message",
  "stack",
  "cause",
  "errors",
  // The engine's own, on a SyntaxError.
  "__v8qjs_parse_error",
  "fileName",
  "lineNumber",
  "columnNumber",
];

/** What else is on an error: `code: "ENOENT"`. Getters are left alone. */
function properties(error) {
  const lines = [];
  try {
    const own = keys(error);
    for (let at = 0; at < own.length && lines.length < PROPERTIES_MAX; at++) {
      const key = own[at];
      const property = getOwnPropertyDescriptor(error, key);
      if (property === undefined || !("value" in property)) continue;
      let isUsual = false;
      for (let usual = 0; usual < USUAL.length; usual++) isUsual ||= USUAL[usual] === key;
      if (isUsual) continue;
      const value = attempt(() => show(property.value));
      defineProperty(lines, lines.length, { __proto__: null, value: StringPrototypeToWellFormed(key + ": " + value), enumerable: true });
    }
  } catch {
    // A proxy that does not tell what it has.
  }
  return lines;
}

let lastValue;
let lastError;
last("_", () => lastValue);
last("_error", () => lastError);

/** A variable that is ours until the user makes one of that name. */
function last(name, get) {
  defineProperty(globalThis, name, {
    __proto__: null,
    configurable: true,
    enumerable: false,
    get,
    set(value) {
      defineProperty(globalThis, name, { __proto__: null, configurable: true, enumerable: true, writable: true, value });
    },
  });
}

// The interfaces of the web that a session has: all that need nothing from outside.
//
// None of them is enumerable: what `Object.keys(globalThis)` names was made by the user.

import { clearInterval, clearTimeout, setInterval, setTimeout } from "ext:cob/timers.js";

const { core } = globalThis.Deno;
const { ops } = core;
const {
  ObjectDefineProperty,
  ObjectGetOwnPropertyDescriptor,
  ObjectKeys,
  ReflectApply,
  ReflectOwnKeys,
  RegExpPrototypeTest,
  SafeRegExp,
  SymbolToStringTag,
  TypeError,
  TypedArrayPrototypeGetBuffer,
  TypedArrayPrototypeGetByteLength,
  TypedArrayPrototypeGetByteOffset,
  TypedArrayPrototypeGetSymbolToStringTag,
  Uint8Array,
} = globalThis.__bootstrap.primordials;

const web = (name) => core.loadExtScript(`ext:deno_web/${name}.js`);

/** Sets a property as the web does: it can be replaced and does not show up in loops. */
export function define(target, name, value) {
  ObjectDefineProperty(target, name, { __proto__: null, value, writable: true, enumerable: false, configurable: true });
}

const INTERFACES = {
  "00_url": ["URL", "URLSearchParams"],
  "01_dom_exception": ["DOMException", "QuotaExceededError"],
  "01_urlpattern": ["URLPattern"],
  "02_event": [
    "CloseEvent",
    "CustomEvent",
    "ErrorEvent",
    "Event",
    "EventTarget",
    "MessageEvent",
    "ProgressEvent",
    "PromiseRejectionEvent",
  ],
  "02_structured_clone": ["structuredClone"],
  "03_abort_signal": ["AbortController", "AbortSignal"],
  "05_base64": ["atob", "btoa"],
  "06_streams": [
    "ByteLengthQueuingStrategy",
    "CountQueuingStrategy",
    "ReadableByteStreamController",
    "ReadableStream",
    "ReadableStreamBYOBReader",
    "ReadableStreamBYOBRequest",
    "ReadableStreamDefaultController",
    "ReadableStreamDefaultReader",
    "TransformStream",
    "TransformStreamDefaultController",
    "WritableStream",
    "WritableStreamDefaultController",
    "WritableStreamDefaultWriter",
  ],
  "08_text_encoding": ["TextDecoder", "TextDecoderStream", "TextEncoder", "TextEncoderStream"],
  "09_file": ["Blob", "File"],
  "10_filereader": ["FileReader"],
  "13_message_port": ["MessageChannel", "MessagePort"],
  "14_compression": ["CompressionStream", "DecompressionStream"],
  "15_performance": [
    "Performance",
    "PerformanceEntry",
    "PerformanceMark",
    "PerformanceMeasure",
    "PerformanceObserver",
    "PerformanceObserverEntryList",
    "performance",
  ],
};

const files = ObjectKeys(INTERFACES);
for (let i = 0; i < files.length; i++) {
  const script = web(files[i]);
  const names = INTERFACES[files[i]];
  for (let j = 0; j < names.length; j++) define(globalThis, names[j], script[names[j]]);
}

// -- errors of ops -----------------------------------------------------------------------------

const { DOMException, QuotaExceededError } = web("01_dom_exception");
const ERRORS = ["DataCloneError", "IndexSizeError", "InvalidCharacterError", "InvalidStateError", "SyntaxError"];
for (let i = 0; i < ERRORS.length; i++) {
  core.registerErrorBuilder(`DOMException${ERRORS[i]}`, (message) => new DOMException(message, ERRORS[i]));
}

// -- events of the global scope ----------------------------------------------------------------

const events = web("02_event");
// The global object is no EventTarget; it hands its events to this one.
const hub = new events.EventTarget();
events.saveGlobalThisReference(hub);

define(globalThis, "addEventListener", function addEventListener(type, listener, options) {
  hub.addEventListener(type, listener, options);
});
define(globalThis, "removeEventListener", function removeEventListener(type, listener, options) {
  hub.removeEventListener(type, listener, options);
});
define(globalThis, "dispatchEvent", function dispatchEvent(event) {
  return hub.dispatchEvent(event);
});
define(globalThis, "reportError", function reportError(error) {
  if (arguments.length === 0) throw new TypeError("reportError: 1 argument is required, but there is none");
  ReflectApply(events.reportError, undefined, [error]);
});
define(globalThis, "self", globalThis);

define(globalThis, "clearInterval", clearInterval);
define(globalThis, "clearTimeout", clearTimeout);
define(globalThis, "setInterval", setInterval);
define(globalThis, "setTimeout", setTimeout);

// -- what deno_web does not have ---------------------------------------------------------------

define(globalThis, "setImmediate", function setImmediate(callback, ...rest) {
  if (typeof callback !== "function") throw new TypeError("setImmediate: the callback is no function");
  return setTimeout(() => ReflectApply(callback, undefined, rest), 0);
});
define(globalThis, "clearImmediate", function clearImmediate(id) {
  clearTimeout(id);
});

const NO_FETCH = "fetch is not available: sessions have no network; let a tool of the client fetch (cob.tools)";

define(globalThis, "fetch", async function fetch() {
  throw new TypeError(NO_FETCH);
});

const RANDOM_BYTES_MAX = 65536;
const integers = new SafeRegExp("^(Big)?(Ui|I)nt[0-9]+(Clamped)?Array$");

class Crypto {
  getRandomValues(array) {
    const kind = TypedArrayPrototypeGetSymbolToStringTag(array);
    if (kind === undefined || !RegExpPrototypeTest(integers, kind)) {
      throw new DOMException("getRandomValues: not a typed array of integers", "TypeMismatchError");
    }
    const length = TypedArrayPrototypeGetByteLength(array);
    if (length > RANDOM_BYTES_MAX) {
      const why = `getRandomValues: ${length} bytes are more than ${RANDOM_BYTES_MAX}`;
      throw new QuotaExceededError(why, { quota: RANDOM_BYTES_MAX, requested: length });
    }
    const buffer = TypedArrayPrototypeGetBuffer(array);
    ops.op_cob_random(new Uint8Array(buffer, TypedArrayPrototypeGetByteOffset(array), length));
    return array;
  }

  randomUUID() {
    return ops.op_cob_uuid();
  }
}

class Navigator {
  get hardwareConcurrency() {
    return ops.op_cob_processors();
  }

  get userAgent() {
    return ops.op_cob_user_agent();
  }

  get language() {
    return "en-US";
  }

  get languages() {
    return ["en-US"];
  }
}

function tag(type, name) {
  ObjectDefineProperty(type.prototype, SymbolToStringTag, { __proto__: null, value: name, configurable: true });
}
tag(Crypto, "Crypto");
tag(Navigator, "Navigator");
define(globalThis, "Crypto", Crypto);
define(globalThis, "crypto", new Crypto());
define(globalThis, "Navigator", Navigator);
define(globalThis, "navigator", new Navigator());

// -- at the start of a runtime -----------------------------------------------------------------

// Doors into the engine that no standard knows; what remains of its own it needs itself.
const DOORS = [
  "ShadowRealm",
  "__bootstrap",
  "__v8xAtomicsNumUnresolvedAsyncPromisesForTesting",
  "__v8xAtomicsNumWaitersForTesting",
  "__v8xPostForegroundTask",
  "__v8x_import_defer",
  "__v8x_import_source",
  "__v8x_snapshot_intrinsics",
  "__v8x_snapshot_module_exports",
  "gc",
];

/** Puts right what the engine brings along by itself, whether or not it started from a snapshot. */
export function start() {
  for (let i = 0; i < DOORS.length; i++) delete globalThis[DOORS[i]];
  const names = ReflectOwnKeys(globalThis);
  for (let i = 0; i < names.length; i++) {
    const property = ObjectGetOwnPropertyDescriptor(globalThis, names[i]);
    if (property.enumerable && property.configurable) {
      ObjectDefineProperty(globalThis, names[i], { __proto__: null, enumerable: false });
    }
  }
}

/** When a session begins: its clock does, too. */
export function begin() {
  web("15_performance").setTimeOrigin();
}

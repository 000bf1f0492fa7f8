// Showing values: the result of a cell, `cob.display`, and the ready-made ways to look.

import { tableText } from "ext:cob/console.js";
import { $display, bundle, bytesOf, checked, htmlTable, imageType, parts, plain } from "ext:cob/mime.js";
import { obey } from "ext:cob/stop.js";

const { core } = globalThis.Deno;
const { ops } = core;
const { forgivingBase64Encode } = core.loadExtScript("ext:deno_web/00_infra.js");
const {
  ArrayIsArray,
  ArrayPrototypeIncludes,
  ArrayPrototypePush,
  ArrayPrototypeSlice,
  JSONStringify,
  ObjectDefineProperty,
  ObjectFreeze,
  ObjectKeys,
  ObjectPrototype,
  PromisePrototypeThen,
  PromiseResolve,
  ReflectApply,
  String,
  StringPrototypeToWellFormed,
  SymbolFor,
  TypeError,
  TypedArrayPrototypeGetLength,
} = globalThis.__bootstrap.primordials;

const text = (value) => StringPrototypeToWellFormed(String(value));
const TABLE_ROWS_MAX = 500;
const TABLE_COLUMNS_MAX = 50;

/** Shows the value of a cell; a promise when the value takes its time to say how it looks. */
export function result(value, count) {
  if (value === undefined) return;
  return whenKnown(bundle(value), (found) => obey(ops.op_cob_result(count, parts(found), "{}")));
}

/** Does what `result` does, but for telling anybody: what runs for the first time takes its time. */
export function rehearse(value) {
  parts(checked(bundle(value)));
}

/** What a value looks like, as JSON; a promise of it when the value takes its time. What has shown itself says nothing. */
export function represented(value) {
  const told = whenKnown(bundle(value), (found) => {
    const flat = parts(found);
    let json = "";
    for (let i = 0; i < flat.length; i += 3) {
      const encoding = flat[i + 1], payload = flat[i + 2];
      const text = encoding === "j" ? payload : JSONStringify(encoding === "b" ? forgivingBase64Encode(payload) : payload);
      json += (json === "" ? "" : ",") + JSONStringify(flat[i]) + ":" + text;
    }
    return "{" + json + "}";
  });
  return told ?? "{}";
}

/** Calls `next` with the bundle, now or when the promise of it is kept; `null` means: it has shown itself. */
function whenKnown(found, next) {
  const then = found?.then;
  // What every object inherits promises nothing.
  const isPromise = typeof then === "function" && then !== ObjectPrototype.then;
  return isPromise ? PromisePrototypeThen(PromiseResolve(found), take) : take(found);

  function take(found) {
    return found === null || found === undefined ? undefined : next(checked(found));
  }
}

class Handle {
  #id;

  constructor(id) {
    this.#id = id;
    ObjectFreeze(this);
  }

  /** What the front end knows the display by. */
  get id() {
    return this.#id;
  }

  /** Shows another value in its place. */
  update(value, options) {
    return display(value, { __proto__: null, ...options, display_id: this.#id, update: true });
  }

  // As the value of a cell it says nothing: what was to be seen is there.
  [$display]() {
    return undefined;
  }

  [SymbolFor("Deno.customInspect")]() {
    return `Display { id: "${this.#id}" }`;
  }
}

/**
 * Shows a value. `raw`: the value is a MIME bundle. `display_id`: what it can be found by later; `update`: it takes the
 * place of what was shown under that id. Returns a handle; a promise of it when the value takes its time to say how it
 * looks.
 */
export function display(value, options) {
  const update = !!options?.update;
  if (update && options?.display_id === undefined) {
    throw new TypeError("display: an update needs the display_id of what it replaces");
  }
  const id = options?.display_id === undefined ? ops.op_cob_uuid() : text(options.display_id);
  const metadata = options?.metadata === undefined ? "{}" : JSONStringify(options.metadata);
  const found = options?.raw ? checked(value) : bundle(value);
  const handle = new Handle(id);
  const shown = whenKnown(found, (found) => {
    obey(ops.op_cob_display(parts(found), metadata, id, update));
    return handle;
  });
  return shown ?? handle;
}

/** Removes what the cell has shown so far; with `wait` only when it shows something new. */
export function clearOutput(options) {
  obey(ops.op_cob_clear_output(!!options?.wait));
}

// -- ways to look --------------------------------------------------------------------------------

/** A value that looks like a bundle. */
function looking(bundle) {
  const value = {};
  ObjectDefineProperty(value, $display, { __proto__: null, value: () => bundle });
  return value;
}

/** The text of a template, or a text as it is. */
function filled(strings, values) {
  if (!ArrayIsArray(strings)) return `${strings}`;
  let text = "";
  for (let i = 0; i < strings.length; i++) {
    text += strings[i];
    if (i < values.length && values[i] !== undefined) text += values[i];
  }
  return text;
}

function template(name, type) {
  // A method with the right name and no `prototype`.
  return {
    [name](strings, ...values) {
      const text = filled(strings, values);
      return looking({ [type]: text, "text/plain": text });
    },
  }[name];
}

export const html = template("html", "text/html");
export const md = template("md", "text/markdown");
export const svg = template("svg", "image/svg+xml");

const formula = template("latex", "text/latex");

/** A formula; in a template backslashes are what they are. */
export function latex(strings, ...values) {
  return ReflectApply(formula, undefined, [ArrayIsArray(strings) ? filled(strings.raw ?? strings, values) : strings]);
}

/** A value as a tree of JSON. */
export function json(value) {
  const text = JSONStringify(value, null, 2);
  if (text === undefined) throw new TypeError(`json: ${plain(value)} is nothing that JSON can hold`);
  return looking({ "application/json": value, "text/plain": text });
}

/** A picture, from its bytes: PNG, JPEG, GIF or WebP. A text is the path of a file that the session may read. */
export function image(source) {
  const bytes = bytesOf(typeof source === "string" ? ops.op_cob_read(StringPrototypeToWellFormed(source)) : source);
  const type = bytes && imageType(bytes);
  if (type === undefined) {
    throw new TypeError("image: these are not the bytes of a PNG, JPEG, GIF or WebP picture");
  }
  return looking({ [type]: bytes, "text/plain": `${type}, ${TypedArrayPrototypeGetLength(bytes)} bytes` });
}

/** Rows (objects or arrays) as a table; `columns` says which, and in what order. Texts name the columns of arrays. */
export function table(rows, columns) {
  if (!ArrayIsArray(rows)) throw new TypeError("table: the rows are an array of objects or of arrays");
  const shown = ArrayPrototypeSlice(rows, 0, TABLE_ROWS_MAX);
  if (columns !== undefined) nameColumns(shown, columns);
  const names = columns === undefined ? columnsOf(shown) : ArrayPrototypeSlice(columns, 0, TABLE_COLUMNS_MAX);
  for (let i = 0; i < names.length; i++) names[i] = String(names[i]);
  const left = rows.length - shown.length;
  const note = left > 0 ? `\u2026 ${left} more rows` : "";
  const cell = (row, name) => {
    const value = row?.[name];
    return value === undefined ? "" : typeof value === "string" ? value : plain(value);
  };
  const html = htmlTable(names, shown, cell);
  return looking({
    "text/html": note ? `${html}<p>${note}</p>` : html,
    "text/plain": tableText(shown, names) + note,
  });
}

/** Rows that are arrays become objects, if the columns have names. */
function nameColumns(rows, columns) {
  for (let j = 0; j < columns.length; j++) if (typeof columns[j] !== "string") return;
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i];
    if (!ArrayIsArray(row)) continue;
    const named = { __proto__: null };
    for (let j = 0; j < columns.length; j++) named[columns[j]] = row[j];
    rows[i] = named;
  }
}

function columnsOf(rows) {
  const names = [];
  for (let i = 0; i < rows.length; i++) {
    if (typeof rows[i] !== "object" || rows[i] === null) {
      throw new TypeError(`table: row ${i} is ${plain(rows[i])}, and no object or array`);
    }
    const keys = ObjectKeys(rows[i]);
    for (let j = 0; j < keys.length && names.length < TABLE_COLUMNS_MAX; j++) {
      if (!ArrayPrototypeIncludes(names, keys[j])) ArrayPrototypePush(names, keys[j]);
    }
  }
  return names;
}

// -- Deno's kernel -------------------------------------------------------------------------------

/** What a value looks like: a promise of its bundle. */
async function format(value) {
  const found = await bundle(value);
  return found && { ...found };
}

/** Sends a message to the front ends; of those that Deno's kernel knows, the ones that show something. */
async function broadcast(type, content, options) {
  const metadata = JSONStringify(options?.metadata ?? content?.metadata ?? {});
  switch (type) {
    case "display_data":
    case "update_display_data": {
      const id = content.transient?.display_id;
      return obey(ops.op_cob_display(parts(content.data), metadata, text(id ?? ops.op_cob_uuid()), type !== "display_data"));
    }
    case "execute_result":
      return obey(ops.op_cob_result(content.execution_count, parts(content.data), metadata));
    case "clear_output":
      return clearOutput(content);
    default:
      throw new TypeError(`broadcast: ${type} cannot be sent from here; cob.comm has the comms`);
  }
}

/** `Deno.jupyter`, so that notebooks made for Deno's kernel run. */
export const jupyter = ObjectFreeze({
  $display,
  broadcast,
  display: async (value, options) => void await display(value, options),
  format,
  html,
  image,
  md,
  svg,
});

// Values as MIME bundles: the conventions of Deno's Jupyter kernel.
//
// A bundle is an object, MIME type to representation: text, bytes, or what JSON can hold.

const { core } = globalThis.Deno;
const {
  ArrayBufferIsView,
  ArrayIsArray,
  ArrayPrototypeIncludes,
  ArrayPrototypePush,
  DataViewPrototypeGetBuffer,
  DataViewPrototypeGetByteLength,
  DataViewPrototypeGetByteOffset,
  JSONStringify,
  ObjectKeys,
  RegExpPrototypeExec,
  RegExpPrototypeTest,
  SafeRegExp,
  String,
  StringPrototypeIndexOf,
  StringPrototypeReplaceAll,
  StringPrototypeSlice,
  StringPrototypeStartsWith,
  StringPrototypeToWellFormed,
  SymbolFor,
  TypeError,
  TypedArrayPrototypeGetBuffer,
  TypedArrayPrototypeGetByteLength,
  TypedArrayPrototypeGetByteOffset,
  TypedArrayPrototypeGetLength,
  TypedArrayPrototypeGetSymbolToStringTag,
  Uint8Array,
} = globalThis.__bootstrap.primordials;
const { isAnyArrayBuffer } = core;
const { inspect } = core.loadExtScript("ext:deno_web/01_console.js");
const { TextDecoder } = core.loadExtScript("ext:deno_web/08_text_encoding.js");

/** The method with which a value says how it looks. */
export const $display = SymbolFor("Jupyter.display");

// Of a data frame: rows as data, and rows in a table.
const FRAME_ROWS = 50;
const FRAME_ROWS_SHOWN = 10;

const isObject = (value) => typeof value === "object" && value !== null;

/** The text of a value for people. */
export function plain(value) {
  return inspect(value, { __proto__: null, colors: false });
}

/** The bundle of a value, or a promise of it when the value takes its time. */
export function bundle(value) {
  if (!isObject(value) && typeof value !== "function") return { "text/plain": plain(value) };
  if (typeof value[$display] === "function") return value[$display]();
  if (!isObject(value)) return { "text/plain": plain(value) };
  return image(value) ?? canvas(value) ?? vega(value) ?? frame(value) ?? element(value) ??
    { "text/plain": plain(value) };
}

/** Whether something is a bundle at all. */
export function checked(found) {
  if (isObject(found) && !ArrayIsArray(found)) return found;
  throw new TypeError(`how a value looks must be told by MIME type, as in {"text/html": text}, not ${plain(found)}`);
}

/** The bundle as the worker takes it: MIME type, encoding and payload, one after the other. */
export function parts(found) {
  checked(found);
  const flat = [];
  const types = ObjectKeys(found);
  for (let i = 0; i < types.length; i++) {
    const type = types[i];
    const payload = found[type];
    if (payload === undefined || payload === null) continue;
    const part = encoded(type, payload);
    ArrayPrototypePush(flat, StringPrototypeToWellFormed(type), part.encoding, part.payload);
  }
  return flat;
}

function encoded(type, payload) {
  if (typeof payload === "string") return { encoding: "t", payload };
  const bytes = bytesOf(payload);
  if (bytes !== undefined) {
    return isText(type)
      ? { encoding: "t", payload: new TextDecoder().decode(bytes) }
      : { encoding: "b", payload: bytes };
  }
  const text = JSONStringify(payload);
  if (text === undefined) {
    throw new TypeError(`${type}: a representation is text, bytes or what JSON can hold, not ${plain(payload)}`);
  }
  return { encoding: "j", payload: text };
}

const isText = (type) =>
  StringPrototypeStartsWith(type, "text/") || type === "image/svg+xml" || type === "application/javascript";

/** The bytes of a buffer or of a view on one, without a copy; undefined if it is neither. */
export function bytesOf(value) {
  if (isAnyArrayBuffer(value)) return new Uint8Array(value);
  if (!ArrayBufferIsView(value)) return undefined;
  if (TypedArrayPrototypeGetSymbolToStringTag(value) === undefined) {
    const buffer = DataViewPrototypeGetBuffer(value);
    return new Uint8Array(buffer, DataViewPrototypeGetByteOffset(value), DataViewPrototypeGetByteLength(value));
  }
  const buffer = TypedArrayPrototypeGetBuffer(value);
  return new Uint8Array(buffer, TypedArrayPrototypeGetByteOffset(value), TypedArrayPrototypeGetByteLength(value));
}

// -- what other libraries make, known by what it can do ------------------------------------------

const MAGIC = [
  ["image/png", [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a], 0],
  ["image/jpeg", [0xff, 0xd8, 0xff], 0],
  ["image/gif", [0x47, 0x49, 0x46, 0x38], 0],
  ["image/webp", [0x57, 0x45, 0x42, 0x50], 8],
];

/** The MIME type of an image, by its first bytes. */
export function imageType(bytes) {
  const length = TypedArrayPrototypeGetLength(bytes);
  for (let i = 0; i < MAGIC.length; i++) {
    const type = MAGIC[i][0], magic = MAGIC[i][1], from = MAGIC[i][2];
    let same = length > from + magic.length;
    for (let at = 0; same && at < magic.length; at++) same = bytes[from + at] === magic[at];
    if (same) return type;
  }
  return undefined;
}

function image(value) {
  if (TypedArrayPrototypeGetSymbolToStringTag(value) !== "Uint8Array") return undefined;
  const type = imageType(value);
  return type && { [type]: value };
}

const dataUrl = new SafeRegExp("^data:([^;,]+)((?:;[^;,]*)*),");
const isBase64 = new SafeRegExp(";base64$");

function canvas(value) {
  if (typeof value.toDataURL !== "function") return undefined;
  const url = String(value.toDataURL());
  const found = RegExpPrototypeExec(dataUrl, StringPrototypeSlice(url, 0, 1000));
  if (found === null) throw new TypeError("toDataURL() has returned no data: URL");
  const data = StringPrototypeSlice(url, StringPrototypeIndexOf(url, ",") + 1);
  return { [found[1]]: RegExpPrototypeTest(isBase64, found[2]) ? data : globalThis.decodeURIComponent(data) };
}

const VEGA = new SafeRegExp("/schema/(vega|vega-lite)/v([0-9]+)");

function vega(value) {
  if (typeof value.toSpec !== "function") return undefined;
  const spec = value.toSpec();
  if (!isObject(spec) || typeof spec.$schema !== "string") return undefined;
  const found = RegExpPrototypeExec(VEGA, spec.$schema);
  const name = found?.[1] === "vega-lite" ? "vegalite" : "vega";
  return { [`application/vnd.${name}.v${found?.[2] ?? 5}+json`]: spec };
}

const NUMBERS = ["Float32", "Float64"];
const INTEGERS = ["Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"];
const OTHERS = { __proto__: null, Null: "null", Bool: "boolean", List: "array", Struct: "object" };

function columnType(type) {
  const name = typeof type?.toJSON === "function" ? type.toJSON()?.DataType : type;
  if (ArrayPrototypeIncludes(INTEGERS, name)) return "integer";
  if (ArrayPrototypeIncludes(NUMBERS, name)) return "number";
  return (typeof name === "string" ? OTHERS[name] : undefined) ?? "string";
}

function frame(value) {
  if (!isObject(value.schema) || typeof value.head !== "function" || typeof value.toRecords !== "function") {
    return undefined;
  }
  const names = ObjectKeys(value.schema);
  const fields = [];
  for (let i = 0; i < names.length; i++) {
    ArrayPrototypePush(fields, { name: names[i], type: columnType(value.schema[names[i]]) });
  }
  const data = value.head(FRAME_ROWS).toRecords();
  const shown = value.head(FRAME_ROWS_SHOWN).toRecords();
  return {
    "application/vnd.dataresource+json": { data, schema: { fields } },
    "text/html": htmlTable(names, shown, (row, name) => String(row[name])),
    "text/plain": plain(value),
  };
}

function element(value) {
  const html = value.outerHTML;
  if (typeof html !== "string") return undefined;
  return { [StringPrototypeStartsWith(html, "<svg") ? "image/svg+xml" : "text/html"]: html };
}

// -- HTML ----------------------------------------------------------------------------------------

/** A table; `cell` says what stands in a row under a name. */
export function htmlTable(names, rows, cell) {
  let html = "<table><thead><tr>";
  for (let i = 0; i < names.length; i++) html += `<th>${escaped(names[i])}</th>`;
  html += "</tr></thead><tbody>";
  for (let i = 0; i < rows.length; i++) {
    html += "<tr>";
    for (let j = 0; j < names.length; j++) html += `<td>${escaped(cell(rows[i], names[j]))}</td>`;
    html += "</tr>";
  }
  return html + "</tbody></table>";
}

const ENTITIES = ["&", "&amp;", "<", "&lt;", ">", "&gt;", '"', "&quot;", "'", "&#39;"];

function escaped(text) {
  for (let i = 0; i < ENTITIES.length; i += 2) text = StringPrototypeReplaceAll(text, ENTITIES[i], ENTITIES[i + 1]);
  return text;
}

// Completions and descriptions of what stands in the session, and a list of it.
//
// No code of the user's runs for any of it: properties are looked at through their descriptors, no getter is called, and
// a Proxy is never asked. Everything used here was taken before there was a session, so that it does not matter what
// code does to the built-in objects; for the same reason there are no iterators, no regular expressions, and JSON is
// put together by hand (`toJSON` would be a function of the user's).

import { isOpaque, lookUp, typeOf, valueOf, wantedKeys } from "ext:cob/looking.js";
import { preview, sizes } from "ext:cob/preview.js";

const { primordials } = globalThis.__bootstrap;
const { FunctionPrototypeToString, JSONParse, JSONStringify, ObjectHasOwn, ObjectIs, ReflectOwnKeys } = primordials;
const { Map, MapPrototypeGet, MapPrototypeHas, MapPrototypeSet, Set, SetPrototypeAdd, SetPrototypeHas } = primordials;
const { StringPrototypeSlice, StringPrototypeStartsWith, StringPrototypeIncludes, StringPrototypeToWellFormed } = primordials;
const quoted = (text) => JSONStringify(StringPrototypeToWellFormed(text));
const field = (name, json) => `,${quoted(name)}:${json}`;

const global = globalThis;
const prototypes = {
  __proto__: null,
  Array: Array.prototype,
  BigInt: BigInt.prototype,
  Number: Number.prototype,
  RegExp: RegExp.prototype,
  String: String.prototype,
};

/** The names that a session has before any code ran in it, and their values. */
let boot;

/** Takes down what there is. What comes later is the user's. */
export function begin() {
  if (boot !== undefined) return;
  boot = new Map();
  const names = ReflectOwnKeys(global);
  for (let at = 0; at < names.length; at++) MapPrototypeSet(boot, names[at], valueOf(lookUp(global, names[at])));
}

/** Follows a chain: the descriptor of its last member, or nothing. */
function follow(chain) {
  let found = start(chain);
  for (let at = 0; found !== undefined && at < chain.members.length; at++) {
    if (!ObjectHasOwn(found, "value")) return undefined;
    found = lookUp(found.value, chain.members[at]);
  }
  return found;
}

function start({ kind, name, made }) {
  if (kind === "literal") return { __proto__: null, value: prototypes[name] };
  const found = name === "this" ? { __proto__: null, value: global } : lookUp(global, name);
  if (kind === "name") return found;
  const constructor = valueOf(made.length > 0 ? follow({ kind: "name", name, made: [], members: made }) : found);
  return typeof constructor === "function" ? lookUp(constructor, "prototype") : undefined;
}

/** Members of what a chain comes to: a JSON list of names and kinds, the nearest first, at most `max`. */
export function members(text, prefix, max) {
  return listed(valueOf(follow(JSONParse(text))), prefix, max, true);
}

/** Its own keys that are texts. */
export function keys(text, max) {
  const value = valueOf(follow(JSONParse(text)));
  return typeof value === "object" ? listed(value, "", max, false) : "[]";
}

/** The names of the session. */
export function names(prefix, max) {
  return listed(global, prefix, max, false);
}

function listed(value, prefix, max, inherited) {
  if (value === undefined || value === null) return "[]";
  const seen = new Set();
  let count = 0;
  let json = "";
  wantedKeys(value, inherited, (owner, key) => {
    if (!StringPrototypeStartsWith(key, prefix) || SetPrototypeHas(seen, key)) return true;
    SetPrototypeAdd(seen, key);
    json += `${json === "" ? "" : ","}[${quoted(key)},${quoted(kindOf(lookUp(owner, key)))}]`;
    return ++count < max;
  });
  return `[${json}]`;
}

/** The kind of a completion, in the words that front ends know. */
function kindOf(descriptor) {
  if (descriptor === undefined) return "instance";
  if (!ObjectHasOwn(descriptor, "value")) return "property";
  const type = typeOf(descriptor.value);
  return type === "class" || type === "function" ? type : "instance";
}

/** What is to be said of the first of some chains that there is: a JSON object; nothing when there is none. */
export function describe(text, sourceMax, previewMax) {
  const chains = JSONParse(text);
  for (let at = 0; at < chains.length; at++) {
    const found = follow(chains[at]);
    if (found !== undefined) return described(found, at, sourceMax, previewMax);
  }
  return "";
}

function described(found, at, sourceMax, previewMax) {
  let json = `{"chain":${at}`;
  if (!ObjectHasOwn(found, "value")) {
    const code = typeof found.get === "function" ? found.get : found.set;
    return `${json}${field("type", '"accessor"')}${function_(code, sourceMax)}}`;
  }
  const { value } = found;
  json += field("type", quoted(typeOf(value)));
  if (typeof value === "function" && !isOpaque(value)) return `${json}${function_(value, sourceMax)}}`;
  const size = sizes(value);
  return `${json}${field("preview", quoted(preview(value, previewMax)))}${size === "" ? "" : `,${size}`}}`;
}

function function_(code, sourceMax) {
  if (typeof code !== "function" || isOpaque(code)) return "";
  const source = FunctionPrototypeToString(code);
  const name = valueOf(lookUp(code, "name"));
  const length = valueOf(lookUp(code, "length"));
  let json = field("source", quoted(StringPrototypeSlice(source, 0, sourceMax)));
  if (typeof name === "string") json += field("name", quoted(StringPrototypeSlice(name, 0, 200)));
  if (typeof length === "number" && length >= 0 && length < 256) json += field("length", `${length}`);
  if (StringPrototypeIncludes(source, "[native code]")) json += field("path", quoted(pathOf(code)));
  return json;
}

/** Where a built-in function stands: `Array.prototype.map`; empty if nowhere. */
function pathOf(code) {
  const globals = ReflectOwnKeys(global);
  for (let at = 0; at < globals.length; at++) {
    const name = globals[at];
    const value = valueOf(lookUp(global, name));
    if (typeof name !== "string" || value === global || MapPrototypeGet(boot, name) !== value) continue;
    if (value === code) return name;
    const found = memberOf(value, code) || memberOf(valueOf(lookUp(value, "prototype")), code, "prototype.");
    if (found) return `${name}.${found}`;
  }
  return "";
}

function memberOf(owner, code, prefix = "") {
  if (owner === null || (typeof owner !== "object" && typeof owner !== "function") || isOpaque(owner)) return "";
  let found = "";
  wantedKeys(owner, false, (_, key) => {
    const descriptor = lookUp(owner, key);
    if (key === "constructor" || descriptor === undefined) return true;
    const is = ObjectHasOwn(descriptor, "value") ? descriptor.value === code : descriptor.get === code;
    if (is) found = prefix + key;
    return !is;
  });
  return found;
}

/** What the user has defined: a JSON list of names, types and sizes; at most `max`, the latest. */
export function namespace(max, nameMax) {
  const all = ReflectOwnKeys(global);
  let json = "";
  let count = 0;
  for (let at = all.length - 1; at >= 0 && count < max; at--) {
    const name = all[at];
    if (typeof name !== "string" || name === "_" || name === "_error") continue;
    const descriptor = lookUp(global, name);
    const value = valueOf(descriptor);
    if (descriptor === undefined || (MapPrototypeHas(boot, name) && ObjectIs(MapPrototypeGet(boot, name), value))) continue;
    const type = ObjectHasOwn(descriptor, "value") ? typeOf(value) : "accessor";
    const size = sizes(value);
    const entry = `{"name":${quoted(StringPrototypeSlice(name, 0, nameMax))},"type":${quoted(type)}${size && `,${size}`}}`;
    json = json === "" ? entry : `${entry},${json}`;
    count++;
  }
  return `[${json}]`;
}

// How a value looks in a line or two, and how large it is; without running code of the user's. Everything used here was
// taken before there was a session.

import { isError, isOpaque, lookUp, typeOf, valueOf, wantedKeys } from "ext:cob/looking.js";

const { primordials } = globalThis.__bootstrap;
const { ArrayBufferPrototypeGetByteLength, ArrayIsArray, DatePrototypeToISOString, JSONStringify } = primordials;
const { MapPrototypeEntries, MapPrototypeGetSize, ObjectGetOwnPropertyDescriptor, ObjectHasOwn, ObjectIs } = primordials;
const { SetPrototypeGetSize, SetPrototypeValues, StringPrototypeSlice, SymbolPrototypeToString } = primordials;
const { TypedArrayPrototypeGetByteLength, TypedArrayPrototypeGetLength, TypedArrayPrototypeGetSymbolToStringTag } = primordials;
const { ObjectGetPrototypeOf, uncurryThis } = primordials;

const nextOfMap = uncurryThis(ObjectGetPrototypeOf(new Map().entries()).next);
const nextOfSet = uncurryThis(ObjectGetPrototypeOf(new Set().values()).next);
const getterOf = (name) => uncurryThis(ObjectGetOwnPropertyDescriptor(RegExp.prototype, name).get);
const sourceOfPattern = getterOf("source");
const FLAGS = [
  ["d", getterOf("hasIndices")],
  ["g", getterOf("global")],
  ["i", getterOf("ignoreCase")],
  ["m", getterOf("multiline")],
  ["s", getterOf("dotAll")],
  ["u", getterOf("unicode")],
  ["v", getterOf("unicodeSets")],
  ["y", getterOf("sticky")],
];

const patterns = RegExp.prototype;
const ENTRIES_MAX = 20;
const DEPTH_MAX = 3;
const TEXT_MAX = 200;

/** What `ask` says of a value of its class; nothing for one of another class. */
function asked(ask, value) {
  try {
    return ask(value);
  } catch {
    return undefined;
  }
}

const isObject = (value) => typeof value === "object" && value !== null;
const lengthOf = (list) => valueOf(lookUp(list, "length"));

/** Fields of a JSON object that say how large a value is; empty if there is nothing to say. */
export function sizes(value) {
  if (typeof value === "string") return `"len":${value.length}`;
  if (!isObject(value) || isOpaque(value)) return "";
  if (ArrayIsArray(value)) return `"len":${lengthOf(value)}`;
  if (TypedArrayPrototypeGetSymbolToStringTag(value) !== undefined) {
    return `"shape":[${TypedArrayPrototypeGetLength(value)}],"nbytes":${TypedArrayPrototypeGetByteLength(value)}`;
  }
  const count = asked(MapPrototypeGetSize, value) ?? asked(SetPrototypeGetSize, value);
  if (count !== undefined) return `"len":${count}`;
  const bytes = asked(ArrayBufferPrototypeGetByteLength, value);
  return bytes === undefined ? "" : `"nbytes":${bytes}`;
}

/** A line about a value, of about `max` characters at most. */
export function preview(value, max) {
  const line = shown(value, 0, max);
  return line.length > max ? `${StringPrototypeSlice(line, 0, max)}\u2026` : line;
}

function shown(value, depth, max) {
  if (typeof value === "string") {
    return value.length > TEXT_MAX ? `${JSONStringify(StringPrototypeSlice(value, 0, TEXT_MAX))}\u2026` : JSONStringify(value);
  }
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "symbol") return SymbolPrototypeToString(value);
  if (ObjectIs(value, -0)) return "-0";
  if (typeof value === "function" && !isOpaque(value)) return `[${typeOf(value)} ${nameOf(value)}]`;
  if (!isObject(value)) return isOpaque(value) ? "Proxy" : `${value}`;
  if (isOpaque(value)) return "Proxy";
  return ofClass(value) ?? (depth >= DEPTH_MAX ? `[${typeOf(value)}]` : ofEntries(value, depth, max));
}

function nameOf(value) {
  const name = valueOf(lookUp(value, "name"));
  return typeof name === "string" && name !== "" ? StringPrototypeSlice(name, 0, TEXT_MAX) : "(anonymous)";
}

/** Those that have a notation of their own. */
function ofClass(value) {
  const date = asked(DatePrototypeToISOString, value);
  if (date !== undefined) return date;
  const source = asked(sourceOfPattern, value);
  if (source !== undefined && value !== patterns) {
    let flags = "";
    for (let at = 0; at < FLAGS.length; at++) if (asked(FLAGS[at][1], value)) flags += FLAGS[at][0];
    return `/${source}/${flags}`;
  }
  if (isError(value)) {
    const message = valueOf(lookUp(value, "message"));
    return `${typeOf(value)}${typeof message === "string" ? `: ${StringPrototypeSlice(message, 0, TEXT_MAX)}` : ""}`;
  }
  return undefined;
}

function ofEntries(value, depth, max) {
  const type = typeOf(value);
  const next = (inner) => shown(inner, depth + 1, max);
  if (ArrayIsArray(value)) {
    const element = (at) => ofProperty(ObjectGetOwnPropertyDescriptor(value, `${at}`), next);
    return `${type === "Array" ? "" : `${type} `}${series("[", lengthOf(value), element, "]", max)}`;
  }
  if (TypedArrayPrototypeGetSymbolToStringTag(value) !== undefined) {
    const length = TypedArrayPrototypeGetLength(value);
    return `${type}(${length}) ${series("[", length, (at) => next(value[at]), "]", max)}`;
  }
  const mapped = asked(MapPrototypeGetSize, value);
  if (mapped !== undefined) {
    const entries = MapPrototypeEntries(value);
    const entry = () => {
      const pair = nextOfMap(entries).value;
      return `${next(pair[0])} => ${next(pair[1])}`;
    };
    return `${type}(${mapped}) ${series("{", mapped, entry, "}", max)}`;
  }
  const held = asked(SetPrototypeGetSize, value);
  if (held !== undefined) {
    const values = SetPrototypeValues(value);
    return `${type}(${held}) ${series("{", held, () => next(nextOfSet(values).value), "}", max)}`;
  }
  return `${type === "Object" ? "" : `${type} `}${properties(value, next, max)}`;
}

function properties(value, next, max) {
  let line = "";
  let count = 0;
  wantedKeys(value, false, (owner, key) => {
    const isOver = count === ENTRIES_MAX || line.length > max;
    line += `${count === 0 ? " " : ", "}${isOver ? "\u2026" : `${key}: ${ofProperty(lookUp(owner, key), next)}`}`;
    count++;
    return !isOver;
  });
  return count === 0 ? "{}" : `{${line} }`;
}

function ofProperty(descriptor, next) {
  if (descriptor === undefined) return "<empty>";
  return ObjectHasOwn(descriptor, "value") ? next(descriptor.value) : "[Getter]";
}

function series(open, length, element, close, max) {
  let line = "";
  for (let at = 0; at < length; at++) {
    if (at === ENTRIES_MAX || line.length > max) {
      line += `, \u2026 ${length - at} more`;
      break;
    }
    line += `${at === 0 ? " " : ", "}${element(at)}`;
  }
  return length === 0 ? `${open}${close}` : `${open}${line} ${close}`;
}

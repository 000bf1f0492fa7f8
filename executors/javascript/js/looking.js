// Looking at values without running code of the user's. Everything used here was taken before there was a session.

const { primordials } = globalThis.__bootstrap;
const { ops } = globalThis.Deno.core;
const { ArrayIsArray, ObjectGetOwnPropertyDescriptor, ObjectGetPrototypeOf, ObjectHasOwn, ReflectOwnKeys } = primordials;
const { StringPrototypeSlice, TypedArrayPrototypeGetSymbolToStringTag } = primordials;

/** More elements than this, and a list is not asked for the names it may have besides. */
const ELEMENTS_MAX = 10_000;
/** Nobody inherits over more steps in earnest. */
const LEVELS_MAX = 100;
const NAME_MAX = 200;

const isObject = (value) => (typeof value === "object" && value !== null) || typeof value === "function";

/** A Proxy: whatever is asked of it is answered by code of the user's. */
export const isOpaque = (value) => isObject(value) && ops.op_cob_is_proxy(value);

export const isError = (value) => ops.op_cob_is_error(value);

/** The descriptor of a property, own or inherited; nothing if there is none, or if a Proxy would have to be asked. */
export function lookUp(owner, key) {
  for (let level = 0; owner !== null && owner !== undefined && level < LEVELS_MAX; level++) {
    if (isOpaque(owner)) return undefined;
    try {
      const found = ObjectGetOwnPropertyDescriptor(owner, key);
      if (found !== undefined) return found;
    } catch {
      // A name of a module that has no value yet.
      return undefined;
    }
    owner = ObjectGetPrototypeOf(owner);
  }
  return undefined;
}

/** The value of a property that is not computed. */
export function valueOf(descriptor) {
  return descriptor !== undefined && ObjectHasOwn(descriptor, "value") ? descriptor.value : undefined;
}

/** Calls `visit(owner, key)` for each key that is a text and no index, until it returns false. */
export function wantedKeys(value, inherited, visit) {
  for (let level = 0; value !== null && value !== undefined && level < LEVELS_MAX; level++) {
    if (isOpaque(value)) return;
    const keys = isLong(value) ? lengthOnly(value) : ReflectOwnKeys(value);
    for (let at = 0; at < keys.length; at++) {
      const key = keys[at];
      if (typeof key !== "string" || isIndex(key)) continue;
      if (!visit(value, key)) return;
    }
    if (!inherited) return;
    value = ObjectGetPrototypeOf(value);
  }
}

/** Its own keys are indices, or so many of them that the others are not worth it. */
function isLong(value) {
  if (!isObject(value)) return true;
  if (TypedArrayPrototypeGetSymbolToStringTag(value) !== undefined) return true;
  return ArrayIsArray(value) && value.length > ELEMENTS_MAX;
}

function lengthOnly(value) {
  return ObjectGetOwnPropertyDescriptor(value, "length") === undefined ? [] : ["length"];
}

function isIndex(key) {
  return key[0] >= "0" && key[0] <= "9";
}

/** What a value is, in a word: `number`, `function`, `class`, `Proxy`, or the class that it is of. */
export function typeOf(value) {
  if (value === null) return "null";
  if (!isObject(value)) return typeof value;
  if (isOpaque(value)) return "Proxy";
  if (typeof value === "function") return isClass(value) ? "class" : "function";
  const constructor = valueOf(lookUp(ObjectGetPrototypeOf(value), "constructor"));
  const name = typeof constructor === "function" ? valueOf(lookUp(constructor, "name")) : undefined;
  return typeof name === "string" && name !== "" ? StringPrototypeSlice(name, 0, NAME_MAX) : "Object";
}

/** The prototype of a class cannot be replaced, that of a function can. */
function isClass(value) {
  const descriptor = ObjectGetOwnPropertyDescriptor(value, "prototype");
  return descriptor !== undefined && ObjectHasOwn(descriptor, "value") && !descriptor.writable;
}

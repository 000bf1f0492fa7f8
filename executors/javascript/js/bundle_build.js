// From the nodes of a component to values. Nothing recurses, and nothing that is read is trusted to be of the right shape.

const { defineProperty, deleteProperty, getOwnPropertyDescriptor, getPrototypeOf, setPrototypeOf } = Reflect;
const { create, freeze, preventExtensions, seal } = Object;
const evaluate = globalThis.eval; // by another name: in the global scope

const ERRORS = new Set([
  "Error", "TypeError", "RangeError", "SyntaxError", "ReferenceError", "EvalError", "URIError", "AggregateError",
]);
const VIEWS = new Set([
  "Int8Array", "Uint8Array", "Uint8ClampedArray", "Int16Array", "Uint16Array", "Int32Array", "Uint32Array",
  "BigInt64Array", "BigUint64Array", "Float16Array", "Float32Array", "Float64Array", "DataView",
]);
const DECLARATION = /^(?:async\s+)?function\s*\*?\s*([\p{ID_Start}$_][\p{ID_Continue}$]*)\s*\(/u;
/** What others are made of. */
const FIRST = new Set(["symbol", "string", "buffer", "prototype", "text"]);
const [WRITABLE, ENUMERABLE, CONFIGURABLE] = [4, 2, 1];

export class Builder {
  #nodes;
  #buffers;
  #know;
  #made = [];

  /** `buffers`: what stands beside the nodes; `know` is told of functions, which can be saved again. */
  constructor(nodes, buffers, know) {
    this.#nodes = nodes;
    this.#buffers = buffers;
    this.#know = know;
  }

  /** Functions and classes, in the order in which they were defined: one may need another. */
  define(values) {
    const functions = this.#nodes.flatMap(([kind, payload], id) => (kind === "function" ? [{ id, payload }] : []));
    functions.sort((a, b) => a.payload[2] - b.payload[2]);
    for (const { id, payload: [name, text, , has_private] } of functions) {
      const made = makeFunction(name, text);
      this.#know(made, { name, has_private, is_private: false });
      this.#made[id] = made;
      const wanted = values.find(([, ref]) => Array.isArray(ref) && ref[0] === id);
      if (wanted) put(globalThis, wanted[0], made, WRITABLE | ENUMERABLE | CONFIGURABLE);
    }
  }

  /** Everything else: first empty, then with its parts. */
  fill() {
    const all = this.#nodes.map((_, id) => id).filter((id) => this.#nodes[id][0] !== "function");
    const isFirst = (id) => FIRST.has(this.#nodes[id][0]);
    for (const id of all.filter(isFirst)) this.#made[id] = this.#make(...this.#nodes[id]);
    for (const id of all.filter((id) => !isFirst(id))) this.#made[id] = this.#make(...this.#nodes[id]);
    this.#nodes.forEach((node, id) => this.#complete(this.#made[id], ...node));
  }

  /** What a ref stands for. */
  value(ref) {
    if (!Array.isArray(ref)) return ref;
    const [tag, text] = ref;
    if (typeof tag === "number") {
      if (!(tag in this.#made)) throw new TypeError(`there is no node ${tag}`);
      return this.#made[tag];
    }
    switch (tag) {
      case "undefined":
        return undefined;
      case "null":
        return null;
      case "number":
        return Number(text);
      case "bigint":
        return BigInt(text);
      case "for":
        return Symbol.for(text);
      case "builtin":
        return resolve(text);
      default:
        throw new TypeError(`the value ${tag} is unknown`);
    }
  }

  #make(kind, payload, proto) {
    switch (kind) {
      case "symbol":
        return payload === null ? Symbol() : Symbol(payload);
      case "string":
        return `${payload}`;
      case "prototype":
        return this.value(payload).prototype;
      case "buffer":
        return this.#buffer(...payload);
      case "text": {
        const maker = resolve(payload[0]);
        return payload[0] === "URL" ? new maker(payload[1]) : maker.from(payload[1]);
      }
      case "object":
        return this.#create(proto);
      case "array":
        return new Array(payload[0]);
      case "map":
        return new Map();
      case "set":
        return new Set();
      case "date":
        return new Date(payload ?? NaN);
      case "regexp":
        return new RegExp(payload[0], payload[1]);
      case "boxed":
        return Object(this.value(payload));
      case "view":
        return this.#view(...payload);
      case "error":
        return makeError(payload);
      default:
        throw new TypeError(`a value of the kind ${kind} is unknown`);
    }
  }

  /** With its prototype from the start if that is there already. */
  #create(proto) {
    if (proto == null) return {};
    const known = typeof proto[0] !== "number" || proto[0] in this.#made;
    return known ? create(this.value(proto)) : {};
  }

  #buffer(blob, from, length, longest) {
    const source = this.#buffers.at(blob < 0 ? -1 : blob - 1);
    if (source === undefined || from + length > source.byteLength) throw new TypeError("bytes of a buffer are missing");
    if (blob > 0 && longest === null && length === source.byteLength) return source;
    const made = longest === null ? new ArrayBuffer(length) : new ArrayBuffer(length, { maxByteLength: longest });
    new Uint8Array(made).set(new Uint8Array(source, from, length));
    return made;
  }

  #view(name, buffer, from, length) {
    if (!VIEWS.has(name)) throw new TypeError(`views of the kind ${name} are unknown`);
    return new globalThis[name](this.value(buffer), from, length ?? undefined);
  }

  #complete(made, kind, payload, proto, properties, odd, integrity) {
    if (kind === "array") payload[1].forEach((ref, at) => (made[at] = this.value(ref)));
    else if (kind === "map") for (let at = 0; at < payload.length; at += 2) made.set(this.value(payload[at]), this.value(payload[at + 1]));
    else if (kind === "set") payload.forEach((ref) => made.add(this.value(ref)));
    else if (kind === "regexp") made.lastIndex = this.value(payload[2]);
    if (proto != null && getPrototypeOf(made) !== this.value(proto)) setPrototypeOf(made, this.value(proto));
    for (let at = 0; at < (properties?.length ?? 0); at += 2) {
      put(made, this.value(properties[at]), this.value(properties[at + 1]), WRITABLE | ENUMERABLE | CONFIGURABLE);
    }
    for (let at = 0; at < (odd?.length ?? 0); at += 3) {
      put(made, this.value(odd[at]), this.value(odd[at + 1]), odd[at + 2]);
    }
    if (integrity) [preventExtensions, seal, freeze][integrity - 1](made);
  }
}

/** As it was defined: a declaration calls itself by its global name, also when that is given another function later. */
function makeFunction(name, text) {
  if (DECLARATION.exec(text)?.[1] === name) {
    const before = getOwnPropertyDescriptor(globalThis, name);
    evaluate(text);
    const made = globalThis[name];
    if (before === undefined) deleteProperty(globalThis, name);
    else put(globalThis, name, before.value, WRITABLE | ENUMERABLE | CONFIGURABLE);
    return made;
  }
  const made = evaluate(`(${text}\n)`);
  if (typeof made !== "function") throw new TypeError(`the source of ${name} is no function`);
  if (made.name === "") defineProperty(made, "name", { value: name, configurable: true });
  return made;
}

function makeError(name) {
  if (!ERRORS.has(name)) throw new TypeError(`errors of the kind ${name} are unknown`);
  const made = name === "AggregateError" ? new AggregateError([]) : new globalThis[name]();
  for (const own of Reflect.ownKeys(made)) deleteProperty(made, own);
  return made;
}

function resolve(path) {
  if (path === "globalThis") return globalThis;
  let value = globalThis;
  for (const part of path.split(".")) value = value?.[part];
  if (value === undefined) throw new TypeError(`${path} is not there`);
  return value;
}

/** Sets a property without running any code of a class. */
function put(object, key, value, flags) {
  const writable = (flags & WRITABLE) !== 0;
  const enumerable = (flags & ENUMERABLE) !== 0;
  const configurable = (flags & CONFIGURABLE) !== 0;
  const is = getOwnPropertyDescriptor(object, key);
  const wanted = is === undefined || is.configurable ? { value, writable, enumerable, configurable } : { value };
  if (!defineProperty(object, key, wanted)) throw new TypeError(`the property ${String(key)} cannot be set`);
}

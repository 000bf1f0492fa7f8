// The graph of what variables reach: nodes that can be written down, what spoils others, and what belongs together.

const { core } = globalThis.Deno;
const { defineProperty, getOwnPropertyDescriptor, getPrototypeOf, ownKeys } = Reflect;
const { isExtensible, isFrozen, isSealed, prototype: ObjectPrototype } = Object;
const uncurry = (method) => Function.prototype.call.bind(method);
const sourceOf = uncurry(Function.prototype.toString);
const tagOf = uncurry(ObjectPrototype.toString);
const getTime = uncurry(Date.prototype.getTime);
const mapForEach = uncurry(Map.prototype.forEach);
const setForEach = uncurry(Set.prototype.forEach);
const mapSize = uncurry(getOwnPropertyDescriptor(Map.prototype, "size").get);
const setSize = uncurry(getOwnPropertyDescriptor(Set.prototype, "size").get);
const viewTag = uncurry(getOwnPropertyDescriptor(getPrototypeOf(Int8Array.prototype), Symbol.toStringTag).get);

const LONG_STRING = 256;
const BUILTIN_DEPTH = 4;
const WAY_MAX = 8;
const [WRITABLE, ENUMERABLE, CONFIGURABLE] = [4, 2, 1];
const USUAL = WRITABLE | ENUMERABLE | CONFIGURABLE;

/** What would be a lie if it came back. */
const WORDS = [
  ["isPromise", "a promise"],
  ["isGeneratorObject", "a generator"],
  ["isWeakMap", "a WeakMap"],
  ["isWeakSet", "a WeakSet"],
  ["isMapIterator", "an iterator"],
  ["isSetIterator", "an iterator"],
  ["isSharedArrayBuffer", "shared memory"],
  ["isModuleNamespaceObject", "a module, which has to be imported again"],
];

/** Whether a value is what it looks like: one engine takes the prototype of a class that extends Map for a map. */
function works(read, value) {
  try {
    read(value);
    return true;
  } catch {
    return false;
  }
}

/** Written as their text, from which they are made again. */
const isText = (path) => path === "URL" || /^Temporal\.[A-Z]\w+$/.test(path);

export class Graph {
  #defined;
  #ids = new Map();
  #builtins = new Map();
  /** By node: the value; what refers to it; what is written; whom it refers to; why it cannot be saved. */
  #values = [];
  #refs = [];
  #rows = [];
  #edges = [];
  #bad = [];
  /** By spoilt node: the next one on the way to what spoils it. */
  #next = [];
  #own = undefined;

  constructor(defined) {
    this.#defined = defined;
    this.#learn("globalThis", globalThis, 0);
  }

  /** What is the same in every session, by its path. */
  #learn(path, value, depth) {
    if (value === null || (typeof value !== "object" && typeof value !== "function" && typeof value !== "symbol")) return;
    if (this.#builtins.has(value) || this.#defined.has(value)) return;
    this.#builtins.set(value, path);
    if (depth === BUILTIN_DEPTH || typeof value === "symbol") return;
    for (const key of ownKeys(value)) {
      if (typeof key !== "string" || key.includes(".") || key.startsWith("__v8x") || (depth === 0 && !given.has(key))) continue;
      const part = getOwnPropertyDescriptor(value, key)?.value;
      this.#learn(depth === 0 ? key : `${path}.${key}`, part, depth + 1);
    }
  }

  /** What stands for a value; objects are looked at later. */
  ref(value) {
    switch (typeof value) {
      case "string":
        return value.length > LONG_STRING ? this.#node(value) : value;
      case "number":
        return Number.isFinite(value) && !Object.is(value, -0) ? value : ["number", Object.is(value, -0) ? "-0" : `${value}`];
      case "boolean":
        return value;
      case "undefined":
        return ["undefined"];
      case "bigint":
        return ["bigint", `${value}`];
      default:
    }
    if (value === null) return null;
    const path = this.#builtins.get(value);
    if (path !== undefined) return ["builtin", path];
    if (typeof value === "symbol" && Symbol.keyFor(value) !== undefined) return ["for", Symbol.keyFor(value)];
    return this.#node(value);
  }

  #node(value) {
    let id = this.#ids.get(value);
    if (id === undefined) {
      id = this.#values.length;
      this.#ids.set(value, id);
      this.#values.push(value);
      this.#refs.push([id]);
    }
    if (this.#own !== undefined) this.#own.push(id);
    return this.#refs[id];
  }

  /** Looks at everything that can be reached. */
  walk() {
    for (let id = 0; id < this.#values.length; id++) {
      this.#own = [];
      this.#edges.push(this.#own);
      try {
        const row = this.#look(this.#values[id]);
        while (row.at(-1) === undefined) row.pop();
        this.#rows.push(row);
      } catch (error) {
        this.#bad[id] = error instanceof Unsavable ? error.words : `an object that cannot be looked at (${error?.message})`;
        this.#rows.push(undefined);
      }
    }
    this.#own = undefined;
  }

  #look(value) {
    if (typeof value === "symbol") return ["symbol", value.description ?? null];
    if (typeof value === "string") return ["string", value];
    if (core.isProxy(value)) throw new Unsavable("a Proxy");
    if (typeof value === "function") return this.#function(value);
    const proto = getPrototypeOf(value);
    if (proto === ObjectPrototype) return this.#plain(value, proto);
    return this.#special(value, proto) ?? this.#plain(value, proto);
  }

  #special(value, proto) {
    const like = (kind, payload, usual, skip) => [kind, payload, this.#proto(proto, usual), ...this.#properties(value, skip)];
    if (Array.isArray(value)) {
      const elements = [];
      const rest = this.#properties(value, (key) => key === "length", elements);
      return ["array", [value.length, elements], this.#proto(proto, Array.prototype), ...rest];
    }
    if (core.isMap(value) && works(mapSize, value)) {
      const entries = [];
      mapForEach(value, (one, key) => entries.push(this.ref(key), this.ref(one)));
      return like("map", entries, Map.prototype);
    }
    if (core.isSet(value) && works(setSize, value)) {
      const entries = [];
      setForEach(value, (one) => entries.push(this.ref(one)));
      return like("set", entries, Set.prototype);
    }
    if (core.isNativeError(value)) return this.#error(value, proto);
    if (core.isDate(value)) {
      const time = getTime(value);
      return like("date", Number.isNaN(time) ? null : time, Date.prototype);
    }
    if (core.isRegExp(value)) {
      const payload = [value.source, value.flags, this.ref(value.lastIndex)];
      return like("regexp", payload, RegExp.prototype, (key) => key === "lastIndex");
    }
    if (core.isArrayBuffer(value)) {
      if (value.detached) throw new Unsavable("a buffer that was given away");
      return like("buffer", [value, value.resizable ? value.maxByteLength : null], ArrayBuffer.prototype);
    }
    if (ArrayBuffer.isView(value)) return this.#view(value, proto);
    if (core.isBoxedPrimitive(value)) {
      const inside = value.valueOf();
      const skip = typeof inside === "string" ? (key) => key === "length" || /^\d+$/.test(key) : undefined;
      return like("boxed", this.ref(inside), Object(inside).constructor.prototype, skip);
    }
    for (const [is, words] of WORDS) {
      if (core[is](value)) throw new Unsavable(words);
    }
    return undefined;
  }

  /** Only the numbers: other properties of views are not looked for. */
  #view(value, proto) {
    const name = viewTag(value) ?? "DataView";
    const { buffer, byteOffset } = value;
    const follows = buffer.resizable && byteOffset + value.byteLength === buffer.byteLength;
    const length = follows ? null : name === "DataView" ? value.byteLength : value.length;
    return ["view", [name, this.ref(buffer), byteOffset, length], this.#proto(proto, globalThis[name].prototype)];
  }

  #error(value, proto) {
    let kind = proto;
    while (kind !== null && !this.#builtins.has(kind)) kind = getPrototypeOf(kind);
    const name = this.#builtins.get(kind)?.split(".")[0] ?? "Error";
    const [properties, odd = [], integrity] = this.#properties(value, (key) => key === "stack");
    const { stack } = value;
    if (typeof stack === "string") odd.push("stack", this.ref(stack), WRITABLE | CONFIGURABLE);
    return ["error", name, this.#proto(proto, globalThis[name].prototype), properties, odd, integrity];
  }

  /** Its own properties, and the prototype of a function or class. */
  #plain(value, proto) {
    const maker = getOwnPropertyDescriptor(value, "constructor")?.value;
    if (typeof maker === "function" && this.#defined.has(maker) && maker.prototype === value) {
      const rest = this.#properties(value, (key, flags) => !(flags & ENUMERABLE), undefined);
      return ["prototype", this.ref(maker), this.#proto(proto, ObjectPrototype), ...rest];
    }
    for (let above = proto; above !== null && above !== ObjectPrototype; above = getPrototypeOf(above)) {
      if (core.isProxy(above)) throw new Unsavable("an object behind a Proxy");
      const path = this.#builtins.get(above);
      const name = path?.replace(/\.prototype$/, "");
      if (path !== undefined && above === proto && isText(name)) return ["text", [name, `${value}`]];
      if (path !== undefined && path !== "globalThis") throw new Unsavable(`an object of the runtime (${name})`);
      const its = getOwnPropertyDescriptor(above, "constructor")?.value;
      if (this.#defined.get(its)?.has_private) throw new Unsavable("an object with private fields, which nobody can read");
      if (above !== proto || its === undefined) continue;
      if (typeof its === "function" && isNative(its)) throw new Unsavable(`an object of the runtime (${its.name})`);
    }
    if (hiddenTag(proto)) throw new Unsavable(`an object of the runtime (${tagOf(value).slice(8, -1)})`);
    return ["object", undefined, this.#proto(proto, ObjectPrototype), ...this.#properties(value)];
  }

  #function(value) {
    const known = this.#defined.get(value);
    const text = sourceOf(value);
    if (known === undefined) throw new Unsavable(unknownFunction(text, value));
    if (known.is_private) throw new Unsavable("a class with private static parts, which nobody can read");
    const above = getPrototypeOf(value);
    if (!this.#builtins.has(above) && this.#defined.has(above)) this.ref(above);
    else if (text.startsWith("class") && typeof above === "function" && !this.#builtins.has(above)) this.ref(above);
    const own = new Set(["length", "name", "prototype", "arguments", "caller"]);
    const [properties, odd = [], integrity] = this.#properties(value, (key, flags) => own.has(key) || !(flags & ENUMERABLE));
    const prototype = getOwnPropertyDescriptor(value, "prototype");
    if (above === Function.prototype && prototype?.writable && getOwnPropertyDescriptor(prototype.value ?? {}, "constructor")?.value !== value) {
      odd.push("prototype", this.ref(prototype.value), WRITABLE);
    } else if (typeof prototype?.value === "object" && getOwnPropertyDescriptor(prototype.value, "constructor")?.value === value) {
      this.ref(prototype.value); // what was added to it belongs to it
    }
    const row = ["function", [known.name, text, known.order, known.has_private], undefined, properties];
    return odd.length > 0 || integrity ? [...row, odd, integrity] : row;
  }

  #proto(proto, usual) {
    if (proto === usual) return undefined;
    return proto === null ? ["null"] : this.ref(proto);
  }

  /** Usual properties, odd ones, integrity. Elements that come in order go into `elements`. */
  #properties(value, skip, elements) {
    const integrity = isExtensible(value) ? 0 : isFrozen(value) ? 3 : isSealed(value) ? 2 : 1;
    const implied = integrity === 3 ? WRITABLE | CONFIGURABLE : integrity === 2 ? CONFIGURABLE : 0;
    const usual = [];
    const odd = [];
    for (const key of ownKeys(value)) {
      const { value: part, get, set, writable, enumerable, configurable } = getOwnPropertyDescriptor(value, key);
      const flags = (writable ? WRITABLE : 0) | (enumerable ? ENUMERABLE : 0) | (configurable ? CONFIGURABLE : 0) | implied;
      if (skip?.(key, flags)) continue;
      if (get !== undefined || set !== undefined) throw new Unsavable(`an object with a getter or setter (${String(key)})`);
      const name = typeof key === "symbol" ? this.ref(key) : key;
      // Behind an odd one all are told with their flags, so that the order stays.
      if (flags !== USUAL || odd.length > 0) odd.push(name, this.ref(part), flags);
      else if (elements !== undefined && key === `${elements.length}`) elements.push(this.ref(part));
      else usual.push(name, this.ref(part));
    }
    return [usual.length > 0 || odd.length > 0 || integrity ? usual : undefined, odd.length > 0 ? odd : undefined, integrity || undefined];
  }

  /** Whatever reaches a node that cannot be saved cannot be saved either. */
  spread() {
    const queue = this.#bad.flatMap((_, id) => [id]);
    if (queue.length === 0) return;
    const from = this.#values.map(() => undefined);
    this.#edges.forEach((targets, id) => targets.forEach((target) => (from[target] ??= []).push(id)));
    for (let at = 0; at < queue.length; at++) {
      for (const id of from[queue[at]] ?? []) {
        if (this.#bad[id] !== undefined) continue;
        this.#bad[id] = this.#bad[queue[at]];
        this.#next[id] = queue[at];
        queue.push(id);
      }
    }
  }

  /** A sentence, if what the ref stands for cannot be saved. */
  reasonAgainst(ref) {
    const id = nodeOf(ref);
    const words = id === undefined ? undefined : this.#bad[id];
    if (words === undefined || this.#next[id] === undefined) return words && `it is ${words}`;
    let way = "";
    let at = id;
    for (let steps = 0; this.#next[at] !== undefined; steps++, at = this.#next[at]) {
      way += steps < WAY_MAX ? step(this.#values[at], this.#values[this.#next[at]]) : steps === WAY_MAX ? "..." : "";
    }
    return `its part ${way} is ${words}`;
  }

  /** Variables that share nodes, with all of those. `roots`: refs by name. */
  components(roots) {
    const parent = new Int32Array(this.#values.length).fill(-1);
    const top = (id) => {
      while (parent[id] !== id) id = parent[id] = parent[parent[id]];
      return id;
    };
    for (const ref of roots.values()) {
      const root = nodeOf(ref);
      if (root === undefined || parent[root] >= 0) continue;
      const queue = [root];
      parent[root] = root;
      while (queue.length > 0) {
        const id = queue.pop();
        for (const target of this.#edges[id]) {
          if (parent[target] < 0) {
            parent[target] = target;
            queue.push(target);
          }
          const [a, b] = [top(id), top(target)];
          if (a !== b) parent[b] = a;
        }
      }
    }
    const groups = new Map();
    for (const [name, ref] of roots) {
      const id = nodeOf(ref);
      const key = id === undefined ? name : top(id);
      if (!groups.has(key)) groups.set(key, { names: [], roots: [], nodes: [], order: 0 });
      const group = groups.get(key);
      group.names.push(name);
      group.roots.push(ref);
    }
    for (let id = 0; id < parent.length; id++) {
      if (parent[id] < 0) continue;
      const group = groups.get(top(id));
      group.nodes.push(id);
      if (this.#rows[id][0] === "function") group.order = Math.max(group.order, this.#rows[id][1][2]);
    }
    return [...groups.values()];
  }

  /** From now on refs name the node by its place in a component. */
  place(id, at) {
    this.#refs[id][0] = at;
  }

  row(id) {
    return this.#rows[id];
  }
}

class Unsavable extends Error {
  constructor(words) {
    super(words);
    defineProperty(this, "words", { value: words });
  }
}

/** Names of the global scope that are the same in every session. */
let given = new Set();
export const setGiven = (names) => (given = names);

const isNative = (value) => /\{\s*\[native code\]\s*\}\s*$/.test(sourceOf(value));

/** Iterators of the engine and the like: their prototype says so, and cannot be reached by name. */
function hiddenTag(proto) {
  if (proto === null) return false;
  const tag = getOwnPropertyDescriptor(proto, Symbol.toStringTag);
  return tag !== undefined && !tag.writable && getOwnPropertyDescriptor(proto, "constructor") === undefined;
}

function unknownFunction(text, value) {
  if (isNative(value)) return "a function of the runtime";
  const kind = text.startsWith("class") ? "a class" : "a function";
  return `${kind} that was not defined at the top level of a cell, so that it may need more than its source`;
}

function nodeOf(ref) {
  return Array.isArray(ref) && typeof ref[0] === "number" ? ref[0] : undefined;
}

/** How one gets from an object to a part of it. */
function step(value, part) {
  for (const key of ownKeys(value)) {
    if (getOwnPropertyDescriptor(value, key)?.value !== part) continue;
    if (typeof key === "symbol") return `[${String(key)}]`;
    return /^\d+$/.test(key) ? `[${key}]` : /^[\w$]+$/.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`;
  }
  return getPrototypeOf(value) === part ? ".constructor" : "[...]";
}

/** The name of the class of a value, without running any of its code. */
export function classOf(value) {
  for (let above = value; above !== null && !core.isProxy(above); above = getPrototypeOf(above)) {
    const maker = getOwnPropertyDescriptor(above, "constructor")?.value;
    const name = typeof maker === "function" ? getOwnPropertyDescriptor(maker, "name")?.value : undefined;
    if (typeof name === "string" && name !== "") return name;
  }
  return "Object";
}

/** The type of a value, for people. */
export function describe(value) {
  if (value === null) return "null";
  if (typeof value === "function") return !core.isProxy(value) && sourceOf(value).startsWith("class") ? "class" : "function";
  if (typeof value !== "object") return typeof value;
  return core.isProxy(value) ? "Proxy" : classOf(value);
}

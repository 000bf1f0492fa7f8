// Durable checkpoints: what a session holds, as data that every engine reads.
//
// A save walks everything that variables reach, once, and gives each object a node. A node that cannot be saved spoils
// whatever reaches it; the rest falls into components that share nothing, and each of those is a blob of JSON, with the
// bytes of its buffers beside it. Nothing here recurses: values may be nested as deeply as memory allows.
//
// The form of a component, `js-graph-1`: `{ values: [[name, ref], ...], nodes: [node, ...] }`. A ref is a string, a finite
// number, a boolean or null as itself, `[n]` the node n, and `[tag, text]` one of the values of `special` below. A node
// is `[kind, payload, proto, properties, odd, integrity]`; what is missing at its end is as usual. `properties` are keys
// and refs in turn, `odd` ones have flags as well, `proto` is a ref.

import { classOf, describe, Graph, setGiven } from "ext:cob/bundle_walk.js";
import { Builder } from "ext:cob/bundle_build.js";

const { core } = globalThis.Deno;
const { ops } = core;

const CODEC = "js-graph-1";
const APART_BYTES_MIN = 1 << 16;
/** What is shown by cells, and not theirs. */
const OURS = new Set(["_", "_error"]);

/** What was there before any code of the user. */
let given = new Set();
/** Functions and classes that stand in a cell themselves: what is known about each. */
const defined = new WeakMap();
let definitions = 0;

export function begin() {
  given = new Set(Reflect.ownKeys(globalThis));
  setGiven(given);
}

/** Remembers functions and classes that a cell has defined: a JSON array of what `bundle/definitions.rs` says. */
export function define(found) {
  for (const definition of JSON.parse(found)) {
    const value = Reflect.getOwnPropertyDescriptor(globalThis, definition.name)?.value;
    if (typeof value === "function" && !core.isProxy(value) && !defined.has(value)) know(value, definition);
  }
}

function know(value, definition) {
  defined.set(value, { ...definition, order: ++definitions });
}

const isVariable = (name) => typeof name === "string" && !given.has(name) && !OURS.has(name);
const variables = () => Reflect.ownKeys(globalThis).filter(isVariable);

// -- saving --------------------------------------------------------------------------------------

/** Writes blobs; what they are as JSON. */
export function save() {
  const graph = new Graph(defined);
  const missing = [];
  const roots = new Map();
  for (const name of variables()) {
    const { value, get } = Reflect.getOwnPropertyDescriptor(globalThis, name);
    if (get) missing.push({ name, kind: "accessor", reason: "it is computed by a getter" });
    else roots.set(name, graph.ref(value));
  }
  graph.walk();
  graph.spread();
  for (const [name, ref] of roots) {
    const reason = graph.reasonAgainst(ref);
    if (reason === undefined) continue;
    missing.push({ name, kind: describe(globalThis[name]), reason });
    roots.delete(name);
  }
  const groups = graph.components(roots);
  // Classes are made while others are there already that they may look at.
  groups.sort((a, b) => a.order - b.order);
  const components = groups.map((group) => write(graph, group)).filter((component) => component !== undefined);
  return JSON.stringify({ components, missing });
}

/** Writes the variables that share values. */
function write(graph, { names, roots, nodes }) {
  const blobs = [];
  const small = [];
  const large = [];
  let bytes = 0;
  let smallBytes = 0;
  nodes.forEach((node, at) => graph.place(node, at));
  const rows = nodes.map((node) => graph.row(node));
  for (const row of rows) {
    if (row[0] !== "buffer") continue;
    const [buffer, longest] = row[1];
    const length = buffer.byteLength;
    bytes += length;
    if (length >= APART_BYTES_MIN) {
      large.push(buffer);
      row[1] = [large.length, 0, length, longest];
    } else {
      row[1] = [-1, smallBytes, length, longest];
      small.push(new Uint8Array(buffer));
      smallBytes += length;
    }
  }
  // Well-formed whatever the strings are: halves of characters are escaped.
  const text = JSON.stringify({ values: names.map((name, at) => [name, roots[at]]), nodes: rows });
  bytes += text.length;
  blobs.push(ops.op_cob_bundle_text(text));
  for (const buffer of large) blobs.push(ops.op_cob_bundle_bytes(new Uint8Array(buffer)));
  if (small.length > 0) {
    const all = new Uint8Array(smallBytes);
    let at = 0;
    for (const part of small) {
      all.set(part, at);
      at += part.length;
    }
    blobs.push(ops.op_cob_bundle_bytes(all));
  }
  return { names, kind: describe(globalThis[names[0]]), codec: CODEC, bytes, blobs };
}

// -- loading -------------------------------------------------------------------------------------

/** Takes components in, beside what is there; what came of it as JSON. */
export function load(asked) {
  const { components, missing } = JSON.parse(asked);
  const restored = [];
  const ofBundle = new Set(missing.map((one) => one.name));
  let next = 0;
  for (const component of components) {
    component.names.forEach((name) => ofBundle.add(name));
    const [first, ...others] = component.blobs;
    for (; next < first; next++) ops.op_cob_bundle_next();
    const text = ops.op_cob_bundle_next_text();
    const buffers = others.map(() => ops.op_cob_bundle_next()?.buffer);
    next += 1 + others.length;
    const reason = component.codec === CODEC ? take(component, text, buffers) : `its form ${component.codec} is unknown`;
    if (reason === undefined) restored.push(...component.names);
    else missing.push(...component.names.map((name) => ({ name, kind: component.kind, reason })));
  }
  const kept = variables().filter((name) => !ofBundle.has(name));
  return JSON.stringify({ restored, missing, kept });
}

/** All variables of a component, or none and the reason. */
function take(component, text, buffers) {
  const before = component.names.map((name) => [name, Reflect.getOwnPropertyDescriptor(globalThis, name)]);
  try {
    const { values, nodes } = JSON.parse(text);
    const names = new Set(component.names);
    if (values.length !== names.size || !values.every(([name]) => names.has(name))) {
      throw new TypeError("it holds other variables than it should");
    }
    const builder = new Builder(nodes, buffers, know);
    builder.define(values);
    builder.fill();
    for (const [name, ref] of values) put(name, builder.value(ref));
  } catch (error) {
    for (const [name, descriptor] of before) {
      if (descriptor) Reflect.defineProperty(globalThis, name, descriptor);
      else Reflect.deleteProperty(globalThis, name);
    }
    return `it could not be loaded: ${error?.name ?? classOf(error)}: ${error?.message ?? ""}`;
  }
}

function put(name, value) {
  const is = Reflect.getOwnPropertyDescriptor(globalThis, name);
  if (is?.writable) {
    globalThis[name] = value;
  } else if (!Reflect.defineProperty(globalThis, name, { value, writable: true, enumerable: true, configurable: true })) {
    throw new TypeError(`the name ${name} is taken`);
  }
}

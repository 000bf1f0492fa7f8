// Comms: messages between widgets in the front end and objects in the session.

import { bytesOf } from "ext:cob/mime.js";
import { encoded } from "ext:cob/questions.js";
import { obey } from "ext:cob/stop.js";

const { ops } = globalThis.Deno.core;
const {
  ArrayPrototypePush,
  Error,
  JSONParse,
  Map,
  MapPrototypeDelete,
  MapPrototypeGet,
  MapPrototypeSet,
  ObjectFreeze,
  String,
  StringPrototypeToWellFormed,
  SymbolFor,
  TypeError,
} = globalThis.__bootstrap.primordials;

const targets = new Map();
const comms = new Map();
let make, deliver;
const text = (value) => StringPrototypeToWellFormed(String(value));

function send(action, id, target, message, options) {
  const buffers = [];
  const given = options?.buffers ?? [];
  for (let i = 0; i < given.length; i++) {
    const bytes = bytesOf(given[i]);
    if (bytes === undefined) throw new TypeError(`buffer ${i} of a comm message is no buffer`);
    ArrayPrototypePush(buffers, bytes);
  }
  const data = encoded(message ?? {}, "the data of a comm message");
  const metadata = encoded(options?.metadata ?? {}, "the metadata of a comm message");
  obey(ops.op_cob_comm(action, id, target, data, metadata, buffers));
}

/** One end of a comm. */
class Comm {
  #id;
  #target;
  #isOpen = true;
  /** Called with every message of the other side: `{ data, metadata, buffers }`. */
  onMessage = undefined;
  /** Called when the other side closes it. */
  onClose = undefined;

  constructor(id, target) {
    this.#id = id;
    this.#target = target;
  }

  static {
    make = (id, target) => {
      const comm = new Comm(id, target);
      MapPrototypeSet(comms, id, comm);
      return comm;
    };
    deliver = (comm, action, message) => {
      if (action === "msg") return comm.onMessage?.(message);
      comm.#isOpen = false;
      MapPrototypeDelete(comms, comm.#id);
      return comm.onClose?.(message);
    };
  }

  get id() {
    return this.#id;
  }

  get target() {
    return this.#target;
  }

  /** Sends a JSON value; `buffers` go along as they are. */
  send(data, options) {
    if (!this.#isOpen) throw new Error(`the comm ${this.#id} is closed`);
    send("msg", this.#id, "", data, options);
  }

  /** Ends it, for both sides. */
  close(data, options) {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    MapPrototypeDelete(comms, this.#id);
    send("close", this.#id, "", data, options);
  }

  [SymbolFor("Deno.customInspect")]() {
    return `Comm { id: "${this.#id}", target: "${this.#target}" }`;
  }
}

export const comm = ObjectFreeze({
  __proto__: null,
  /** Opens a comm to the target of this name in the front end. */
  open(target, data, options) {
    const opened = make(options?.id === undefined ? ops.op_cob_uuid() : text(options.id), text(target));
    try {
      send("open", opened.id, opened.target, data, options);
    } catch (error) {
      MapPrototypeDelete(comms, opened.id);
      throw error;
    }
    return opened;
  },
  /** `handler(comm, message)` is called when the front end opens a comm to this target. */
  register(target, handler) {
    if (typeof handler !== "function") throw new TypeError("comm.register: the handler is no function");
    MapPrototypeSet(targets, text(target), handler);
  },
});

/** A comm message of the front end; a promise when the handler takes its time. */
export function receive(action, id, target, dataJson, metadataJson) {
  const message = { data: JSONParse(dataJson), metadata: JSONParse(metadataJson), buffers: ops.op_cob_comm_buffers() };
  if (action !== "open") {
    const found = MapPrototypeGet(comms, id);
    return found === undefined ? undefined : deliver(found, action, message);
  }
  const handler = MapPrototypeGet(targets, target);
  if (handler === undefined) return send("close", id, "", {});
  return handler(make(id, target), message);
}

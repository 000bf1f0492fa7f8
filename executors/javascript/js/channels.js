// Durable channels between the code and clients of the session: `cob.channel("name")`.
//
// What is sent is recorded before `send` is done, and can be read later and again. The host keeps no place of the
// code's: it numbers what is sent, and what is received is asked for by number. So a question that has to be asked
// again, since another server has taken over, changes nothing.

import { ask, ChannelClosed, encoded, milliseconds, TimeoutError } from "ext:cob/questions.js";

const {
  ArrayPrototypePop,
  ArrayPrototypeReverse,
  Error,
  Map,
  MapPrototypeGet,
  MapPrototypeSet,
  String,
  SymbolAsyncIterator,
  SymbolFor,
} = globalThis.__bootstrap.primordials;

const known = new Map();
let make;

/** The channel of this name; the same one however often it is asked for. */
export function channel(name) {
  const key = String(name);
  let found = MapPrototypeGet(known, key);
  if (found === undefined) MapPrototypeSet(known, key, found = make(key));
  return found;
}

let renewed = 0;

/** In a copy of the process: others may have sent since, and the session may be another one. */
export function renew() {
  renewed++;
}

/** One end of a channel; at the other end are clients. Items are JSON values. */
class Channel {
  #name;
  // Number of the next item to be sent, if that is certain.
  #next = undefined;
  // What was received and not handed out, last first, and the number of the next item to be asked for.
  #items = [];
  #from = undefined;
  #sends = true;
  // Whose channel it is, and which copy of the process knows the rest.
  #session = undefined;
  #copy = renewed;

  constructor(name) {
    this.#name = name;
  }

  static {
    make = (name) => new Channel(name);
  }

  get name() {
    return this.#name;
  }

  /** Sends a JSON value. Waits while the reader has too much before it. */
  async send(value) {
    const data = encoded(value, "what is sent");
    if (!this.#sends) throw new ChannelClosed(this.#name);
    this.#open();
    // An interrupt from here on leaves it uncertain whether the item was sent.
    const number = this.#next;
    this.#next = undefined;
    this.#ask("channel_send", `{"channel": ${encoded(this.#name)}, "number": ${number}, "data": ${data}}`);
    this.#next = number + 1;
  }

  /** The next item; waits for it, at most `timeout` milliseconds. */
  async recv(options) {
    if (this.#items.length === 0) {
      this.#open();
      const question = { __proto__: null, channel: this.#name, from: this.#from };
      if (options?.timeout !== undefined) question.timeout_ms = milliseconds(options.timeout);
      const batch = this.#ask("channel_recv", encoded(question));
      this.#from = batch.first + batch.items.length;
      this.#items = ArrayPrototypeReverse(batch.items);
    }
    return ArrayPrototypePop(this.#items);
  }

  /** Nothing more will be sent. What the client sends can still be received. */
  async close() {
    if (!this.#sends) return;
    this.#ask("channel_close", encoded({ __proto__: null, channel: this.#name }));
    this.#sends = false;
  }

  /** The items, until the client closes the channel. */
  [SymbolAsyncIterator]() {
    const next = async () => {
      try {
        return { value: await this.recv(), done: false };
      } catch (error) {
        if (error instanceof ChannelClosed) return { value: undefined, done: true };
        throw error;
      }
    };
    return {
      next,
      [SymbolAsyncIterator]() {
        return this;
      },
    };
  }

  [SymbolFor("Deno.customInspect")](inspect) {
    return `Channel ${inspect(this.#name)}`;
  }

  #open() {
    if (this.#copy !== renewed) {
      this.#copy = renewed;
      this.#next = undefined;
    }
    if (this.#next !== undefined) return;
    const found = this.#ask("channel_open", encoded({ __proto__: null, channel: this.#name }));
    // A session that was branched off begins its channels anew; one that went back receives again what came since.
    if (found.session !== this.#session) {
      this.#session = found.session;
      this.#from = undefined;
    }
    if (this.#from === undefined) {
      this.#from = found.from;
      this.#items = [];
    }
    this.#next = found.next;
  }

  #ask(kind, json) {
    const answer = ask(kind, json);
    switch (answer.outcome) {
      case "value":
        return answer.value;
      case "eof":
        throw new ChannelClosed(this.#name);
      case "timed_out":
        throw new TimeoutError(`nothing came through the channel ${this.#name} in time`);
      default:
        throw new Error(`the channel ${this.#name} cannot be used: ${answer.why}`);
    }
  }
}

// Files, as far as the session is permitted, and what surrounds the process: all of it in `cob`.

import { cob } from "ext:cob/host.js";

const { core } = globalThis.Deno;
const { ops } = core;
const {
  Error,
  JSONParse,
  ObjectDefineProperties,
  ObjectFreeze,
  ObjectGetOwnPropertyDescriptors,
  ObjectSetPrototypeOf,
  String,
  StringPrototypeToWellFormed,
  TypeError,
  TypedArrayPrototypeGetSymbolToStringTag,
} = globalThis.__bootstrap.primordials;

/** Half of a character is nothing that a name or a file could hold. */
const text = (value) => StringPrototypeToWellFormed(String(value));

class PermissionDenied extends Error {
  get name() {
    return "PermissionDenied";
  }
}

class NotFound extends Error {
  get name() {
    return "NotFound";
  }
}

core.registerErrorClass("PermissionDenied", PermissionDenied);
core.registerErrorClass("NotFound", NotFound);

const files = {
  PermissionDenied,
  NotFound,

  /** The text of a file: `await cob.readTextFile("notes.txt")`. What is not UTF-8 becomes U+FFFD. */
  async readTextFile(file) {
    return ops.op_cob_read_text(text(file));
  },

  /** The bytes of a file. */
  async readFile(file) {
    return ops.op_cob_read(text(file));
  },

  /** Writes text into a file, which is made if there is none; `{ append: true }` keeps what is in it. */
  async writeTextFile(file, content, options = {}) {
    ops.op_cob_write_text(text(file), text(content), options.append === true);
  },

  /** Writes bytes into a file, which is made if there is none; `{ append: true }` keeps what is in it. */
  async writeFile(file, bytes, options = {}) {
    if (TypedArrayPrototypeGetSymbolToStringTag(bytes) !== "Uint8Array") {
      throw new TypeError("writeFile takes a Uint8Array; writeTextFile takes text");
    }
    ops.op_cob_write(text(file), bytes, options.append === true);
  },

  /** What is in a folder, by name: `[{ name, isFile, isDirectory, isSymlink }]`. */
  async readDir(folder = ".") {
    return JSONParse(ops.op_cob_read_dir(text(folder)));
  },

  /** The working directory. */
  cwd() {
    return ops.op_cob_cwd();
  },

  /** The variables of the session's environment, which cannot be changed. */
  get env() {
    return ObjectFreeze(ObjectSetPrototypeOf(JSONParse(ops.op_cob_env()), null));
  },
};

ObjectDefineProperties(cob, ObjectGetOwnPropertyDescriptors(files));

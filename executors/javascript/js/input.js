// Questions to the person at the client.
//
// Texts are put together with `+`: for a template the engine calls a method that code may have replaced.

import { ask, encoded, InputError, milliseconds, TimeoutError } from "ext:cob/questions.js";

const { ops } = globalThis.Deno.core;
const { ArrayPrototypeIncludes, String, StringPrototypeToLowerCase, StringPrototypeToWellFormed, StringPrototypeTrim } =
  globalThis.__bootstrap.primordials;

const NO_INPUT = "was called, but this frontend does not support input requests";

/** The answer to one question; null at the end of the input. */
function line(name, prompt, options) {
  if (!ops.op_cob_can_ask()) throw new InputError(name + " " + NO_INPUT);
  const question = { __proto__: null, prompt: StringPrototypeToWellFormed(String(prompt)), password: !!options?.password };
  if (options?.timeout !== undefined) question.timeout_ms = milliseconds(options.timeout);
  const answer = ask("input", encoded(question));
  switch (answer.outcome) {
    case "value":
      return typeof answer.value === "string" ? answer.value : answer.value.value;
    case "eof":
      return null;
    case "timed_out":
      if ("default" in options) return options.default;
      throw new TimeoutError(answer.why || "nobody answered in time");
    default:
      throw new InputError(answer.why || "the client declined to answer");
  }
}

/**
 * Asks for a line of text; null at the end of the input. `password`: the client does not echo it. `timeout`: waits no
 * longer than so many milliseconds; then the answer is `default` if there is one, else it is a TimeoutError.
 */
export function input(prompt = "", options) {
  return line("input", prompt, { __proto__: null, ...options });
}

/** Asks for a line of text; the default if it is empty, null at the end of the input. */
export function prompt(message = "Prompt", defaultValue = "", options) {
  const fallback = String(defaultValue);
  const asked = fallback === "" ? String(message) : String(message) + " [" + fallback + "]";
  const answer = line("prompt", asked + " ", { __proto__: null, ...options });
  return answer === "" ? fallback : answer;
}

const YES = ["y", "yes"];

/** Asks for a yes; everything else is a no. */
export function confirm(message = "Confirm") {
  const answer = line("confirm", String(message) + " [y/N] ");
  return answer !== null && ArrayPrototypeIncludes(YES, StringPrototypeToLowerCase(StringPrototypeTrim(answer)));
}

/** Says something, and waits until it was seen. */
export function alert(message = "Alert") {
  line("alert", String(message) + " [Enter] ");
}

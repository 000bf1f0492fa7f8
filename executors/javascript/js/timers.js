// Timers whose errors are told of the cell that made them: outside of the callback nobody knows it any more.

const { core } = globalThis.Deno;
const { ops } = core;
const timers = core.loadExtScript("ext:deno_web/02_timers.js");
const { apply } = Reflect;

export const { clearInterval, clearTimeout } = timers;

export function setTimeout(callback, delay, ...rest) {
  return counted(apply(timers.setTimeout, this, [guarded(callback), delay, ...rest]));
}

export function setInterval(callback, delay, ...rest) {
  return counted(apply(timers.setInterval, this, [guarded(callback), delay, ...rest]));
}

/**
 * Says that there is a timer to wait for. The runtime says so for the first one only, and loses count when code is
 * stopped in the middle of one.
 */
function counted(id) {
  ops.op_timer_schedule(-1);
  return id;
}

function guarded(callback) {
  if (typeof callback !== "function") return callback;
  return function (...given) {
    try {
      return apply(callback, this, given);
    } catch (error) {
      ops.op_cob_uncaught(error);
    }
  };
}

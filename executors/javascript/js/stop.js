// What an op says when the code was told to stop while it waited.

/** Lets the interrupt take effect: it does where code loops, and nothing can catch it there. */
export function obey(isStopped) {
  while (isStopped) {
    // Until it does.
  }
}

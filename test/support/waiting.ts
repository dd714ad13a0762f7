// Waits of the tests: for a condition, and for what must not come. Not a test
// itself.

/** Waits until `condition` holds; throws with `what` if it does not in time. */
export async function until(
  what: string,
  condition: () => boolean,
  seconds = 120,
): Promise<void> {
  const end = Date.now() + seconds * 1000
  while (!condition()) {
    if (Date.now() > end) throw new Error(`Expected in ${seconds} s: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/**
 * Lets the event loop go round, which looks each time at what is ready. For a
 * callback that must not come: had it been due, it would have come by the end.
 */
export async function turns(count = 20): Promise<void> {
  for (let turn = 0; turn < count; turn++) {
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** How much is done in each turn of the event loop, until `total` is. */
export async function doneInTurns(
  total: number,
  done: () => number,
): Promise<number[]> {
  const perTurn: number[] = []
  for (let before = 0; before < total; before = done()) {
    await turns(1)
    perTurn.push(done() - before)
  }
  return perTurn
}

// How long to wait between two tries where no event says when there is room.
// Read next: lib/wait/watch.ts.

/** Before the second try, in ms. */
export const FIRST_DELAY = 1

const LONGEST_DELAY = 32

/** The delay before the try after the next: twice as long, up to a limit. */
export function longerDelay(delay: number): number {
  return Math.min(2 * delay, LONGEST_DELAY)
}

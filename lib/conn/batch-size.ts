// How many messages to ask the kernel for at once, and whether to ask at all
// before it has news. A call in vain costs half a wake-up, a wake-up in vain
// costs all of it, and asking for several costs more than asking for one. What
// is right depends on the peer: so what was right last time is done again.

import { MAX_BATCH } from '../message.ts'

/** How often to do it again before trying the other way. */
const TRUST = 16

export class Pace {
  /**
   * The first message is taken alone, so that a caller who wants just one can
   * hand the socket on with nothing lost.
   */
  #appetite = 1
  /** How often to ask for one, since of two one came. */
  #singles = 0
  /** The socket was found empty, and there has been no news. */
  #drained = false
  /** How often to believe that, since asking all the same was in vain. */
  #patience = 0

  /** How many messages to ask for, 0 if it is better to wait for news. */
  next(): number {
    if (this.#drained && this.#patience-- > 0) return 0
    return this.#singles > 0 ? 1 : this.#appetite
  }

  /** There is something to receive, or the end. */
  news(): void {
    this.#drained = false
  }

  /** So many were asked for, and so many came. */
  came(asked: number, count: number): void {
    if (count === 0) this.#patience = TRUST
    this.#drained = count < asked || this.#singles > 0
    if (this.#singles > 0) this.#singles -= count
    else if (!this.#drained) this.#appetite = Math.min(asked * 2, MAX_BATCH)
    else if (count > 0) this.#appetite = Math.max(2, count)
    if (asked === 2 && count === 1) this.#singles = TRUST
  }
}

// Staying awake for an answer that is about to come. The way out of sleep takes
// a process longer than a peer takes to answer, on a virtual machine several
// times as long. So after a short wait the next one is taken to be short too:
// the event loop goes round for that time instead of going to sleep. All others
// have their turn in every round.
//
// It is in vain where the peer is slow, or waits for the processor that we keep
// busy. So a failure is followed by naps, more with each.

/** What is short, in ms: about twice what it takes to sleep and be woken. */
const SHORT = 0.2

/** Most waits to sleep through after one that was stayed awake in vain. */
const MOST_NAPS = 64

let awakeUntil = 0
let turning = false

/** The waits of one connection. */
export class Vigil {
  #since = 0
  #lastWasShort = false
  #awake = false
  #naps = 0
  /** How many naps the next failure costs. */
  #price = 1

  /** @param now in ms, from performance.now() */
  begin(now: number): void {
    this.#since = now
    this.#awake = this.#lastWasShort && this.#naps-- <= 0
    if (this.#awake) stayAwake(now + SHORT)
  }

  end(now: number): void {
    this.#lastWasShort = now - this.#since < SHORT
    if (!this.#awake) return
    if (this.#lastWasShort) {
      this.#price = Math.max(1, this.#price - 1)
    } else {
      this.#naps = this.#price
      this.#price = Math.min(MOST_NAPS, this.#price * 2)
    }
  }
}

function stayAwake(until: number): void {
  awakeUntil = until
  if (turning) return
  turning = true
  setImmediate(turn)
}

function turn(): void {
  turning = performance.now() < awakeUntil
  if (turning) setImmediate(turn)
}

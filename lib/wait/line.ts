// Calls that wait in line for the same thing: for a message, for room to send,
// for a connection. Each is a promise that is settled in turn, and may carry an
// AbortSignal, which takes it out of the line. All operations take the same
// time however long the line is: an array would move all that stands behind the
// first (Array.shift does, beyond some thousands).
// Read next: lib/wait/retry.ts.

import { abortError } from './errors.ts'

/** A call in line: what it asks for, and what settles its promise. */
type Place<T> = {
  readonly call: T
  readonly resolve: (result: unknown) => void
  readonly reject: (reason: unknown) => void
  previous: Place<T> | undefined
  next: Place<T> | undefined
  /** Takes the listener off the signal, if there is one. */
  forgetSignal: (() => void) | undefined
}

/** Calls that wait, each described by a `T`, the oldest first. */
export class Line<T> {
  #first: Place<T> | undefined
  #last: Place<T> | undefined

  /**
   * Lines up a call. An abort takes it out before anything was done for it, so
   * nothing is lost by it: the next call gets what comes.
   *
   * @param onAbort called after an abort, as another call may be first now
   * @returns settled by resolveFirst() or rejectFirst(), with what they are
   * given, or rejected with an AbortError
   */
  join<R>(call: T, signal?: AbortSignal, onAbort?: () => void): Promise<R> {
    return new Promise<R>((resolve, reject) => {
      const place: Place<T> = {
        call,
        resolve: resolve as (result: unknown) => void,
        reject,
        previous: undefined,
        next: undefined,
        forgetSignal: undefined,
      }
      if (signal !== undefined) {
        if (signal.aborted) return reject(abortError(signal))
        const abort = (): void => {
          this.#remove(place)
          reject(abortError(signal))
          onAbort?.()
        }
        // What is no signal throws here, and has no place in the line yet.
        signal.addEventListener('abort', abort)
        place.forgetSignal = () => signal.removeEventListener('abort', abort)
      }
      place.previous = this.#last
      if (this.#last) this.#last.next = place
      else this.#first = place
      this.#last = place
    })
  }

  get isEmpty(): boolean {
    return this.#first === undefined
  }

  /** The call that has waited longest. */
  get first(): T | undefined {
    return this.#first?.call
  }

  /** The first calls, at most `count`. */
  firstOf(count: number): T[] {
    const calls: T[] = []
    let place = this.#first
    for (; place && calls.length < count; place = place.next) {
      calls.push(place.call)
    }
    return calls
  }

  /** Resolves the first call, which leaves the line. */
  resolveFirst(result?: unknown): void {
    const place = this.#first
    if (place === undefined) return
    this.#remove(place)
    place.resolve(result)
  }

  /** Rejects the first call, which leaves the line. */
  rejectFirst(reason: unknown): void {
    const place = this.#first
    if (place === undefined) return
    this.#remove(place)
    place.reject(reason)
  }

  #remove(place: Place<T>): void {
    const { previous, next } = place
    if (previous) previous.next = next
    else this.#first = next
    if (next) next.previous = previous
    else this.#last = previous
    place.forgetSignal?.()
  }
}

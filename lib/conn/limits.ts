// The options of the calls that receive, and what these return. Partners:
// conn.ts, whose calls take them, receiver.ts, which applies them, stream.ts.
// Read next: lib/conn/checks.ts.

import type { Buffer } from 'node:buffer'
import type { DuplexOptions } from 'node:stream'

/** Bytes, and the descriptors that came with them: the caller's to close. */
export type ReceivedFds = { readonly data: Buffer; readonly fds: number[] }

/** What one call to receive accepts. */
export type ReceiveOptions = {
  /** Most bytes of data to receive, 65536 unless given. */
  readonly maxBytes?: number
  /** Most descriptors that a message may bring, any number unless given. */
  readonly maxFds?: number
  /** Ends the wait with an AbortError. Nothing that arrives is lost by it. */
  readonly signal?: AbortSignal | undefined
}

/** The same, with the defaults for what was not given. */
export type Limits = {
  readonly maxBytes: number
  readonly maxFds: number
  readonly signal?: AbortSignal | undefined
}

/** Those of a Duplex, less the functions and modes that the stream sets. */
export type FdStreamOptions = Pick<
  DuplexOptions,
  | 'allowHalfOpen'
  | 'autoDestroy'
  | 'defaultEncoding'
  | 'emitClose'
  | 'encoding'
  | 'highWaterMark'
  | 'readableHighWaterMark'
  | 'signal'
  | 'writableHighWaterMark'
> & {
  /**
   * Most descriptors that may arrive with one piece of bytes: more destroy the
   * stream with ERR_TOO_MANY_FDS. While so many wait for a listener, nothing
   * is read. Unless given, as many as one message can carry here.
   */
  readonly maxFds?: number
}

/** @throws RangeError, TypeError for what is out of its range, or no signal */
export function limitsOf(options: ReceiveOptions): Limits {
  const { maxBytes = 65536, maxFds = Number.POSITIVE_INFINITY } = options
  checkCount('maxBytes', maxBytes, 1)
  if (maxFds !== Number.POSITIVE_INFINITY) checkCount('maxFds', maxFds, 0)
  const { signal } = options
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new TypeError(`Expected signal as AbortSignal, got ${signal}`)
  }
  return { maxBytes, maxFds, signal }
}

/** @throws RangeError unless `value` is an integer, and at least `least` */
export function checkCount(name: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new RangeError(
      `Expected ${name} as an integer from ${least}, got ${String(value)}`,
    )
  }
}

// The options of the calls that receive, and what these return. Partners:
// conn.ts and datagram.ts, whose calls take them, receiver.ts, which applies
// them. Read next: lib/conn/checks.ts.

import type { Buffer } from 'node:buffer'

import type { Credentials } from '../cmsg.ts'

/** A message: bytes, and what came beside them. */
export type ReceivedFds = {
  readonly data: Buffer
  /** The caller owns each, and must close it. */
  readonly fds: number[]
  /** Who sent it, if the socket was made with `passCredentials`. */
  readonly credentials?: Credentials
}

/** A message as recvmsg(2) gives it, its control messages not taken apart. */
export type ReceivedMessage = {
  readonly data: Buffer
  /** The control buffer, as far as it was filled. See parseControlMessages. */
  readonly control: Buffer
}

/** What one call to receive accepts. */
export type ReceiveOptions = {
  /**
   * At most so many bytes of data. Default: 65536; 4 MiB for sockets of
   * messages (seqpacket, datagram), whose messages come whole.
   */
  readonly maxBytes?: number
  /** At most so many descriptors in a message. Default: any number. */
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

/** @throws RangeError, TypeError for what is out of its range, or no signal */
export function limitsOf(
  options: ReceiveOptions,
  defaultBytes: number,
): Limits {
  const { maxBytes = defaultBytes, maxFds = Number.POSITIVE_INFINITY } = options
  checkCount('maxBytes', maxBytes, 1)
  if (maxFds !== Number.POSITIVE_INFINITY) checkCount('maxFds', maxFds, 0)
  const { signal } = options
  checkSignal(signal)
  return { maxBytes, maxFds, signal }
}

/**
 * As Node does: whatever behaves like an AbortSignal is one, of another realm
 * or of a polyfill.
 *
 * @throws TypeError for anything else
 */
export function checkSignal(signal: AbortSignal | undefined): void {
  if (signal === undefined) return
  if (typeof signal === 'object' && signal !== null && 'aborted' in signal) {
    return
  }
  throw new TypeError(`Expected signal as AbortSignal, got ${String(signal)}`)
}

/** @throws RangeError unless `value` is an integer, and at least `least` */
export function checkCount(name: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new RangeError(
      `Expected ${name} as an integer from ${least}, got ${String(value)}`,
    )
  }
}

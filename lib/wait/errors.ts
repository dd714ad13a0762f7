// Errors that are no system call's.
// Read next: lib/wait/line.ts.

/**
 * The codes of the errors that this library makes, but for a TypeError or a
 * RangeError. Any other `code` is that of
 * a system call that failed (EPIPE), or one of Node's own.
 */
export const errorCodes = [
  'ABORT_ERR',
  'ERR_FDS_TRUNCATED',
  'ERR_MESSAGE_TRUNCATED',
  'ERR_SOCKET_CLOSED',
  'ERR_STREAM_PREMATURE_CLOSE',
  'ERR_STREAM_WRITE_AFTER_END',
  'ERR_TOO_MANY_FDS',
] as const

/** One of them. */
export type ErrorCode = (typeof errorCodes)[number]

/** An error with a code, and with what else there is to know. */
export function codedError(
  code: ErrorCode,
  message: string,
  details: Readonly<Record<string, unknown>> = {},
): Error {
  return Object.assign(new Error(message), { code, ...details })
}

/**
 * What a call that takes an AbortSignal rejects with: the same as Node's own,
 * whose `cause` is the reason that the signal gives.
 */
export function abortError(signal: AbortSignal | undefined): Error {
  const cause = signal?.reason
  const error = new Error('The operation was aborted', { cause })
  const code: ErrorCode = 'ABORT_ERR'
  return Object.assign(error, { name: 'AbortError', code })
}

/**
 * Why data that has waited cannot be sent; undefined if it is as it was. Memory
 * that was transferred to another thread, or resized, has nothing of what was to
 * be sent, or less: a Uint8Array on it shrinks with it. That is asked of
 * byteLength: in code that V8 has optimized, of Node 20 and 22, the length of a
 * detached one is what it was.
 *
 * @param length in bytes, as it should be still
 */
export function whyChanged(
  { byteLength }: Uint8Array,
  length: number,
): Error | undefined {
  if (byteLength === length) return undefined
  return new TypeError(
    `Expected data of ${length} bytes, as at the call, ` +
      `got ${byteLength}: detached or resized before it was sent`,
  )
}

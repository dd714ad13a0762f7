// Errors that are no system call's: each has one of these codes.
// Read next: lib/wait/line.ts.

/**
 * The codes of the errors that this library makes. Any other `code` is that of
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

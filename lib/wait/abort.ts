// What a call that takes an AbortSignal rejects with: the same as Node's own.
// Read next: lib/wait/line.ts.

/** An AbortError, whose `cause` is the reason that the signal gives. */
export function abortError(signal: AbortSignal | undefined): Error {
  const error = new Error('The operation was aborted', {
    cause: signal?.reason,
  })
  return Object.assign(error, { name: 'AbortError', code: 'ABORT_ERR' })
}

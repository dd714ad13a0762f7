// Requests and answers with descriptors, over a stream, which has no message
// boundaries. A frame is one line of JSON, an object, whose `fds` says how many
// descriptors belong to it:
//
//    {"port":80,"fds":1}\n
//
// They ride on the first byte of their line, so they have come when the line
// is complete, and they come in the order of their lines. More is not certain:
// recvmsg may cut the bytes anywhere, and a descriptor may arrive in one
// piece with lines that were sent before its own (Linux) or after it (macOS,
// FreeBSD). So bytes and descriptors are collected apart, and matched by count.
// Read next: lib/conn/stream.ts.

import { closeAll } from './checks.ts'
import type { UnixConn } from './conn.ts'
import { checkCount } from './limits.ts'

/** One line of JSON and the descriptors that belong to it. */
export type Frame = {
  /** What the peer sent: an object, of which nothing else is checked. */
  readonly value: Readonly<Record<string, unknown>>
  /** The caller owns each, and must close it. */
  readonly fds: number[]
}

/** What a peer may send at most. */
export type FrameOptions = {
  /** At most so many descriptors with a frame. Default: none. */
  readonly maxFds?: number
  /** At most so many bytes in a line. Default: 4096. */
  readonly maxBytes?: number
  /** Ends the wait for a frame, and the frames, with an AbortError. */
  readonly signal?: AbortSignal | undefined
}

const NEWLINE = 10

/**
 * Sends one frame: the fields of `value`, and `fds` as their number. The
 * descriptors remain the caller's.
 *
 * @returns and throws as conn.sendFds() does
 * @see unix(7)
 */
export async function sendFrame(
  conn: UnixConn,
  value: object,
  fds: readonly number[] = [],
): Promise<void> {
  if (!isRecord(value) || 'fds' in value) {
    const got = isRecord(value) ? 'one that has them' : JSON.stringify(value)
    throw new TypeError(`Expected an object without "fds", got ${got}`)
  }
  const line = JSON.stringify({ ...value, fds: fds.length })
  await conn.sendFds(`${line}\n`, fds)
}

/**
 * The peer's frames, until it hangs up or the connection is closed. A peer that
 * sends faster than it is served has to wait: not more than 64 messages are
 * received ahead (see UnixConn.messages).
 *
 * Leaving the loop leaves the connection open, but drops what has arrived of
 * later frames in the same piece of bytes, and closes their descriptors. A
 * conversation that goes on keeps its generator, and calls next().
 *
 * @throws Error as conn.recvFds() does, and for what is no frame. The
 * descriptors that came are closed, and no more frames can be received
 * @see unix(7)
 * @example
 * for await (const { value, fds } of framesOf(conn, { maxFds: 1 })) {
 *   const [fd] = fds
 *   if (fd !== undefined) readableFrom(fd).pipe(process.stdout)
 *   await sendFrame(conn, { ok: value.wanted === 'file' })
 * }
 */
export async function* framesOf(
  conn: UnixConn,
  { maxFds = 0, maxBytes = 4096, signal }: FrameOptions = {},
): AsyncGenerator<Frame, void, void> {
  checkCount('maxBytes', maxBytes, 1)
  const fds: number[] = []
  const line = new PartialLine(maxBytes)
  try {
    for await (const message of conn.messages({ maxFds, signal })) {
      fds.push(...message.fds)
      for (const text of line.add(message.data)) {
        const value = parse(text)
        yield { value, fds: claim(value.fds, fds) }
      }
      // With half a line here they may be that one's, but no more than it may
      // have. With none they belong to no frame.
      if (fds.length > (line.length > 0 ? maxFds : 0)) throw unclaimed(fds)
    }
    if (line.length > 0 && conn.fd >= 0) {
      throw new Error(`Expected a line, got its first ${line.length} bytes`)
    }
  } finally {
    closeAll(fds)
  }
}

/** The bytes of a line whose end has not arrived, in pieces as they came. */
class PartialLine {
  readonly #maxBytes: number
  #pieces: Buffer[] = []
  length = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** The lines that `bytes` complete. */
  *add(bytes: Buffer): Generator<string, void, void> {
    let start = 0
    while (start < bytes.length) {
      const newline = bytes.indexOf(NEWLINE, start)
      const end = newline < 0 ? bytes.length : newline
      this.#pieces.push(bytes.subarray(start, end))
      this.length += end - start
      if (this.length > this.#maxBytes) throw tooLong(this.#maxBytes)
      if (newline < 0) return
      const text = Buffer.concat(this.#pieces).toString('utf8')
      this.#pieces = []
      this.length = 0
      start = newline + 1
      yield text
    }
  }
}

function parse(line: string): Readonly<Record<string, unknown>> {
  const text = JSON.stringify(line.slice(0, 80))
  try {
    const value: unknown = JSON.parse(line)
    if (isRecord(value)) return value
  } catch {}
  throw new Error(`Expected a JSON object, got ${text}`)
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

// Takes the first `count` off `fds`.
function claim(count: unknown, fds: number[]): number[] {
  if (Number.isInteger(count) && Number(count) >= 0) {
    if (Number(count) <= fds.length) return fds.splice(0, Number(count))
  }
  throw new Error(
    `Expected "fds" as one of 0 to ${fds.length}, as many as came, ` +
      `got ${JSON.stringify(count)}`,
  )
}

function unclaimed(fds: readonly number[]): Error {
  return new Error(`Expected no more descriptors, got ${fds.length}: closed`)
}

function tooLong(maxBytes: number): Error {
  return new Error(`Expected a line of at most ${maxBytes} bytes, got more`)
}

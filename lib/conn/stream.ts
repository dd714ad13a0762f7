// A Duplex over a connection: bytes as on any Node stream, and descriptors
// beside them. This is the shape that protocol libraries (D-Bus, Wayland, X11)
// ask of a transport.
// Read next: lib/socket/datagram.ts.

import { Duplex, type DuplexOptions } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'

import { host } from '../layouts.ts'
import { closeFd, duplicate, shutdownWriting } from '../socket/unix.ts'
import { FIRST_DELAY, longerDelay } from '../wait/retry.ts'
import { closeAll, prepareRights } from './checks.ts'
import type { UnixConn } from './conn.ts'
import { checkCount } from './limits.ts'

type Callback = (error?: Error | null) => void

const NOTHING = Buffer.alloc(0)

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
   * At most so many descriptors may arrive with one piece of bytes: more
   * destroy the stream with ERR_TOO_MANY_FDS. While so many wait for a
   * listener, nothing is read. Default: as many as one message can carry.
   */
  readonly maxFds?: number
}

/**
 * Events besides those of a Duplex: `'fds'`, with an array of descriptors that
 * belong to the listener from then on. It comes before the bytes that they came
 * with can be read. Descriptors that arrive while nothing listens are held, and
 * with `maxFds` of them reading stops, until a listener is added; destroy()
 * closes them. A program that expects none gives `maxFds: 0`.
 *
 * A write that fails destroys the stream: nothing that was written after it is
 * sent. Too many descriptors in flight (ETOOMANYREFS) are no failure: the write
 * waits, as for a full socket.
 *
 * @example
 * const stream = new FdStream(await connect('/run/service'), { maxFds: 16 })
 * stream.on('fds', (fds: number[]) => queue.push(...fds))
 * stream.on('data', (bytes: Buffer) => parse(bytes, queue))
 * stream.writeWithFds('here is a file', [fd])
 */
export class FdStream extends Duplex {
  readonly #conn: UnixConn
  readonly #maxFds: number
  /** Arrived while nothing listened. */
  readonly #held: number[][] = []
  /** Reading has stopped because too many descriptors are held. */
  #stopped = false
  /** Our duplicates, by the written chunk that they go with. */
  readonly #outgoing = new Map<Uint8Array, number[]>()

  /**
   * Owns `conn` from then on, which is used and closed through the stream
   * alone. Unless `allowHalfOpen` is true, the stream ends when the peer ends,
   * as a net.Socket does.
   *
   * @throws RangeError for a bad `maxFds`, TypeError for a connection that is
   * no stream; then `conn` remains the caller's
   */
  constructor(conn: UnixConn, options: FdStreamOptions = {}) {
    const { maxFds = host.maxFds, ...others } = options
    checkCount('maxFds', maxFds, 0)
    if (conn.type !== 'stream') {
      throw new TypeError(`Expected a stream, got a ${conn.type}`)
    }
    super({ allowHalfOpen: false, ...others })
    this.#conn = conn
    this.#maxFds = maxFds
    this.on('newListener', (event) => {
      if (event === 'fds') queueMicrotask(() => this.#handOut())
    })
  }

  /**
   * write() with descriptors. They arrive with the first of the bytes, in order
   * with all other writes. Duplicated at the call, so the caller may close its
   * own as soon as this returns.
   *
   * @param bytes at least one
   * @returns false if the caller should wait for 'drain', as write() does
   * @throws RangeError for no bytes, for what is no descriptor, or for more
   * than a message can carry; Error EBADF, EMFILE. Then nothing is written
   */
  writeWithFds(bytes: string | Uint8Array, fds: readonly number[]): boolean {
    const chunk = Buffer.from(bytes)
    if (chunk.length === 0) {
      throw new RangeError('Expected a byte to carry the descriptors, got none')
    }
    prepareRights(chunk, fds)
    // Ended or destroyed: write() says so, and nothing is left to close.
    if (!this.writable) return this.write(chunk)
    const copies: number[] = []
    try {
      for (const fd of fds) copies.push(duplicate(fd))
    } catch (error) {
      closeOwn(copies)
      throw error
    }
    this.#outgoing.set(chunk, copies)
    return this.write(chunk)
  }

  /** Closes received descriptors that no message of the protocol claimed. */
  closeFds(fds: readonly number[]): void {
    closeAll(fds)
  }

  // All that was written while an earlier write waited, or one chunk: without a
  // _write of its own, a Writable calls this for either.
  override _writev(items: { chunk: Buffer }[], done: Callback): void {
    this.#send(items.map(({ chunk }) => chunk)).then(() => done(), done)
  }

  override _final(done: Callback): void {
    try {
      shutdownWriting(this.#conn.fd)
      done()
    } catch (error) {
      done(error as Error)
    }
  }

  override _read(): void {
    this.#receive().catch((error) => this.destroy(error))
  }

  override _destroy(error: Error | null, done: Callback): void {
    this.#conn.close()
    for (const fds of this.#held.splice(0)) closeAll(fds)
    for (const fds of this.#outgoing.values()) closeOwn(fds)
    this.#outgoing.clear()
    done(error)
  }

  /** Waiting to receive keeps the process alive, as it does at first. */
  ref(): this {
    this.#conn.ref()
    return this
  }

  /** Waiting to receive does not keep the process alive. */
  unref(): this {
    this.#conn.unref()
    return this
  }

  // Descriptors ride on the first byte of a message, so each chunk that has any
  // begins one; plain chunks go along with what stands before them. One message
  // is awaited before the next is sent: behind one that fails nothing may go.
  async #send(chunks: readonly Buffer[]): Promise<void> {
    let message: Buffer[] = []
    for (const chunk of chunks) {
      if (message.length > 0 && this.#outgoing.has(chunk)) {
        await this.#sendMessage(message)
        message = []
      }
      message.push(chunk)
    }
    await this.#sendMessage(message)
  }

  async #sendMessage(chunks: readonly Buffer[]): Promise<void> {
    const [first = NOTHING, ...others] = chunks
    const bytes = others.length > 0 ? Buffer.concat(chunks) : first
    const fds = this.#outgoing.get(first) ?? []
    for (let delay = FIRST_DELAY; ; delay = longerDelay(delay)) {
      try {
        await this.#conn.sendFds(bytes, fds)
        break
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ETOOMANYREFS')
          throw error
        await sleep(delay)
      }
    }
    // Unless destroy() was quicker.
    if (this.#outgoing.delete(first)) closeOwn(fds)
  }

  async #receive(): Promise<void> {
    const held = this.#held.reduce((sum, fds) => sum + fds.length, 0)
    this.#stopped = held > 0 && held >= this.#maxFds
    if (this.#stopped) return
    const message = await this.#conn.recvFds({ maxFds: this.#maxFds })
    if (message === null) {
      this.push(null)
      return
    }
    if (this.destroyed) return closeAll(message.fds)
    if (message.fds.length > 0) {
      this.#held.push(message.fds)
      this.#handOut()
    }
    this.push(message.data)
  }

  #handOut(): void {
    while (this.listenerCount('fds') > 0) {
      const fds = this.#held.shift()
      if (fds === undefined) break
      this.emit('fds', fds)
    }
    if (this.#stopped && this.#held.length === 0) this._read()
  }
}

// Duplicates of the caller's descriptors, whose options stay as they are.
function closeOwn(copies: readonly number[]): void {
  for (const fd of copies) closeFd(fd)
}

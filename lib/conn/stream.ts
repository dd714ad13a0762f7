// A Duplex over a connection: bytes as on any Node stream, and descriptors
// beside them. This is the shape that protocol libraries (D-Bus, Wayland, X11)
// ask of a transport.

import { closeSync } from 'node:fs'
import { Duplex } from 'node:stream'
import { duplicate, shutdownWriting } from '../socket/unix.ts'
import type { UnixConn } from './conn.ts'

type Callback = (error?: Error | null) => void

/**
 * Events besides those of a Duplex: `'fds'`, with an array of descriptors that
 * belong to the listener from then on. It comes before the bytes that they came
 * with can be read. Descriptors that arrive while nobody listens wait until
 * somebody does; destroy() closes them.
 */
export class FdStream extends Duplex {
  readonly #conn: UnixConn
  /** Arrived while nobody listened. */
  readonly #held: number[][] = []
  /** Our duplicates, by the written chunk that they go with. */
  readonly #outgoing = new Map<Uint8Array, number[]>()

  /** Owns `conn` from then on, which nobody else may use or close. */
  constructor(conn: UnixConn) {
    super()
    this.#conn = conn
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
   * @throws RangeError for no bytes; Error EBADF, EMFILE, and then nothing is
   * written
   */
  writeWithFds(bytes: string | Uint8Array, fds: readonly number[]): boolean {
    const chunk = Buffer.from(bytes)
    if (chunk.length === 0) {
      throw new RangeError(
        'Expected at least one byte to go with the descriptors, got none',
      )
    }
    // Ended or destroyed: write() says so, and nothing is left to close.
    if (!this.writable) return this.write(chunk)
    const copies: number[] = []
    try {
      for (const fd of fds) copies.push(duplicate(fd))
    } catch (error) {
      closeAll(copies)
      throw error
    }
    this.#outgoing.set(chunk, copies)
    return this.write(chunk)
  }

  override _write(chunk: Buffer, _: BufferEncoding, done: Callback): void {
    this.#send(chunk).then(() => done(), done)
  }

  // All that waited for an earlier write goes out together.
  override _writev(items: { chunk: Buffer }[], done: Callback): void {
    const sends = items.map(({ chunk }) => this.#send(chunk))
    Promise.all(sends).then(() => done(), done)
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
    for (const fds of this.#outgoing.values()) closeAll(fds)
    this.#outgoing.clear()
    done(error)
  }

  ref(): this {
    this.#conn.ref()
    return this
  }

  unref(): this {
    this.#conn.unref()
    return this
  }

  async #send(chunk: Buffer): Promise<void> {
    const fds = this.#outgoing.get(chunk) ?? []
    await this.#conn.sendFds(chunk, fds)
    // Unless destroy() was quicker.
    if (this.#outgoing.delete(chunk)) closeAll(fds)
  }

  async #receive(): Promise<void> {
    const message = await this.#conn.recvFds()
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
      if (fds === undefined) return
      this.emit('fds', fds)
    }
  }
}

function closeAll(fds: readonly number[]): void {
  for (const fd of fds) closeSync(fd)
}

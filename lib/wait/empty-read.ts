// Waiting for a descriptor without reading from it, and without a thread.
//
// Any plain read throws passed descriptors away, and Node has no public way to
// learn that a socket is readable. But libuv asks its caller for a buffer
// before it reads, and if it is handed an empty one it reports ENOBUFS instead
// of reading (uv_alloc_cb in libuv's docs). Node passes that on by destroying
// the socket with ENOBUFS. So: a net.Socket with an empty read buffer, whose
// destroy() takes ENOBUFS for the good news "readable now". End of file and, on
// a listening socket, a waiting connection are news of the same kind.
//
// Writing needs no trick: a net.Socket that was given bytes waits until they
// fit. It does so for bytes alone, never for descriptors.

import { type ConnectOpts, Socket, type SocketConstructorOpts } from 'node:net'

export class Watcher extends Socket {
  readonly #onReadable: (failure?: Error) => void
  #armed = true
  #watching = false
  #keepsAlive = true

  /**
   * @param fd a stream socket. The watcher owns it from here on: close()
   * closes it. It becomes non-blocking, for everyone who shares its open file
   * description
   * @param onReadable called while watch() is in force, again and again for as
   * long as a read would not block; with an error if this Node does not work
   * as described above
   */
  constructor(fd: number, onReadable: (failure?: Error) => void) {
    // The callback would be for bytes that were read, so it is never called.
    const onread = { buffer: Buffer.alloc(0), callback: Boolean }
    const options: SocketConstructorOpts & ConnectOpts = { fd, onread }
    super({ ...options, allowHalfOpen: true })
    this.#onReadable = onReadable
    this.once('end', () => onReadable(techniqueFailed()))
    super.unref()
  }

  /** Somebody waits: the event loop stays alive for it (but see keepAlive). */
  watch(): void {
    if (this.destroyed || this.#watching) return
    this.#watching = true
    if (this.#keepsAlive) super.ref()
    if (this.#armed) return
    this.#armed = true
    this.resume()
  }

  /**
   * Nobody waits. The watch ends only when the next news comes: mostly somebody
   * waits again before that, and it costs nothing.
   */
  rest(): void {
    if (this.destroyed || !this.#watching) return
    this.#watching = false
    super.unref()
  }

  /** Whether watch() keeps the process alive. */
  keepAlive(keepsAlive: boolean): void {
    this.#keepsAlive = keepsAlive
    if (this.destroyed || !this.#watching) return
    if (keepsAlive) super.ref()
    else super.unref()
  }

  /** Closes the descriptor, at once. Waiting writes fail. */
  close(): void {
    super.destroy()
  }

  // Errors of write() come here too. They have been told to its callback, and
  // a socket that cannot be written to can still be read from: it stays open.
  override destroy(error?: NodeJS.ErrnoException): this {
    if (error?.code !== 'ENOBUFS') return this
    if (this.#watching) {
      this.#onReadable()
    } else {
      this.#armed = false
      this.pause()
    }
    return this
  }
}

function techniqueFailed(): Error {
  return new Error(
    'Expected ENOBUFS for a read into an empty buffer, got end of file: ' +
      `Node ${process.version} cannot wait for a socket without reading it`,
  )
}

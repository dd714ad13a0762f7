// Waiting with a read into an empty buffer: works with every Node.
//
// A plain read would throw passed descriptors away, and Node has no function
// that tells whether a socket is readable. But libuv asks its caller for a
// buffer before it reads, and if it gets an empty one it reports ENOBUFS
// instead of reading (uv_alloc_cb in libuv's documentation). Node then destroys
// the socket with that error. So this is a net.Socket with an empty read
// buffer, whose destroy() takes ENOBUFS to mean "readable". It comes for end of
// file too, and on a listening socket for a connection that waits.
// Read next: lib/wait/abort.ts.

import { Socket } from 'node:net'

/** As a Watcher, but for whenWritable(), which watcher.ts adds. */
export class EmptyRead extends Socket {
  readonly #onReadable: (failure?: Error) => void
  /** Whether libuv reports: it does until pause(), which costs a call. */
  #reading = true
  #watching = false
  #keepsAlive = true

  /** As of every Watcher. */
  constructor(fd: number, onReadable: (failure?: Error) => void) {
    // The callback would be for bytes that were read, so it is never called.
    const onread = { buffer: Buffer.alloc(0), callback: Boolean }
    // Declared before the call: @types/node 20 does not know `onread` here.
    const options = { fd, onread, allowHalfOpen: true }
    super(options)
    this.#onReadable = onReadable
    this.once('end', () => onReadable(cannotWait()))
    super.unref()
  }

  watch(): void {
    if (this.destroyed || this.#watching) return
    this.#watching = true
    if (this.#keepsAlive) super.ref()
    if (this.#reading) return
    this.#reading = true
    this.resume()
  }

  // libuv goes on until it reports the next time. Mostly watch() is called
  // again before that, and then neither pause() nor resume() is needed.
  rest(): void {
    if (this.destroyed || !this.#watching) return
    this.#watching = false
    super.unref()
  }

  keepAlive(keepsAlive: boolean): void {
    this.#keepsAlive = keepsAlive
    if (this.destroyed || !this.#watching) return
    if (keepsAlive) super.ref()
    else super.unref()
  }

  close(): void {
    super.destroy()
  }

  // Node calls this with the error of a failed read or write. One of write()
  // has been told to its callback, and a socket that cannot be written to can
  // still be read from: it stays open.
  override destroy(error?: NodeJS.ErrnoException): this {
    if (error?.code !== 'ENOBUFS') return this
    if (this.#watching) {
      this.#onReadable()
    } else {
      this.#reading = false
      this.pause()
    }
    return this
  }
}

function cannotWait(): Error {
  return new Error(
    'Expected ENOBUFS for a read into an empty buffer, got end of file: ' +
      `Node ${process.version} cannot wait for a socket without reading it`,
  )
}

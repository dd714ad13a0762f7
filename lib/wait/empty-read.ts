// The event loop's watch of one descriptor, by a read into an empty buffer: it
// works with every Node, and in worker threads.
//
// A plain read would throw passed descriptors away, and Node has no function
// that tells whether a socket is readable. But libuv asks its caller for a
// buffer before it reads, and if it gets an empty one it reports ENOBUFS
// instead of reading (uv_alloc_cb in libuv's documentation). Node then destroys
// the socket with that error. So this is a net.Socket with an empty read
// buffer, whose destroy() takes ENOBUFS to mean "readable". It comes for end of
// file too, and on a listening socket for a connection that waits.
// Read next: lib/wait/uv-poll.ts.

import { Socket } from 'node:net'

import { closeFd, newSocketpair, putInPlace } from '../socket/unix.ts'
import type { LoopWatch } from './types.ts'

/** Owns its descriptor, which becomes non-blocking. */
export class EmptyRead extends Socket implements LoopWatch {
  /** Closed with it. */
  readonly fd: number
  readonly #onReadable: () => void
  readonly #onFailure: (reason: Error) => void

  /**
   * Unreferenced at first.
   *
   * @param onReadable called in each turn of the event loop in which a read
   * would not block, until pause()
   * @param onFailure called if this Node does something else with an empty
   * buffer
   * @throws Error ERR_INVALID_FD_TYPE for what is no socket, pipe or terminal;
   * then `fd` remains the caller's
   */
  constructor(
    fd: number,
    onReadable: () => void,
    onFailure: (reason: Error) => void,
  ) {
    // The callback would be for bytes that were read, so it is never called.
    const onread = { buffer: Buffer.alloc(0), callback: Boolean }
    // Declared before the call: @types/node 20 does not know `onread` here.
    const options = { fd, onread, allowHalfOpen: true }
    super(options)
    this.fd = fd
    this.#onReadable = onReadable
    this.#onFailure = onFailure
    this.once('end', () => onFailure(cannotWait('end of file')))
    this.unref()
  }

  /** Closes the descriptor, at once. */
  close(): void {
    super.destroy()
  }

  // Node calls this with the error of a failed read.
  override destroy(error?: NodeJS.ErrnoException): this {
    // Of what cannot be read, such as the writing end of a pipe, within super().
    if (!(#onFailure in this)) return this
    if (error?.code === 'ENOBUFS') this.#onReadable()
    else this.#onFailure(cannotWait(String(error?.code)))
    return this
  }
}

/**
 * A watch of whatever can be polled, through a duplicate of `fd`, which remains
 * the caller's and as it is. Node makes a net.Socket from a stream socket, pipe
 * or terminal only, and checks that in its constructor. The event loop registers
 * the descriptor later, when it first waits, and takes more. So in between the
 * duplicate is put in the place of a stream socket.
 *
 * @param onReadable and onFailure as for the constructor
 * @throws Error EBADF; EMFILE
 */
export function emptyReadOf(
  fd: number,
  onReadable: () => void,
  onFailure: (reason: Error) => void,
): EmptyRead {
  const [place, other] = newSocketpair()
  closeFd(other)
  const loop = new EmptyRead(place, onReadable, onFailure)
  try {
    putInPlace(fd, place)
    return loop
  } catch (error) {
    loop.close()
    throw error
  }
}

function cannotWait(got: string): Error {
  return new Error(
    `Expected ENOBUFS for a read into an empty buffer, got ${got}: ` +
      `Node ${process.version} cannot wait for a socket without reading it`,
  )
}

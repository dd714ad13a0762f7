// A server's side: the listening socket and its file, the connections that come
// in, and serve(), which gives each of them to a handler, bounds how many there
// are at a time, and ends in order. How it gets its path: wait/listen-at.ts.
// Open unix(7), listen(2) and accept(2) beside it.
// Read next: lib/conn/listening.ts.

import { closeFd, type SocketOptions, tieToThread } from '../socket/unix.ts'
import { Acceptor, warn } from '../wait/accept.ts'
import {
  type BindOptions,
  listenAt,
  type SocketFile,
} from '../wait/listen-at.ts'
import { UnixConn } from './conn.ts'
import { checkSignal } from './limits.ts'

/** Of the socket and its file, and what is done with errors of accept(2). */
export type ListenOptions = BindOptions &
  SocketOptions & {
    /**
     * Called for an error after which accepting goes on, at most once a minute
     * for each kind, and for a socket file that could not be removed. Default:
     * it becomes a warning of the process.
     */
    readonly onWarning?: (warning: Error) => void
  }

/** `signal` ends the wait with an AbortError. */
export type AcceptOptions = { readonly signal?: AbortSignal | undefined }

/** Called with each connection, which is closed when it has ended. */
export type Handler = (conn: UnixConn) => void | Promise<void>

/** Of listener.serve(). */
export type ServeOptions = {
  /**
   * Connections at a time; more of them wait in the backlog. Default: any
   * number.
   */
  readonly maxConnections?: number
  /**
   * Called with what a handler threw. If this throws, serve() ends with its
   * error. Default: what was thrown is a warning of the process.
   */
  readonly onError?: (error: unknown, conn: UnixConn) => void
}

/**
 * Listens on a Unix socket. Replaces the file of a server that died; of
 * servers that start at the same time exactly one gets the path.
 *
 * @param path as for connect()
 * @throws Error EADDRINUSE, with the `pid` of the server that has the path, or
 * saying that the path is not a socket; EACCES; ENOENT; ENAMETOOLONG
 * @throws RangeError for `backlog` or `mode`
 * @see bind(2), listen(2), unix(7)
 */
export async function listen(
  path: string,
  options: ListenOptions = {},
): Promise<UnixListener> {
  const { type = 'stream' } = options
  const { fd, file } = await listenAt(path, type, options)
  try {
    return UnixListener.adopt(fd, path, type, file, options.onWarning)
  } catch (error) {
    file?.remove()
    closeFd(fd)
    throw error
  }
}

/**
 * A listening socket, and its file. `for await` accepts one connection a round.
 * The caller owns, and closes, the listener and the connections.
 *
 * @see accept(2)
 */
export class UnixListener {
  readonly path: string
  readonly #type: 'stream' | 'seqpacket'
  readonly #acceptor: Acceptor
  readonly #file: SocketFile | undefined
  readonly #onWarning: (warning: Error) => void
  readonly #servings = new Map<Serving, Promise<void>>()
  #isClosed = false

  private constructor(
    fd: number,
    path: string,
    type: 'stream' | 'seqpacket',
    file: SocketFile | undefined,
    onWarning: (warning: Error) => void,
  ) {
    this.path = path
    this.#type = type
    this.#onWarning = onWarning
    this.#file = file
    this.#acceptor = new Acceptor(fd, { address: path, onWarning })
  }

  /**
   * Of a socket that listens. Owns `fd` and `file`, unless this throws. In
   * a worker thread the socket is closed with the thread; the file stays.
   *
   * @internal
   */
  static adopt(
    fd: number,
    path: string,
    type: 'stream' | 'seqpacket',
    file: SocketFile | undefined,
    onWarning = warn,
  ): UnixListener {
    return new UnixListener(tieToThread(fd), path, type, file, onWarning)
  }

  /**
   * accept(2). The caller owns, and closes, the connection. Calls are served in
   * order.
   *
   * @param options.signal aborts the wait; whoever connects waits in the
   * backlog for the next call
   * @returns null once the listener is closed
   * @throws AbortError; Error EINVAL and others that cannot pass
   * @see accept(2)
   */
  async accept(options: AcceptOptions = {}): Promise<UnixConn | null> {
    checkSignal(options.signal)
    for (;;) {
      const fd = await this.#acceptor.next(options.signal)
      if (fd === undefined) return null
      try {
        return UnixConn.adopt(tieToThread(fd), this.#type)
      } catch (error) {
        closeFd(fd)
        this.#warn(error as Error)
      }
    }
  }

  /** The connections, until close(). The caller owns, and closes, each. */
  async *[Symbol.asyncIterator](): AsyncGenerator<UnixConn, void, void> {
    for (;;) {
      const conn = await this.accept()
      if (conn === null) return
      yield conn
    }
  }

  /**
   * Gives each connection to a handler of its own, which is not awaited before
   * the next. A connection is closed when its handler ends; close() closes all
   * of them, after which each handler has to end by itself.
   *
   * @returns resolved when the listener is closed and the last handler has
   * ended
   * @throws RangeError for `maxConnections`
   * @throws Error as accept(), and what `onError` throws, after which the
   * listener is closed
   * @example
   * const listener = await listen('/tmp/echo.sock')
   * process.once('SIGINT', () => listener.close())
   * await listener.serve(async (conn) => {
   *   for (;;) {
   *     const message = await conn.recvmsg()
   *     if (message === null) return
   *     await conn.sendmsg(message.data)
   *   }
   * })
   */
  async serve(handler: Handler, options: ServeOptions = {}): Promise<void> {
    const serving = new Serving(handler, options)
    const ended = serving.run(this)
    this.#servings.set(serving, ended)
    try {
      await ended
    } finally {
      this.#servings.delete(serving)
    }
  }

  /**
   * Stops listening, removes the socket file if it is still this one, and
   * closes the connections of serve(). Closing again does nothing. Where the
   * file cannot be removed, all else is done, and `onWarning` is told.
   */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    // Before the socket is closed: as soon as it refuses, another server may
    // take the path.
    const failure = this.#file?.remove()
    this.#acceptor.close()
    for (const serving of this.#servings.keys()) serving.hangUp()
    if (failure) this.#warn(failure)
  }

  /** close(), for `using`. The handlers of serve() may still run. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** close(), and the end of the last handler of serve(). */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
    await Promise.allSettled(this.#servings.values())
  }

  // close() is called where nobody expects an error of the owner's function.
  #warn(error: Error): void {
    try {
      this.#onWarning(error)
    } catch (failure) {
      warn(failure as Error)
    }
  }

  /** Waiting to accept keeps the process alive, as it does at first. */
  ref(): this {
    this.#acceptor.ref()
    return this
  }

  /** Waiting to accept does not keep the process alive. */
  unref(): this {
    this.#acceptor.unref()
    return this
  }
}

type Source = {
  accept(): Promise<UnixConn | null>
  close(): void
}

// One call of serve().
export class Serving {
  readonly #handler: Handler
  readonly #maxConnections: number
  readonly #onError: (error: unknown, conn: UnixConn) => void
  readonly #conns = new Set<UnixConn>()
  readonly #failures: unknown[] = []
  #isClosed = false
  #onEnd = (): void => {}

  /** @throws RangeError for `maxConnections` */
  constructor(handler: Handler, options: ServeOptions) {
    const { maxConnections = Number.POSITIVE_INFINITY, onError = warnOf } =
      options
    if (!(maxConnections >= 1)) {
      throw new RangeError(
        `Expected maxConnections as a number from 1, got ${maxConnections}`,
      )
    }
    this.#handler = handler
    this.#maxConnections = maxConnections
    this.#onError = onError
  }

  /** Resolves when `source` is closed and the last handler has ended. */
  async run(source: Source): Promise<void> {
    try {
      for (;;) {
        await this.#fewerThan(this.#maxConnections)
        const conn = await source.accept()
        if (conn === null) break
        // close() may have come between the connection and this line.
        if (this.#isClosed) conn.close()
        void this.#handle(conn, source)
      }
    } finally {
      source.close()
      await this.#fewerThan(1)
    }
    if (this.#failures.length > 0) throw this.#failures[0]
  }

  /** Closes every connection, which ends whatever its handler waits for. */
  hangUp(): void {
    this.#isClosed = true
    for (const conn of this.#conns) conn.close()
  }

  // Not awaited: an error that it threw would end the process.
  async #handle(conn: UnixConn, source: Source): Promise<void> {
    this.#conns.add(conn)
    try {
      await this.#handler(conn)
    } catch (error) {
      if (!this.#isClosed || codeOf(error) !== 'ERR_SOCKET_CLOSED') {
        this.#report(error, conn, source)
      }
    }
    conn.close()
    this.#conns.delete(conn)
    this.#onEnd()
  }

  #report(error: unknown, conn: UnixConn, source: Source): void {
    try {
      this.#onError(error, conn)
    } catch (failure) {
      this.#failures.push(failure)
      source.close()
    }
  }

  async #fewerThan(count: number): Promise<void> {
    while (this.#conns.size >= count) {
      await new Promise<void>((resolve) => {
        this.#onEnd = resolve
      })
    }
  }
}

function codeOf(error: unknown): unknown {
  return (error as NodeJS.ErrnoException | undefined)?.code
}

function warnOf(error: unknown): void {
  warn(error instanceof Error ? error : new Error(String(error)))
}

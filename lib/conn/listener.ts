// A server's side: the listening socket, its file, and the connections that
// come in. How it gets its path: wait/listen-at.ts. What serve() does:
// serve.ts. Open unix(7), listen(2) and accept(2) beside it.
// Read next: lib/conn/serve.ts.

import type { Stats } from 'node:fs'

import { lstatAt, removeIfSame } from '../socket/file.ts'
import { closeFd } from '../socket/unix.ts'
import { Acceptor, warn } from '../wait/accept.ts'
import { type BindOptions, listenAt } from '../wait/listen-at.ts'
import { UnixConn } from './conn.ts'
import { type Handler, type ServeOptions, Serving } from './serve.ts'

/** Of the socket and its file, and what is done with errors of accept(2). */
export type ListenOptions = BindOptions & {
  /** Called for an error after which accepting goes on, at most once a minute
   * for each kind; unless given, it becomes a warning of the process. */
  readonly onWarning?: (warning: Error) => void
}

/** `signal` ends the wait with an AbortError. */
export type AcceptOptions = { readonly signal?: AbortSignal }

/**
 * Listens on a Unix stream socket. Replaces the file of a server that died; of
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
  const fd = await listenAt(path, options)
  const file = lstatAt(path)
  try {
    return new UnixListener(fd, path, options.onWarning)
  } catch (error) {
    if (file) removeIfSame(path, file)
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
  readonly #acceptor: Acceptor
  readonly #file: Stats | undefined
  readonly #onWarning: (warning: Error) => void
  readonly #servings = new Map<Serving, Promise<void>>()
  #isClosed = false

  /**
   * Owns `fd` and, if it is bound to a path, the file there. If this throws,
   * both remain the caller's.
   */
  constructor(fd: number, path: string, onWarning = warn) {
    this.path = path
    this.#onWarning = onWarning
    this.#file = lstatAt(path)
    this.#acceptor = new Acceptor(fd, { address: path, onWarning })
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
    for (;;) {
      const fd = await this.#acceptor.next(options.signal)
      if (fd === undefined) return null
      try {
        return new UnixConn(fd)
      } catch (error) {
        closeFd(fd)
        this.#onWarning(error as Error)
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
   * @throws RangeError for `most`; Error as accept(), or as `onError` throws
   * it: then the listener is closed
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
   * closes the connections of serve(). Closing again does nothing.
   */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    // Before the socket is closed: as soon as it refuses, another server may
    // take the path.
    if (this.#file) removeIfSame(this.path, this.#file)
    this.#acceptor.close()
    for (const serving of this.#servings.keys()) serving.hangUp()
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

  /** Waiting to accept keeps the process alive, as it does at first. */
  ref(): this {
    this.#acceptor.keepAlive(true)
    return this
  }

  /** Waiting to accept does not keep the process alive. */
  unref(): this {
    this.#acceptor.keepAlive(false)
    return this
  }
}

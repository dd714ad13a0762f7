// Dialling, and a server's side of it: the listening socket, its file, and the
// connections that come in. How it gets its path: wait/listen-at.ts; what
// serve() does: serve.ts. Open unix(7) beside it.

import type { Stats } from 'node:fs'
import { constants } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'

import { check } from '../libc.ts'
import { lstatAt, removeIfSame } from '../socket/file.ts'
import { closeFd, connectTo, newSocket } from '../socket/unix.ts'
import { abortError } from '../wait/abort.ts'
import { Acceptor, warn } from '../wait/accept.ts'
import { type BindOptions, listenAt } from '../wait/listen-at.ts'
import { UnixConn } from './conn.ts'
import { type Handler, type ServeOptions, Serving } from './serve.ts'

export type ListenOptions = BindOptions & {
  /** Called for an error after which accepting goes on, at most once a minute
   * for each kind; unless given, it becomes a warning of the process. */
  readonly onWarning?: (warning: Error) => void
}

export type ConnectOptions = { readonly signal?: AbortSignal }

export type AcceptOptions = { readonly signal?: AbortSignal }

const { EAGAIN } = constants.errno

/** How long to wait where nothing tells when to try again, in ms. */
const RETRY_DELAY = 20

/**
 * connect(2): dials a Unix stream socket. If its backlog is full, waits for a
 * place. The caller owns, and closes, the connection.
 *
 * @param path of the socket file; on Linux `'\0name'` for an abstract name
 * @param options.signal aborts the wait
 * @throws Error ENOENT, ECONNREFUSED if nobody listens; EACCES; ENAMETOOLONG;
 * AbortError
 * @see connect(2), unix(7)
 * @example
 * const conn = await connect('/tmp/echo.sock')
 * await conn.sendFds('Here is my stdin', [0])
 * const answer = await conn.recvmsg()
 * conn.close()
 */
export async function connect(
  path: string,
  { signal }: ConnectOptions = {},
): Promise<UnixConn> {
  if (signal?.aborted) throw abortError(signal)
  const fd = newSocket()
  try {
    for (;;) {
      const result = connectTo(fd, path)
      if (result !== -EAGAIN) {
        check('connect', result, path)
        return new UnixConn(fd)
      }
      await sleep(RETRY_DELAY, undefined, signal ? { signal } : {})
    }
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

/**
 * Listens on a Unix stream socket. Replaces the file of a server that died; of
 * servers that start at the same time exactly one gets the path.
 *
 * @param path as for connect()
 * @throws Error EADDRINUSE, with the `pid` of the server that has the path, or
 * saying that the path is not a socket; EACCES; ENOENT; ENAMETOOLONG
 * @throws RangeError for `backlog` or `mode`
 */
export async function listen(
  path: string,
  options: ListenOptions = {},
): Promise<UnixListener> {
  const fd = await listenAt(path, options)
  try {
    return new UnixListener(fd, path, options.onWarning)
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

/** A listening socket. `for await` accepts one connection a round. */
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

  [Symbol.dispose](): void {
    this.close()
  }

  /** close(), and the end of the last handler of serve(). */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
    await Promise.allSettled(this.#servings.values())
  }

  ref(): this {
    this.#acceptor.keepAlive(true)
    return this
  }

  unref(): this {
    this.#acceptor.keepAlive(false)
    return this
  }
}

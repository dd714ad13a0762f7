// Listening for connections, and dialling. What becomes of the socket file when
// somebody else has left one there: socketfile.ts.

import { chmodSync, closeSync, type Stats } from 'node:fs'
import { constants } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { check, declare, systemError } from '../libc.ts'
import { lstatAt, removeIfSame, removeStale } from '../socket/file.ts'
import {
  acceptFrom,
  bindTo,
  connectTo,
  isAbstract,
  newSocket,
} from '../socket/unix.ts'
import { Watcher } from '../wait/watcher.ts'
import { UnixConn } from './conn.ts'

// int listen(int fd, int backlog)
const listenOn = declare('listen', 'int', ['int', 'int'])

export type ListenOptions = {
  /** Connections that may wait to be accepted: 511 unless given. */
  readonly backlog?: number
  /** Of the socket file: 0o600, the owner alone, unless given. */
  readonly mode?: number
}

const { EAGAIN, EADDRINUSE, ECONNABORTED, EMFILE, ENFILE } = constants.errno

/** Errors of accept(2) that pass: no free descriptor, or the peer has left. */
const PASSING = [EMFILE, ENFILE, ECONNABORTED]

/** How long to wait where nothing tells when to try again, in ms. */
const RETRY_DELAY = 20

/**
 * Dials a Unix stream socket. If its backlog is full, waits for a place.
 *
 * @param path of the socket file; on Linux `'\0name'` for an abstract name
 * @throws Error ENOENT, ECONNREFUSED if nobody listens; EACCES; ENAMETOOLONG
 */
export async function connect(path: string): Promise<UnixConn> {
  const fd = newSocket()
  try {
    for (;;) {
      const result = connectTo(fd, path)
      if (result !== -EAGAIN) {
        check('connect', result, path)
        return new UnixConn(fd)
      }
      await sleep(RETRY_DELAY)
    }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/**
 * Listens on a Unix stream socket.
 *
 * @param path as for connect()
 * @throws Error EADDRINUSE, with the `pid` of the server that has the path, or
 * saying that the path is not a socket; EACCES; ENOENT; ENAMETOOLONG
 */
export async function listen(
  path: string,
  options: ListenOptions = {},
): Promise<UnixListener> {
  return new UnixListener(listenAt(path, options), path)
}

/** listen() as a bare descriptor, close-on-exec, which the caller owns. */
export function listenAt(
  path: string,
  { backlog = 511, mode = 0o600 }: ListenOptions = {},
): number {
  const fd = newSocket()
  try {
    let result = bindTo(fd, path)
    if (result === -EADDRINUSE) {
      removeStale(path)
      result = bindTo(fd, path)
    }
    check('bind', result, path)
    // Nobody can connect before listen(2), so the mode is never too wide.
    if (!isAbstract(path)) chmodSync(path, mode)
    check('listen', listenOn(fd, backlog), path)
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** A listening socket. `for await` accepts one connection a round. */
export class UnixListener {
  readonly path: string
  readonly #fd: number
  readonly #watcher: Watcher
  readonly #file: Stats | undefined
  readonly #waiting: (() => void)[] = []
  readonly #accept: typeof acceptFrom
  #closed = false

  /** Owns `fd` and, if it is bound to a path, the file there. */
  constructor(fd: number, path: string, accept = acceptFrom) {
    this.#accept = accept
    this.path = path
    this.#fd = fd
    this.#file = lstatAt(path)
    this.#watcher = new Watcher(fd, () => this.#wakeAll())
  }

  /** The connections, until close(). The caller owns, and closes, each. */
  async *[Symbol.asyncIterator](): AsyncGenerator<UnixConn, void, void> {
    while (!this.#closed) {
      const fd = this.#accept(this.#fd)
      if (fd >= 0) yield new UnixConn(fd)
      else await this.#waitAfter(fd)
    }
  }

  /** Stops listening and removes the socket file, if it is still this one. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#watcher.close()
    this.#wakeAll()
    if (this.#file) removeIfSame(this.path, this.#file)
  }

  ref(): this {
    this.#watcher.keepAlive(true)
    return this
  }

  unref(): this {
    this.#watcher.keepAlive(false)
    return this
  }

  // Without a free descriptor the connection stays in the backlog, which keeps
  // the socket readable: only time helps.
  async #waitAfter(result: number): Promise<void> {
    if (PASSING.includes(-result)) return sleep(RETRY_DELAY)
    if (result !== -EAGAIN) throw systemError('accept', result, this.path)
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve)
      this.#watcher.watch()
    })
  }

  #wakeAll(): void {
    this.#watcher.rest()
    for (const wake of this.#waiting.splice(0)) wake()
  }
}

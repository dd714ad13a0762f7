// The accept loop, for listening sockets of every kind: it waits without a
// thread, and goes on after the errors of accept(2) that are not the listening
// socket's own. node:net accepts too, but does not give the numbers, without
// which a connection cannot be passed on. Open accept(2) beside it.
// Read next: lib/wait/listen-at.ts.

import { constants } from 'node:os'

import { systemError } from '../libc.ts'
import { acceptFrom } from '../socket/unix.ts'
import { abortError } from './abort.ts'
import { Watcher } from './watcher.ts'

const { EAGAIN, EBADF, EFAULT, EINVAL, ENOSYS, ENOTSOCK } = constants.errno

/**
 * Errors that say that this descriptor will never give a connection. EOPNOTSUPP
 * is not among them: from TCP it means that the network refused one connection,
 * and of a datagram socket, which has it too, no Watcher can be made.
 */
const LASTING = [EBADF, EFAULT, EINVAL, ENOSYS, ENOTSOCK]

/** Pause after an error that may pass, in ms: no event says when it has. */
const RETRY_DELAY = 20

/** Connections in one turn of the event loop, so that others get theirs. */
const ACCEPTED_PER_TURN = 64

/** One warning for each kind of error in this time, in ms. */
const WARNING_INTERVAL = 60_000

type Waiting = {
  readonly resolve: (fd: number | undefined) => void
  readonly reject: (reason: Error) => void
}

export type AcceptorOptions = {
  /** For error details: the address of the socket. */
  readonly address?: string
  /** Called for an error after which accepting goes on, at most once a minute
   * for each kind. Unless given, the error is a warning of the process */
  readonly onWarning?: (warning: Error) => void
}

/**
 * accept(2), again and again. Errors that may pass (no free descriptor, no
 * memory, what a firewall or the network did to one connection) are retried
 * after a pause, while the connections wait in the backlog.
 */
export class Acceptor {
  readonly #fd: number
  readonly #address: string
  readonly #onWarning: (warning: Error) => void
  readonly #watcher: Watcher
  readonly #waiting: Waiting[] = []
  /** When an error was last told, by its number. */
  readonly #warned = new Map<number, number>()
  #pause: NodeJS.Timeout | undefined
  #keepsAlive = true
  #closed = false
  #accepted = 0

  /**
   * @param fd a listening socket, which becomes non-blocking. close() closes
   * it; if this throws, it remains the caller's
   */
  constructor(fd: number, options: AcceptorOptions = {}) {
    this.#fd = fd
    this.#address = options.address ?? ''
    this.#onWarning = options.onWarning ?? warn
    this.#watcher = new Watcher(fd, (failure) => {
      this.#accepted = 0
      if (failure) this.#fail(failure)
      this.#serve()
    })
  }

  /**
   * The descriptor of the next connection, close-on-exec and non-blocking,
   * which the caller owns; undefined once closed. Calls are served in order.
   *
   * @param signal aborts the wait; the connections stay in the backlog
   * @throws Error EINVAL, ENOTSOCK and others that cannot pass, with syscall
   * `accept`; AbortError
   */
  next(signal?: AbortSignal): Promise<number | undefined> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(abortError(signal))
      if (this.#closed) return resolve(undefined)
      const onAbort = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1)
        waiting.reject(abortError(signal))
        this.#serve()
      }
      const settle = (): void => signal?.removeEventListener('abort', onAbort)
      const waiting: Waiting = {
        resolve: (fd) => {
          settle()
          resolve(fd)
        },
        reject: (reason) => {
          settle()
          reject(reason)
        },
      }
      signal?.addEventListener('abort', onAbort)
      this.#waiting.push(waiting)
      this.#serve()
    })
  }

  /** Closes the listening socket; every next() gives undefined. */
  close(): void {
    this.#closed = true
    clearTimeout(this.#pause)
    this.#watcher.close()
    for (const { resolve } of this.#waiting.splice(0)) resolve(undefined)
  }

  /** Whether a next() that waits keeps the process alive. It does at first. */
  keepAlive(keepsAlive: boolean): void {
    this.#keepsAlive = keepsAlive
    this.#watcher.keepAlive(keepsAlive)
    if (keepsAlive) this.#pause?.ref()
    else this.#pause?.unref()
  }

  #serve(): void {
    while (this.#waiting.length > 0 && this.#pause === undefined) {
      if (this.#accepted === ACCEPTED_PER_TURN) return this.#watcher.watch()
      const result = acceptFrom(this.#fd)
      if (result >= 0) {
        this.#accepted++
        this.#waiting.shift()?.resolve(result)
      } else if (result === -EAGAIN) {
        return this.#watcher.watch()
      } else {
        this.#takeError(result)
      }
    }
    this.#watcher.rest()
  }

  #takeError(errno: number): void {
    const error = systemError('accept', errno, this.#address)
    if (LASTING.includes(-errno)) return this.#fail(error)
    this.#pause = setTimeout(() => {
      this.#pause = undefined
      this.#serve()
    }, RETRY_DELAY)
    this.keepAlive(this.#keepsAlive)
    const now = performance.now()
    const last = this.#warned.get(errno) ?? Number.NEGATIVE_INFINITY
    if (now - last < WARNING_INTERVAL) return
    this.#warned.set(errno, now)
    error.message += ': accepting goes on after a pause'
    try {
      this.#onWarning(error)
    } catch (failure) {
      this.#fail(failure as Error)
    }
  }

  #fail(error: Error): void {
    for (const { reject } of this.#waiting.splice(0)) reject(error)
  }
}

/** Reports an error that ended nothing, as a warning of the process. */
export function warn(error: Error): void {
  process.emitWarning(error)
}

/**
 * The descriptors of the connections that come in on a listening socket. The
 * caller owns, and closes, each. They are non-blocking and close-on-exec.
 *
 * @param fd closed when this ends
 * @param signal ends it, without an error
 * @throws Error as Acceptor
 * @see accept(2)
 */
export async function* connectionsOn(
  fd: number,
  signal?: AbortSignal,
): AsyncGenerator<number, void, void> {
  const acceptor = new Acceptor(fd)
  const stop = (): void => acceptor.close()
  signal?.addEventListener('abort', stop)
  try {
    while (!signal?.aborted) {
      const accepted = await acceptor.next()
      if (accepted === undefined) return
      yield accepted
    }
  } finally {
    signal?.removeEventListener('abort', stop)
    acceptor.close()
  }
}

// The accept loop, for listening sockets of every kind: it waits without a
// thread, and goes on after the errors of accept(2) that are not the listening
// socket's own. node:net accepts too, but does not give the numbers, without
// which a connection cannot be passed on. Open accept(2) beside it.
// Read next: lib/wait/listen-at.ts.

import { constants } from 'node:os'

import { systemError } from '../libc.ts'
import {
  checkFd,
  isListening,
  isUnixSocket,
  setReceiveTimeout,
} from '../socket/options.ts'
import { acceptFrom, closeFd, setNonBlocking } from '../socket/unix.ts'
import { Line } from './line.ts'
import { PER_TURN, READABLE, Watch } from './watch.ts'

const { EAGAIN, EBADF, EFAULT, EINVAL, EMFILE, ENFILE, ENOMEM, ENOSYS } =
  constants.errno
const { ENOTSOCK, EOPNOTSUPP } = constants.errno

/** Errors that say that this descriptor will never give a connection. */
const NEVER_ACCEPTS = [EBADF, EFAULT, EINVAL, ENOSYS, ENOTSOCK]

/** Errors of waiting that pass: the first wait makes the list of epoll(7). */
const MAY_PASS = [EMFILE, ENFILE, ENOMEM]

/** In µs: how long accept(2) may wait where others have made it wait. */
const ACCEPT_TIMEOUT = 1

/** Pause after an error that may pass, in ms: no event says when it has. */
const RETRY_DELAY = 20

/** One warning for each kind of error in this time, in ms. */
const WARNING_INTERVAL = 60_000

export type AcceptorOptions = {
  /** For error details: the address of the socket. */
  readonly address?: string
  /**
   * Called for an error after which accepting goes on, at most once a minute
   * for each kind. Default: the error is a warning of the process.
   */
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
  readonly #isUnix: boolean
  readonly #watch: Watch
  readonly #line = new Line<undefined>()
  /** When an error was last told, by its number. */
  readonly #warned = new Map<number, number>()
  #pause: NodeJS.Timeout | undefined
  /** The end of this turn of the event loop, when accepting goes on. */
  #nextTurn: NodeJS.Immediate | undefined
  #isReferenced = true
  #closed = false
  #accepted = 0

  /**
   * @param fd a listening socket, which becomes non-blocking. close() closes
   * it; if this throws, it remains the caller's
   * @throws RangeError for what is no descriptor
   */
  constructor(fd: number, options: AcceptorOptions = {}) {
    this.#fd = checkFd(fd)
    this.#address = options.address ?? ''
    this.#onWarning = options.onWarning ?? warn
    this.#isUnix = isUnixSocket(fd)
    this.#watch = new Watch(fd, 'edge', () => {
      this.#accepted = 0
      this.#serve()
    })
    setReceiveTimeout(fd, ACCEPT_TIMEOUT)
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
    if (this.#closed) return Promise.resolve(undefined)
    const serve = (): void => this.#serve()
    const accepted = this.#line.join<number>(undefined, signal, serve)
    this.#serve()
    return accepted
  }

  /** Closes the listening socket; every next() gives undefined. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#pause)
    clearImmediate(this.#nextTurn)
    this.#watch.end()
    setReceiveTimeout(this.#fd, 0) // for others that have the same socket
    closeFd(this.#fd)
    while (!this.#line.isEmpty) this.#line.resolveFirst(undefined)
  }

  /** A next() that waits keeps the process alive, as it does at first. */
  ref(): void {
    this.#isReferenced = true
    this.#watch.ref()
    this.#pause?.ref()
  }

  /** A next() that waits does not keep the process alive. */
  unref(): void {
    this.#isReferenced = false
    this.#watch.unref()
    this.#pause?.unref()
  }

  #serve(): void {
    if (this.#pause || this.#nextTurn || this.#closed) return
    if (this.#line.isEmpty) return this.#watch.cancel(READABLE)
    // O_NONBLOCK belongs to the open file description, and another process that
    // has it may turn it off at any time: then accept(2) waits in the kernel,
    // but not for longer than the timeout says.
    setNonBlocking(this.#fd)
    while (!this.#line.isEmpty) {
      if (this.#accepted === PER_TURN) return this.#serveNextTurn()
      const result = this.#accept()
      if (result === -EAGAIN) return this.#wait()
      if (result < 0) return this.#takeError(result)
      this.#accepted++
      this.#line.resolveFirst(result)
    }
  }

  #accept(): number {
    const result = acceptFrom(this.#fd)
    // A TCP connection has the timeout of its listening socket.
    if (result >= 0 && !this.#isUnix) setReceiveTimeout(result, 0)
    return result
  }

  #wait(): void {
    try {
      this.#watch.wait(READABLE)
    } catch (error) {
      const { errno = 0 } = error as NodeJS.ErrnoException
      if (MAY_PASS.includes(-errno)) this.#retryLater(error as Error, errno)
      else this.#fail(error as Error)
    }
  }

  // The backlog is not empty, so the watch would not tell.
  #serveNextTurn(): void {
    this.#nextTurn = setImmediate(() => {
      this.#nextTurn = undefined
      this.#accepted = 0
      this.#serve()
    })
  }

  #takeError(errno: number): void {
    const error = systemError('accept', errno, this.#address)
    // From TCP EOPNOTSUPP says that the network refused one connection, from a
    // socket of datagrams that there will never be one.
    const isLasting =
      NEVER_ACCEPTS.includes(-errno) ||
      (errno === -EOPNOTSUPP && !isListening(this.#fd))
    if (isLasting) this.#fail(error)
    else this.#retryLater(error, errno)
  }

  #retryLater(error: Error, errno: number): void {
    this.#pause = setTimeout(() => {
      this.#pause = undefined
      this.#serve()
    }, RETRY_DELAY)
    if (!this.#isReferenced) this.#pause.unref()
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

  #fail(reason: Error): void {
    while (!this.#line.isEmpty) this.#line.rejectFirst(reason)
  }
}

/** Reports an error that ended nothing, as a warning of the process. */
export function warn(error: Error): void {
  process.emitWarning(error)
}

/** A listening socket that can be taken over, such as a ListeningSocket. */
export type Detachable = {
  /** Gives the descriptor away: it is the caller's from then on. */
  detach(): number
}

/** Of connectionsOn(). */
export type ConnectionsOptions = {
  /** Ends the loop, without an error. */
  readonly signal?: AbortSignal | undefined
}

/**
 * The descriptors of the connections that come in on a listening socket. The
 * caller owns, and closes, each. They are non-blocking and close-on-exec.
 *
 * @param listening its descriptor, or the ListeningSocket that has it, which is
 * closed from then on. The descriptor is closed when the loop ends
 * @throws RangeError for what is no descriptor; Error as Acceptor
 * @see accept(2)
 */
export async function* connectionsOn(
  listening: number | Detachable,
  { signal }: ConnectionsOptions = {},
): AsyncGenerator<number, void, void> {
  const fd = typeof listening === 'number' ? listening : listening.detach()
  const acceptor = new Acceptor(fd)
  const stop = (): void => acceptor.close()
  try {
    signal?.addEventListener('abort', stop)
    while (!signal?.aborted) {
      const accepted = await acceptor.next()
      if (accepted === undefined) return
      yield accepted
    }
  } finally {
    acceptor.close()
    signal?.removeEventListener('abort', stop)
  }
}

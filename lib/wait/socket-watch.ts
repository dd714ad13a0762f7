// Waiting where there is no epoll: macOS and FreeBSD. The event loop watches
// each descriptor by itself, through a duplicate, as it closes what it watches.
// It cannot tell when there is room to write, so poll(2) is asked, again and
// again.
// Read next: lib/stream/calls.ts.

import { allocate } from '../libc.ts'
import { poll } from '../socket/calls.ts'
import { isMessageSocket } from '../socket/options.ts'
import { closeFd, duplicate } from '../socket/unix.ts'
import { EmptyRead, emptyReadOf } from './empty-read.ts'
import { FIRST_DELAY, longerDelay } from './retry.ts'
import {
  type OnReady,
  READABLE,
  type Trigger,
  type Watch,
  WRITABLE,
} from './types.ts'

/** struct pollfd: int fd, short events, short revents. */
const pollfd = { ...allocate(8), events: 4, revents: 6 }
const POLLOUT = 4 // on every platform

/** A watch of a socket or a pipe, which becomes non-blocking. */
export class SocketWatch implements Watch {
  readonly #fd: number
  readonly #onReady: OnReady
  readonly #socket: EmptyRead
  #waiting = 0
  #isReferenced = true
  /** Whether the event loop tells, which it does until pause(). */
  #isReading = true
  /** Why this Node cannot wait, if it cannot. */
  #failure: Error | undefined
  #timer: NodeJS.Timeout | undefined

  /** @throws Error EBADF; EMFILE; ERR_INVALID_FD_TYPE, for a file, say */
  constructor(fd: number, _trigger: Trigger, onReady: OnReady) {
    this.#fd = fd
    this.#onReady = onReady
    const readable = (): void => this.#readable()
    const fail = (reason: Error): void => {
      this.#failure = reason
      this.#tell(READABLE)
    }
    this.#socket = isMessageSocket(fd)
      ? emptyReadOf(fd, readable, fail)
      : ofDuplicate(fd, readable, fail)
  }

  wait(events: number): void {
    if (this.#failure) throw this.#failure
    this.#waiting |= events
    if (events & READABLE) this.#watch()
    if (events & WRITABLE) this.#askLater(FIRST_DELAY)
  }

  get failure(): Error | undefined {
    return this.#failure
  }

  // The event loop goes on until it tells the next time. Mostly wait() is called
  // again before that, and then neither pause() nor resume() is needed.
  cancel(events: number): void {
    this.#waiting &= ~events
    if (events & READABLE) this.#socket.unref()
    if (events & WRITABLE) clearTimeout(this.#timer)
  }

  ref(): void {
    this.#isReferenced = true
    if (this.#waiting & READABLE) this.#socket.ref()
  }

  unref(): void {
    this.#isReferenced = false
    this.#socket.unref()
  }

  end(): void {
    this.cancel(READABLE | WRITABLE)
    this.#socket.close()
  }

  #watch(): void {
    if (this.#isReferenced) this.#socket.ref()
    if (this.#isReading) return
    this.#isReading = true
    this.#socket.resume()
  }

  #readable(): void {
    if (this.#waiting & READABLE) return this.#tell(READABLE)
    this.#isReading = false
    this.#socket.pause()
  }

  #askLater(delay: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      pollfd.bytes.writeInt32LE(this.#fd)
      pollfd.bytes.writeInt16LE(POLLOUT, pollfd.events)
      // 1 for room, for an error, and for a descriptor that is not open.
      if (poll(pollfd.address, 1, 0) !== 0) this.#tell(WRITABLE)
      else this.#askLater(longerDelay(delay))
    }, delay)
  }

  #tell(event: number): void {
    this.#waiting &= ~event
    try {
      this.#onReady(event)
    } finally {
      if (!(this.#waiting & READABLE)) this.#socket.unref()
    }
  }
}

function ofDuplicate(
  fd: number,
  onReadable: () => void,
  onFailure: (reason: Error) => void,
): EmptyRead {
  const copy = duplicate(fd)
  try {
    return new EmptyRead(copy, onReadable, onFailure)
  } catch (error) {
    closeFd(copy)
    throw error
  }
}

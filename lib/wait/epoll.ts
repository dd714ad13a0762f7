// epoll(7): a list of descriptors in the kernel, and a descriptor that becomes
// readable as soon as one on the list is ready. So one watcher waits for all of
// them, and for more than reading: for room to write, too.
//
//    event loop's epoll ---> watcher ---> our epoll ---> any number of sockets
//
// Node makes a net.Socket from a socket, pipe or terminal only, and checks that
// in its constructor. The event loop registers the number later, when it first
// waits, and takes whatever can be polled. In between, dup3(2) puts the epoll
// instance in the place of a socket. The watcher never reads, so it works with
// either.
//
// Linux only. Open epoll(7) and epoll_ctl(2) beside it.
// Read next: lib/wait/watchset.ts.

import { closeSync } from 'node:fs'

import { host } from '../layouts.ts'
import { allocate, check, declare } from '../libc.ts'
import { newSocketpair } from '../socket/unix.ts'
import { EmptyRead } from './empty-read.ts'

// int epoll_create1(int flags)
const epoll_create1 = declare('epoll_create1', 'int', ['int'])
// int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
const epoll_ctl = declare('epoll_ctl', 'int', ['int', 'int', 'int', 'pointer'])
// int epoll_wait(int epfd, struct epoll_event *events, int maxevents,
//                int timeout)
const epoll_wait = declare('epoll_wait', 'int', [
  'int',
  'pointer',
  'int',
  'int',
])
// int dup3(int fd, int newfd, int flags)
const dup3 = declare('dup3', 'int', ['int', 'int', 'int'])

export const EPOLLIN = 1
export const EPOLLOUT = 4
const EPOLLONESHOT = 1 << 30
const EPOLL_CTL_ADD = 1
const EPOLL_CTL_DEL = 2

const event = host.epoll_event

/** Events fetched in one call. What is left over wakes the watcher again. */
const EVENTS_PER_CALL = 64

const events = allocate(EVENTS_PER_CALL * event.size)

/** One epoll instance, and a watcher that waits for it. */
export class Epoll {
  readonly #epoll: number
  readonly #watcher: EmptyRead
  readonly #onReady: (fd: number) => void
  /** On the list, whether reported or not. */
  readonly #fds = new Set<number>()
  /** Found ready, and not reported yet. */
  readonly #found = new Set<number>()

  /**
   * @param onReady called with each descriptor that became ready
   * @throws Error EMFILE, ENFILE, ENOMEM; then nothing is left open
   */
  constructor(onReady: (fd: number) => void) {
    this.#onReady = onReady
    const { SOCK_CLOEXEC } = host.constants // EPOLL_CLOEXEC is the same bit
    const made = check('epoll_create1', epoll_create1(SOCK_CLOEXEC))
    const surplus = new Set([made])
    let watcher: EmptyRead | undefined
    try {
      const [place, other] = newSocketpair()
      surplus.add(other).add(place)
      watcher = new EmptyRead(place, () => this.#fetch())
      surplus.delete(place)
      check('dup3', dup3(made, place, SOCK_CLOEXEC))
      this.#epoll = place
      this.#watcher = watcher
    } catch (error) {
      watcher?.close()
      throw error
    } finally {
      for (const fd of surplus) closeSync(fd)
    }
  }

  /**
   * Reports `fd` once, when one of `interest` is so, or when it is hung up.
   * Does not own it.
   *
   * @throws Error EBADF; EPERM for what cannot be waited for, such as a file;
   * ENOMEM; ENOSPC at the limit of watches (epoll(7))
   */
  add(fd: number, interest: number): void {
    events.bytes.writeUInt32LE(interest | EPOLLONESHOT)
    events.bytes.writeInt32LE(fd, event.data)
    const { address } = events
    const added = epoll_ctl(this.#epoll, EPOLL_CTL_ADD, fd, address)
    check('epoll_ctl', added, `descriptor ${fd}`)
    this.#fds.add(fd)
    this.#watcher.watch()
  }

  /**
   * Takes `fd` off the list; false if it was not there. To be done before it is
   * closed: the list names the open file description, which lives on if another
   * process has it too, and would be reported under a number that by then is
   * another descriptor's.
   */
  delete(fd: number): boolean {
    if (!this.#fds.delete(fd)) return false
    this.#found.delete(fd)
    epoll_ctl(this.#epoll, EPOLL_CTL_DEL, fd, events.address)
    if (this.#fds.size === 0) this.#watcher.rest()
    return true
  }

  /** The wait does not keep the process alive. */
  unref(): void {
    this.#watcher.keepAlive(false)
  }

  /** Closes the epoll instance, and none of the descriptors on its list. */
  close(): void {
    this.#watcher.close()
    this.#fds.clear()
    this.#found.clear()
  }

  #fetch(): void {
    const { bytes, address } = events
    // -EINTR is the one failure left: the watcher reports again.
    const found = epoll_wait(this.#epoll, address, EVENTS_PER_CALL, 0)
    // All are taken out first: add(), called by onReady, writes over them.
    for (let at = 0; at < found * event.size; at += event.size) {
      this.#found.add(bytes.readInt32LE(at + event.data))
    }
    this.#report()
  }

  #report(): void {
    try {
      for (const fd of this.#found) {
        this.#found.delete(fd)
        this.#onReady(fd)
      }
    } finally {
      // Where onReady throws, the kernel does not name the others again.
      if (this.#found.size > 0) setImmediate(() => this.#report())
    }
  }
}

// epoll(7): a list of descriptors in the kernel, and a descriptor that becomes
// readable itself as soon as one on the list is ready. So one Watcher can wait
// for all of them, and for more than reading: for room to write, too.
//
//    event loop's epoll ---> Watcher ---> our epoll ---> any number of sockets
//
// Node makes a net.Socket from nothing but a socket, pipe or terminal, and looks
// when it is made. The event loop looks later, when it first waits, and takes
// whatever can be polled. In between, dup3(2) puts the epoll instance in the
// place of a socket. Nobody ever reads from it, so nobody minds.
//
// Linux only. Open epoll(7) and epoll_ctl(2) beside it.

import { closeSync } from 'node:fs'

import { host } from '../layouts.ts'
import { allocate, check, declare } from '../libc.ts'
import { newSocketpair } from '../socket/unix.ts'
import { Watcher } from './watcher.ts'

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

/** struct epoll_event: 32 bits of events, and 64 of data at `data`. */
export function epollEvent(arch: string): { size: number; data: number } {
  // Packed on x86-64 alone, so that 32-bit programs see the same there.
  return arch === 'x64' ? { size: 12, data: 4 } : { size: 16, data: 8 }
}

const event = epollEvent(process.arch)

/** Events fetched in one call. What is left over wakes the watcher again. */
const EVENTS_PER_CALL = 64

const events = allocate(EVENTS_PER_CALL * event.size)

export class Epoll {
  readonly #epoll: number
  readonly #watcher: Watcher
  readonly #onReady: (fd: number) => void
  /** On the list, whether reported or not. */
  readonly #fds = new Set<number>()
  /** Found ready, and not reported yet. */
  readonly #found = new Set<number>()

  /** @param onReady called with each descriptor that became ready */
  constructor(onReady: (fd: number) => void) {
    this.#onReady = onReady
    const { SOCK_CLOEXEC } = host.constants // EPOLL_CLOEXEC is the same bit
    const made = check('epoll_create1', epoll_create1(SOCK_CLOEXEC))
    const [place, other] = newSocketpair()
    closeSync(other)
    this.#watcher = new Watcher(place, () => this.#report())
    check('dup3', dup3(made, place, SOCK_CLOEXEC))
    closeSync(made)
    this.#epoll = place
  }

  /**
   * Reports `fd` once, when one of `interest` is so, or when it is hung up.
   * Does not own it.
   *
   * @throws Error EBADF; EPERM for what cannot be waited for, such as a file
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
   * closed: the list names the open file description, and that lives on with
   * whoever got a copy. Its news would come here, under a number which by then
   * is another descriptor's.
   */
  delete(fd: number): boolean {
    if (!this.#fds.delete(fd)) return false
    this.#found.delete(fd)
    epoll_ctl(this.#epoll, EPOLL_CTL_DEL, fd, events.address)
    if (this.#fds.size === 0) this.#watcher.rest()
    return true
  }

  close(): void {
    this.#watcher.close()
    this.#fds.clear()
    this.#found.clear()
  }

  #report(): void {
    const { bytes, address } = events
    const found = epoll_wait(this.#epoll, address, EVENTS_PER_CALL, 0)
    check('epoll_wait', found)
    // All are taken out first: a callback's add() writes over the events.
    for (let at = 0; at < found * event.size; at += event.size) {
      this.#found.add(bytes.readInt32LE(at + event.data))
    }
    for (const fd of this.#found) {
      this.#found.delete(fd)
      this.#onReady(fd)
    }
  }
}

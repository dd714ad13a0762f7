// epoll(7): a list of descriptors in the kernel, and a descriptor that becomes
// readable as soon as one on the list is ready. So the event loop watches one
// descriptor, and any number of others wait behind it:
//
//    event loop ---> our epoll instance ---> sockets, pipes, terminals, ...
//
// epoll sets no flag on what it waits for, and takes whatever can be polled. A
// thread has one such list, made when it first waits, and kept.
//
// Linux only. Open epoll(7), epoll_ctl(2) and epoll_wait(2) beside it.
// Read next: lib/wait/empty-read.ts.

import { constants } from 'node:os'
import { isMainThread } from 'node:worker_threads'

import { host } from '../layouts.ts'
import { allocate, check, declare, engineName } from '../libc.ts'
import { O_CLOEXEC } from '../socket/calls.ts'
import { closeFd, duplicate } from '../socket/unix.ts'
import { emptyReadOf } from './empty-read.ts'
import type { LoopWatch, OnReady, Trigger, Watch } from './types.ts'
import { UvPoll } from './uv-poll.ts'

// int epoll_create1(int flags)
const epoll_create1 = declare('epoll_create1', 'int', ['int'])
// int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
const epoll_ctl = declare('epoll_ctl', 'int', ['int', 'int', 'int', 'pointer'])
// int epoll_wait(int epfd, struct epoll_event *events, int maxevents,
//                int timeout)
const epoll_wait = declare('epoll_wait', 'int or -1', [
  'int',
  'pointer',
  'int',
  'int',
])

const EPOLLIN = 0x1
const EPOLLOUT = 0x4
const EPOLLERR = 0x8
const EPOLLHUP = 0x10
const EPOLLRDHUP = 0x2000
/** Tells each time that more has come, not for as long as something is there. */
const EPOLLET = 1 << 31
/** Tells once, and then not before the next EPOLL_CTL_MOD. */
const EPOLLONESHOT = 1 << 30

const EPOLL_CTL_ADD = 1
const EPOLL_CTL_DEL = 2
const EPOLL_CTL_MOD = 3

const EEXIST = -constants.errno.EEXIST

const layout = host.epoll_event

/** Events fetched in one call. The event loop asks again for what is left. */
const EVENTS_PER_CALL = 64

const memory = allocate(EVENTS_PER_CALL * layout.size)

let list: { readonly fd: number; readonly loop: LoopWatch } | undefined
/** Why the event loop cannot watch the list, if it cannot. */
let failure: Error | undefined
/** Those that wait or have waited, by the number that is on the list. */
const watches = new Map<number, EpollWatch>()
const LARGEST_ID = 0x3fffffff
let lastId = 0
/** Those that were found ready; the next to be told is at `next`. */
const ready: EpollWatch[] = []
let next = 0
/** How many of those that wait keep the process alive. */
let held = 0
let isHeld = false
let isTelling = false

/** A watch of one descriptor by way of the list. */
export class EpollWatch implements Watch {
  #fd: number
  readonly #isLevel: boolean
  readonly #onReady: OnReady
  /** On the list: this number. 0 if it is not there. */
  #id = 0
  /** Whether #fd is a duplicate, as the given one was on the list already. */
  #isDuplicate = false
  /** The events that somebody waits for. */
  #waiting = 0
  /** The events that the kernel tells of. */
  #armed = 0
  #found = 0
  #isReferenced = true
  #holds = false

  constructor(fd: number, trigger: Trigger, onReady: OnReady) {
    this.#fd = fd
    this.#isLevel = trigger === 'level'
    this.#onReady = onReady
  }

  wait(events: number): void {
    if (failure) throw failure
    const waiting = this.#waiting | events
    // With EPOLLONESHOT the kernel has forgotten what it told.
    if (this.#isLevel || (waiting & ~this.#armed) !== 0) {
      check('epoll_ctl', this.#arm(waiting), `descriptor ${this.#fd}`)
    }
    this.#waiting = waiting
    this.#updateHold()
  }

  get failure(): Error | undefined {
    return failure
  }

  // The kernel still tells, once, which is then ignored: mostly the next wait()
  // comes before that.
  cancel(events: number): void {
    this.#waiting &= ~events
    this.#updateHold()
  }

  ref(): void {
    this.#isReferenced = true
    this.#updateHold()
  }

  unref(): void {
    this.#isReferenced = false
    this.#updateHold()
  }

  end(): void {
    this.cancel(EPOLLIN | EPOLLOUT)
    if (this.#id === 0) return
    this.#control(EPOLL_CTL_DEL, 0)
    watches.delete(this.#id)
    this.#id = 0
    this.#armed = 0
    if (this.#isDuplicate) closeFd(this.#fd)
    this.#isDuplicate = false
  }

  /** Notes what epoll_wait(2) has found. An error or a hang-up is both. */
  note(events: number): void {
    const isBoth = (events & (EPOLLERR | EPOLLHUP)) !== 0
    if (isBoth || events & (EPOLLIN | EPOLLRDHUP)) this.#found |= EPOLLIN
    if (isBoth || events & EPOLLOUT) this.#found |= EPOLLOUT
    ready.push(this)
  }

  /** Calls the owner with what was noted, as far as it waits for that. */
  tell(): void {
    if (this.#id === 0) return
    let found = this.#found & this.#waiting
    const unwanted = this.#found & ~this.#waiting
    this.#found = 0
    const left = this.#waiting & ~found
    if (this.#isLevel) {
      // If the kernel does not take it, the owner's next call meets the error.
      if (left !== 0 && this.#arm(left) < 0) found |= left
    } else if (unwanted & this.#armed & EPOLLOUT) {
      // Each time that the peer reads there is room again. Nobody needs it.
      this.#arm(left)
    }
    this.#waiting &= ~found
    this.#updateHold()
    if (found !== 0) this.#onReady(found)
  }

  // Has the kernel tell of `waiting`: 0 or -errno. By edges it always tells that
  // something has come, as most waits are for that.
  #arm(waiting: number): number {
    const events = this.#isLevel ? waiting : waiting | EPOLLIN
    const how = this.#isLevel ? EPOLLONESHOT : EPOLLET | EPOLLRDHUP
    const result =
      this.#id === 0
        ? this.#add(events | how)
        : this.#control(EPOLL_CTL_MOD, events | how)
    if (result >= 0) this.#armed = events
    return result
  }

  #add(events: number): number {
    list ??= newList()
    const id = newId()
    this.#id = id
    let result = this.#control(EPOLL_CTL_ADD, events)
    // Two waits for one descriptor: the list has a number once.
    if (result === EEXIST) result = this.#addDuplicate(events)
    if (result >= 0) watches.set(id, this)
    else this.#id = 0
    return result
  }

  #addDuplicate(events: number): number {
    const given = this.#fd
    // Of a duplicate that cannot be made, 0 is the number on the list.
    const id = this.#id
    this.#id = 0
    this.#fd = duplicate(given)
    this.#id = id
    const result = this.#control(EPOLL_CTL_ADD, events)
    this.#isDuplicate = result >= 0
    if (this.#isDuplicate) return result
    closeFd(this.#fd)
    this.#fd = given
    return result
  }

  #control(operation: number, events: number): number {
    memory.bytes.writeInt32LE(events)
    memory.bytes.writeInt32LE(this.#id, layout.data)
    return epoll_ctl(list?.fd ?? -1, operation, this.#fd, memory.address)
  }

  #updateHold(): void {
    const kept = this.#isReferenced ? EPOLLIN | EPOLLOUT : EPOLLOUT
    const holds = (this.#waiting & kept) !== 0
    if (holds === this.#holds) return
    this.#holds = holds
    held += holds ? 1 : -1
    // Of those that are told most wait again at once.
    if (!isTelling) holdProcess()
  }
}

// Not the descriptor: its number may be another descriptor's by the time that
// an event is told.
function newId(): number {
  do lastId = lastId === LARGEST_ID ? 1 : lastId + 1
  while (watches.has(lastId))
  return lastId
}

function holdProcess(): void {
  const mustHold = held > 0
  if (mustHold === isHeld) return
  isHeld = mustHold
  if (mustHold) list?.loop.ref()
  else list?.loop.unref()
}

function newList() {
  const made = check('epoll_create1', epoll_create1(O_CLOEXEC))
  if (engineName === 'node:ffi' && isMainThread) {
    try {
      return { fd: made, loop: new UvPoll(made, fetch) }
    } catch (error) {
      closeFd(made)
      throw error
    }
  }
  try {
    const loop = emptyReadOf(made, fetch, fail)
    return { fd: loop.fd, loop }
  } finally {
    closeFd(made)
  }
}

// Called by the event loop.
function fetch(): void {
  const { bytes, address } = memory
  // EINTR is the one failure left: the event loop calls again.
  const found = epoll_wait(list?.fd ?? -1, address, EVENTS_PER_CALL, 0)
  // All are noted first: wait(), called by an owner, writes over them.
  for (let at = 0; at < found * layout.size; at += layout.size) {
    const id = bytes.readInt32LE(at + layout.data)
    watches.get(id)?.note(bytes.readInt32LE(at))
  }
  tellAll()
}

function tellAll(): void {
  isTelling = true
  try {
    while (next < ready.length) ready[next++]?.tell()
  } finally {
    isTelling = false
    holdProcess()
    // Where one owner throws, the others have their turn all the same.
    if (next < ready.length) setImmediate(tellAll)
    else ready.length = next = 0
  }
}

// Everyone tries again and, by what wait() throws, learns why it cannot wait.
function fail(reason: Error): void {
  failure = reason
  for (const watch of watches.values()) watch.note(EPOLLERR)
  tellAll()
}

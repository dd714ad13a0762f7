// Waiting with uv_poll, which is what libuv has for "readable" and "writable".
// Node exports the functions of libuv for addons; node:ffi calls them. Nothing
// is read, and a descriptor that is watched costs 160 bytes. Open the pages
// uv_handle_t and uv_poll_t of libuv's documentation beside it.
//
// libuv calls back at a place where no JavaScript may throw and after which no
// promise goes on. So a callback only notes what is ready, and setImmediate,
// which runs in the same turn of the event loop, calls the owners.
// Read next: lib/wait/uv-handle.ts.

import { Buffer } from 'node:buffer'
import { closeSync } from 'node:fs'
import { constants } from 'node:os'

import { systemError } from '../libc.ts'
import { sendNow } from '../message.ts'
import {
  closeHandle,
  libuv,
  newHandle,
  poll,
  READABLE,
  WRITABLE,
} from './uv-handle.ts'

const EAGAIN = -constants.errno.EAGAIN
const ENOBUFS = -constants.errno.ENOBUFS

const NOTHING = Buffer.alloc(0)

/** How long to wait, in ms, where libuv cannot watch. */
const RETRY_DELAY = 20

// Those of which something was noted and not yet told, the next one at `next`.
const ready: UvPoll[] = []
let next = 0

function tellAll(): void {
  try {
    while (next < ready.length) ready[next++]?.report()
  } finally {
    // Where one owner throws, the others have their turn all the same.
    if (next < ready.length) setImmediate(tellAll)
    else ready.length = next = 0
  }
}

/** As a Watcher. */
export class UvPoll {
  #fd: number
  readonly #handle: bigint
  readonly #onReadable: (failure?: Error) => void
  #onWritable: (() => void) | undefined
  #watching = false
  #keepsAlive = true
  /** Whether the handle keeps the process alive. */
  #isReferenced = false
  /** The events that libuv was asked for. */
  #asked = 0
  /** The events that it reported, and that the owner has not been told. */
  #noted = 0
  #failure: Error | undefined

  /** As of every Watcher. */
  constructor(fd: number, onReadable: (failure?: Error) => void) {
    this.#handle = newHandle(fd, this)
    this.#fd = fd
    this.#onReadable = onReadable
  }

  watch(): void {
    this.#watching = true
    this.#update()
  }

  // libuv goes on until it reports the next time. Mostly watch() is called
  // again before that, and then nothing has to be stopped and started.
  rest(): void {
    this.#watching = false
    this.#update()
  }

  keepAlive(keepsAlive: boolean): void {
    this.#keepsAlive = keepsAlive
    this.#update()
  }

  // One call a turn, so that others get theirs, and only as much as fits.
  write(bytes: Uint8Array, callback: (error?: Error | null) => void): void {
    this.whenWritable(0, () => {
      const length = sendNow(this.#fd, { data: bytes, control: NOTHING })
      const mustWait = length === EAGAIN || length === ENOBUFS
      if (length < 0 && !mustWait) callback(systemError('sendmsg', length))
      else if (length === bytes.length) callback()
      else this.write(bytes.subarray(Math.max(0, length)), callback)
    })
  }

  // libuv tells, so the number of tries does not matter.
  whenWritable(_tries: number, callback: () => void): () => void {
    this.#onWritable = callback
    this.#update()
    return () => {
      if (this.#onWritable !== callback) return
      this.#onWritable = undefined
      this.#update()
    }
  }

  // What libuv has reported and the owner was not told finds nothing to do.
  close(): void {
    if (this.#fd < 0) return
    this.#watching = false
    this.#onWritable = undefined
    closeHandle(this.#handle)
    closeSync(this.#fd)
    this.#fd = -1
  }

  get #wanted(): number {
    const write = this.#onWritable === undefined ? 0 : WRITABLE
    return (this.#watching ? READABLE : 0) | write
  }

  // Asks libuv for what it was not asked for yet, and keeps the process alive
  // for it or not.
  #update(): void {
    if (this.#fd < 0) return
    const wanted = this.#wanted
    if ((wanted & ~this.#asked) !== 0) this.#ask(this.#asked | wanted)
    const isWaiting = this.#watching && this.#keepsAlive
    const isReferenced = isWaiting || this.#onWritable !== undefined
    if (isReferenced === this.#isReferenced) return
    this.#isReferenced = isReferenced
    if (isReferenced) libuv().ref(this.#handle)
    else libuv().unref(this.#handle)
  }

  #ask(events: number): void {
    this.#asked = events
    const started = poll(this.#handle, events)
    if (started === 0) return
    // EEXIST: Node waits for this descriptor too, by a handle of its own.
    this.#asked = 0
    this.#failure = systemError('uv_poll_start', started)
    setTimeout(() => {
      this.#noted = READABLE | WRITABLE
      this.report()
    }, RETRY_DELAY)
  }

  /**
   * Called by libuv. With an error on the socket it has stopped by itself; the
   * owner's next system call meets that error.
   */
  note(status: number, events: number): void {
    if (status < 0) this.#asked = 0
    if (this.#noted === 0 && ready.push(this) === 1) setImmediate(tellAll)
    this.#noted |= status < 0 ? READABLE | WRITABLE : events
  }

  /** Calls the owner with what libuv reported. */
  report(): void {
    const events = this.#noted
    this.#noted = 0
    // An event without a waiting call would be reported in every turn. The
    // exception is a call that this report ends: mostly the next one waits
    // before libuv can report again.
    const unwanted = events & ~this.#wanted
    const callback = this.#onWritable
    if (events & WRITABLE && callback) {
      this.#onWritable = undefined
      callback()
    }
    if (events & READABLE && this.#watching) this.#onReadable(this.#failure)
    if (this.#fd < 0) return
    const stop = (unwanted | (events & WRITABLE)) & ~this.#wanted
    if ((this.#asked & stop) !== 0) this.#ask(this.#wanted)
    this.#update()
  }
}

// The receiving half of a connection. Calls are served in order, each with the
// limits that it came with; a call for which nothing has arrived waits.
//
// A call that says how much it wants gets one recvmsg(2) of exactly that size.
// Only calls that take whatever comes (see `readsAhead`) are served from
// batches, because what recvmsg has taken out of the socket cannot be cut where
// a later, smaller call would have cut it: bytes of several messages have run
// together by then, and nothing says to which of them a descriptor belongs.
// Read next: lib/conn/frames.ts.

import { constants } from 'node:os'
import { host } from '../layouts.ts'
import { systemError } from '../libc.ts'
import { LARGE, type Received, receiveNow } from '../message.ts'
import { MAX_BATCH, receiveBatch } from '../socket/batch.ts'
import { descriptorLimit } from '../socket/options.ts'
import { disarmQueued } from '../socket/queued.ts'
import { abortError } from '../wait/abort.ts'
import type { Watcher } from '../wait/watcher.ts'
import { closeDescriptorsOf, isEnd } from './checks.ts'
import type { Limits } from './limits.ts'

type Take<T> = (message: Received, maxFds: number) => T

type Waiting = {
  readonly maxBytes: number
  readonly maxFds: number
  readonly readsAhead: boolean
  readonly take: Take<unknown>
  /** With what `take` returned. */
  resolve(result: unknown): void
  readonly reject: (reason: unknown) => void
}

/** Most messages in one turn of the event loop, so that others get theirs. */
const MESSAGES_PER_TURN = 64

const EAGAIN = -constants.errno.EAGAIN

// Read ahead by all connections, in bytes of control buffers, 4 a descriptor.
let controlAhead = 0

/** Receives the messages of one connection. Used by UnixConn alone. */
export class Receiver {
  readonly #fd: number
  readonly #watcher: Watcher
  #waiting: Waiting[] = []
  /** Read ahead, and not asked for yet: the oldest first. */
  #ahead: Received[] = []
  /** How many messages the next call that reads ahead asks for. */
  #batchSize = 1
  #ended = false
  #receivedInTurn = 0

  constructor(fd: number, watcher: Watcher) {
    this.#fd = fd
    this.#watcher = watcher
  }

  /**
   * The next message, null at the end of file.
   *
   * @param take what becomes of the message; the call fails with what it throws
   * @param readsAhead whether more messages than this one may be taken from the
   * socket. Whichever call comes next gets them, each of them whole
   */
  receive<T>(
    { maxBytes, maxFds, signal }: Limits,
    take: Take<T>,
    readsAhead = false,
  ): Promise<T | null> {
    if (signal?.aborted) return Promise.reject(abortError(signal))
    return new Promise((resolve, reject) => {
      const call = { maxBytes, maxFds, readsAhead, take, resolve, reject }
      const waiting = signal ? this.#abortable(call, signal) : call
      // push() onto an empty array would reserve memory for 17 calls.
      if (this.#waiting.length === 0) this.#waiting = [waiting]
      else this.#waiting.push(waiting)
      this.#serve()
    })
  }

  /** receive(), reading ahead. What was read ahead is returned at once. */
  receiveAhead<T>(limits: Limits, take: Take<T>): T | null | Promise<T | null> {
    const early = limits.signal?.aborted ? undefined : this.#fromAhead()
    if (early) return take(early, limits.maxFds)
    return this.receive(limits, take, true)
  }

  /** To be called when the socket can be read, or cannot be waited for. */
  readable(failure?: Error): void {
    if (failure) this.#waiting.shift()?.reject(failure)
    this.#receivedInTurn = 0
    this.#serve()
  }

  close(): void {
    if (!this.#ended) disarmQueued(this.#fd)
    this.#ended = true
    for (const message of this.#ahead.splice(0)) {
      controlAhead -= message.control.length
      closeDescriptorsOf(message)
    }
    this.#serve()
  }

  // An abort takes the call out of the line before anything was received for
  // it, so that nothing is lost: the next call gets what arrives.
  #abortable(call: Waiting, signal: AbortSignal): Waiting {
    const abort = (): void => {
      this.#waiting.splice(this.#waiting.indexOf(waiting), 1)
      call.reject(abortError(signal))
      this.#serve()
    }
    const settled = (): void => signal.removeEventListener('abort', abort)
    const waiting: Waiting = {
      ...call,
      resolve: (result) => {
        settled()
        call.resolve(result)
      },
      reject: (reason) => {
        settled()
        call.reject(reason)
      },
    }
    signal.addEventListener('abort', abort, { once: true })
    return waiting
  }

  // Runs in callbacks of the event loop, where no caller could catch an error:
  // each error rejects the call that it arose for.
  #serve(): void {
    for (;;) {
      const call = this.#waiting[0]
      if (call === undefined) return this.#watcher.rest()
      try {
        const message = this.#next(call)
        if (message === undefined) return this.#watcher.watch()
        call.resolve(message && call.take(message, call.maxFds))
      } catch (error) {
        call.reject(error)
      }
      this.#waiting.shift()
    }
  }

  // Undefined if the watcher has to say when to try again.
  #next({ maxBytes, readsAhead }: Waiting): Received | null | undefined {
    const early = this.#fromAhead()
    if (early) return early
    if (this.#ended) return null
    if (this.#receivedInTurn >= MESSAGES_PER_TURN) return undefined

    const count = readsAhead ? Math.min(this.#batchSize, batchLimit()) : 1
    const result =
      count === 1
        ? receiveNow(this.#fd, maxBytes)
        : receiveBatch(this.#fd, maxBytes, count)
    if (result === EAGAIN) {
      // The first message after a wait is taken alone again, so that an owner
      // who leaves after it can hand the socket on with nothing lost.
      this.#batchSize = 1
      return undefined
    }
    if (typeof result === 'number') throw systemError('recvmsg', result)
    return this.#keep(Array.isArray(result) ? result : [result])
  }

  #fromAhead(): Received | undefined {
    const message = this.#ahead.shift()
    if (message) controlAhead -= message.control.length
    return message
  }

  // The first of them, or null if it is the end; the others are kept.
  #keep(messages: Received[]): Received | null {
    this.#receivedInTurn += messages.length
    // A batch would copy large data, which takes longer than a call.
    const isLarge = messages.some(({ data }) => data.length >= LARGE)
    this.#batchSize = isLarge ? 1 : Math.min(2 * messages.length, MAX_BATCH)
    const end = messages.findIndex(isEnd) // all that follow it are the same
    if (end >= 0) {
      this.#ended = true
      messages.splice(end)
    }
    const first = messages.shift() ?? null
    for (const { control } of messages) controlAhead += control.length
    this.#ahead = messages
    return first
  }
}

// Without a limit, peers that send faster than they are served could use up the
// descriptor table. So at most half of it is read ahead, even if each message
// carries as many descriptors as it can.
function batchLimit(): number {
  const free = descriptorLimit() / 2 - controlAhead / 4
  return Math.max(1, Math.floor(free / host.maxFds))
}

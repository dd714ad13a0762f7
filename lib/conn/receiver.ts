// The receiving half of a connection: calls in line, messages that arrived
// ahead of them, and the limits that each call sets.

import { constants } from 'node:os'

import { host } from '../layouts.ts'
import { systemError } from '../libc.ts'
import { type Received, receiveNow } from '../message.ts'
import { descriptorLimit } from '../socket/unix.ts'
import { Vigil } from '../wait/busy-poll.ts'
import type { Watcher } from '../wait/watcher.ts'
import { Pace } from './batch-size.ts'
import { closeAll, isEnd, mostFds, problemWith } from './received.ts'

/** What one call accepts. */
export type Limits = { readonly maxBytes: number; readonly maxFds: number }

type Waiting = Limits & {
  readonly resolve: (message: Received | null) => void
  readonly reject: (reason: Error) => void
}

/** Calls in one turn of the event loop: a flood must not hold up the others. */
const CALLS_PER_TURN = 64

const EAGAIN = -constants.errno.EAGAIN

// Descriptors that all connections together have received ahead. Were there no
// bound, peers that send faster than they are served could use up the table.
let aheadOfAll = 0

export class Receiver {
  readonly #fd: number
  readonly #watcher: Watcher
  readonly #vigil = new Vigil()
  readonly #pace = new Pace()
  readonly #waiting: Waiting[] = []
  /** Received, and not asked for yet: the next one stands last. */
  #ahead: Received[] = []
  #ended = false
  #calls = 0

  constructor(fd: number, watcher: Watcher) {
    this.#fd = fd
    this.#watcher = watcher
  }

  receive({ maxBytes, maxFds }: Limits): Promise<Received | null> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ maxBytes, maxFds, resolve, reject })
      this.#serve()
    })
  }

  /** The next message, if it is here already and nobody waits for it. */
  arrived(limits: Limits): Received | undefined {
    return this.#waiting.length > 0 ? undefined : this.#take(limits)
  }

  /** The watcher's news. */
  readable(failure?: Error): void {
    if (failure) this.#waiting.shift()?.reject(failure)
    this.#pace.news()
    this.#calls = 0
    this.#vigil.end(performance.now())
    this.#serve()
  }

  close(): void {
    this.#ended = true
    for (const message of this.#ahead.splice(0)) {
      aheadOfAll -= mostFds(message)
      closeAll(message)
    }
    this.#serve()
  }

  #serve(): void {
    for (;;) {
      const caller = this.#waiting[0]
      if (caller === undefined) return this.#watcher.rest()
      if (this.#ahead.length === 0 && !this.#ended) {
        if (!this.#fetch(caller)) return this.#wait()
        continue
      }
      this.#waiting.shift()
      try {
        caller.resolve(this.#take(caller) ?? null)
      } catch (error) {
        caller.reject(error as Error)
      }
    }
  }

  #wait(): void {
    this.#watcher.watch()
    this.#vigil.begin(performance.now())
  }

  // One system call. False if the watcher has to be waited for.
  #fetch(caller: Waiting): boolean {
    if (this.#calls === CALLS_PER_TURN) return false
    const count = Math.min(this.#pace.next(), allowance())
    if (count === 0) return false
    this.#calls++
    const result = receiveNow(this.#fd, caller.maxBytes, count)
    if (result === EAGAIN) {
      this.#pace.came(count, 0)
      return false
    }
    if (typeof result === 'number') {
      this.#waiting.shift()?.reject(systemError('recvmsg', result))
      return true
    }
    const end = result.findIndex(isEnd) // all that follow it are the same
    this.#ended = end >= 0
    if (this.#ended) result.splice(end)
    for (const message of result) aheadOfAll += mostFds(message)
    this.#ahead = result.reverse()
    this.#pace.came(count, result.length)
    return true
  }

  #take({ maxBytes, maxFds }: Limits): Received | undefined {
    const message = this.#ahead.pop()
    if (message === undefined) return undefined
    aheadOfAll -= mostFds(message)
    const problem = problemWith(message, maxFds)
    if (problem) {
      closeAll(message)
      throw problem
    }
    if (message.data.length <= maxBytes) return message
    // Received for a call that asked for more: the rest stays for the next.
    const { data, control, flags } = message
    const rest = data.subarray(maxBytes)
    this.#ahead.push({ data: rest, control: Buffer.alloc(0), flags })
    return { data: data.subarray(0, maxBytes), control, flags }
  }
}

// At most half of the process's descriptors, should every message be full.
function allowance(): number {
  const free = descriptorLimit() / 2 - aheadOfAll
  return Math.max(1, Math.floor(free / host.maxFds))
}

// The receiving half of a connection: calls in line, messages that arrived
// ahead of them, and the limits that each call sets.

import { closeSync } from 'node:fs'
import { constants } from 'node:os'

import { host } from './abi.ts'
import { countDescriptors, descriptorsIn, splitDescriptors } from './cmsg.ts'
import { systemError } from './libc.ts'
import { MAX_BATCH, type Received, receiveNow } from './message.ts'
import { descriptorLimit } from './socket.ts'
import { Vigil } from './vigil.ts'
import type { Watcher } from './watcher.ts'

/** What one call accepts. */
export type Limits = { readonly maxBytes: number; readonly maxFds: number }

type Waiting = Limits & {
  readonly resolve: (message: Received | null) => void
  readonly reject: (reason: Error) => void
}

/** Calls in one turn of the event loop: a flood must not hold up the others. */
const CALLS_PER_TURN = 64

/**
 * Whether the next message is there already when it is asked for depends on the
 * peer: a call in vain costs half a wake-up, a wake-up in vain costs all of it.
 * So what was right last time is done again this many times.
 */
const TRUST = 16

const EAGAIN = -constants.errno.EAGAIN

// Descriptors that all connections together have received ahead. Were there no
// bound, peers that send faster than they are served could use up the table.
let aheadOfAll = 0

export class Receiver {
  readonly #fd: number
  readonly #watcher: Watcher
  readonly #vigil = new Vigil()
  readonly #waiting: Waiting[] = []
  /** Received, and not asked for yet: the next one stands last. */
  #ahead: Received[] = []
  #ended = false
  /** The socket was found empty, and the watcher has not said otherwise. */
  #drained = false
  /** How often to trust that, before trying all the same. */
  #patience = 0
  #calls = 0
  /**
   * How many messages to ask for. The first is taken alone, so that a caller
   * who wants just one can hand the socket on with nothing lost.
   */
  #appetite = 1

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
    this.#drained = false
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
    if (this.#drained && this.#patience-- > 0) return false
    this.#calls++
    const count = Math.min(this.#appetite, allowance())
    const result = receiveNow(this.#fd, caller.maxBytes, count)
    if (result === EAGAIN) {
      this.#drained = true
      this.#patience = TRUST
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
    if (this.#ended) return true
    // With more than one asked for, fewer means that the socket is empty; so
    // one is asked for only once.
    this.#drained = result.length < count
    this.#appetite = this.#drained
      ? Math.max(2, result.length)
      : Math.min(count * 2, MAX_BATCH)
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

// An upper bound, without a look inside.
function mostFds({ control }: Received): number {
  return control.length >> 2
}

// Zero bytes are the end of file, unless descriptors came with them (recent
// FreeBSD). Credentials may stand beside an end of file (SO_PASSCRED).
function isEnd({ data, control }: Received): boolean {
  return data.length === 0 && countDescriptors(control) === 0
}

/** Why a message must not be delivered, if so: then nothing of it is. */
export function problemWith(
  message: Received,
  maxFds: number,
): Error | undefined {
  const { data, control, flags } = message
  if (flags & host.constants.MSG_CTRUNC) {
    const got = countDescriptors(control)
    return Object.assign(
      new Error(
        'Expected whole ancillary data, got it truncated (MSG_CTRUNC): ' +
          `closed the ${got} descriptors that came; is the limit of open ` +
          `descriptors (${descriptorLimit()}, RLIMIT_NOFILE) reached?`,
      ),
      { code: 'ERR_FDS_TRUNCATED', data },
    )
  }
  if (mostFds(message) <= maxFds) return undefined
  const got = countDescriptors(control)
  if (got <= maxFds) return undefined
  return Object.assign(
    new Error(`Expected at most ${maxFds} descriptors, got ${got}: closed all`),
    { code: 'ERR_TOO_MANY_FDS', data },
  )
}

/**
 * The descriptors of all rights in `control`, from then on the caller's; any
 * other is closed. Where a part makes no sense, nothing is kept of the whole.
 */
export function takeRights(control: Buffer): number[] {
  try {
    const { rights, others } = splitDescriptors(control)
    for (const fd of others) closeSync(fd)
    return rights
  } catch (error) {
    for (const fd of descriptorsIn(control)) closeSync(fd)
    throw error
  }
}

function closeAll({ control }: Received): void {
  for (const fd of descriptorsIn(control)) closeSync(fd)
}

// The receiving half of a connection: calls in line, messages that arrived
// ahead of them, and the limits that each call sets.

import { closeSync } from 'node:fs'
import { constants } from 'node:os'

import { host } from './abi.ts'
import { countDescriptors, descriptorsIn } from './cmsg.ts'
import { systemError } from './libc.ts'
import { MAX_BATCH, type Received, receiveNow } from './message.ts'
import { descriptorLimit } from './socket.ts'
import type { Watcher } from './watcher.ts'

type Waiting = {
  readonly maxBytes: number
  readonly maxFds: number
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
  readonly #waiting: Waiting[] = []
  readonly #ahead: Received[] = []
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

  receive(maxBytes: number, maxFds: number): Promise<Received | null> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ maxBytes, maxFds, resolve, reject })
      this.#serve()
    })
  }

  /** The watcher's news. */
  readable(failure?: Error): void {
    if (failure) this.#waiting.shift()?.reject(failure)
    this.#drained = false
    this.#calls = 0
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
        if (!this.#fetch(caller)) return this.#watcher.watch()
        continue
      }
      this.#waiting.shift()
      this.#deliver(caller)
    }
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
    for (const message of result) {
      this.#ended = isEnd(message)
      if (this.#ended) return true
      this.#ahead.push(message)
      aheadOfAll += mostFds(message)
    }
    // With more than one asked for, fewer means that the socket is empty; so
    // one is asked for only once.
    this.#drained = result.length < count
    this.#appetite = this.#drained
      ? Math.max(2, result.length)
      : Math.min(count * 2, MAX_BATCH)
    return true
  }

  #deliver({ maxBytes, maxFds, resolve, reject }: Waiting): void {
    const message = this.#ahead.shift()
    if (message === undefined) return resolve(null)
    aheadOfAll -= mostFds(message)
    const problem = problemWith(message, maxFds)
    if (problem) {
      closeAll(message)
      return reject(problem)
    }
    if (message.data.length <= maxBytes) return resolve(message)
    // Received for a call that asked for more: the rest stays for the next.
    const { data, control, flags } = message
    const rest = data.subarray(maxBytes)
    this.#ahead.unshift({ data: rest, control: Buffer.alloc(0), flags })
    resolve({ data: data.subarray(0, maxBytes), control, flags })
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

function closeAll({ control }: Received): void {
  for (const fd of descriptorsIn(control)) closeSync(fd)
}

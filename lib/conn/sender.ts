// The sending half of a connection: messages in line, tried together, and the
// two ways to wait when the socket is full.

import { constants } from 'node:os'
import { buildRights } from '../cmsg.ts'
import { type Abi, host } from '../layouts.ts'
import { systemError } from '../libc.ts'
import {
  CONTROL_ROOM,
  maxFdsPerMessage,
  type Outgoing,
  sendNow,
} from '../message.ts'
import { isRights, parseControlMessages, parseUnixRights } from '../parse.ts'
import { whenRoom } from '../wait/room.ts'
import type { Watcher } from '../wait/watcher.ts'

type Waiting = Outgoing & {
  readonly resolve: () => void
  readonly reject: (reason: Error) => void
}

const { EAGAIN, ENOBUFS, EMSGSIZE } = constants.errno

const NOTHING = Buffer.alloc(0)

/** As many descriptors as a message can carry on every platform. */
const SURE_TO_FIT = 252

/** Calls in one turn of the event loop: a flood must not hold up the others. */
const CALLS_PER_TURN = 64

export class Sender {
  readonly #fd: number
  readonly #watcher: Watcher
  readonly #queue: Waiting[] = []
  /** Somebody will call #flush: a microtask, or who waits for room. */
  #busy = false
  #calls = 0
  /** How often in a row there was no room. */
  #tries = 0
  #stopWaiting: () => void = () => {}

  constructor(fd: number, watcher: Watcher) {
    this.#fd = fd
    this.#watcher = watcher
  }

  send({ data, control }: Outgoing): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ data, control, resolve, reject })
      // All that is sent within one turn goes out together.
      if (!this.#busy) queueMicrotask(() => this.#flush())
      this.#busy = true
    })
  }

  close(reason: () => Error): void {
    this.#stopWaiting()
    for (const { reject } of this.#queue.splice(0)) reject(reason())
  }

  #flush(): void {
    this.#busy = true
    while (this.#queue.length > 0) {
      if (this.#calls++ === CALLS_PER_TURN) return this.#yield()
      const sent = sendNow(this.#fd, this.#queue)
      if (typeof sent === 'number') {
        if (!this.#fail(-sent)) return
      } else {
        this.#tries = 0
        for (const length of sent) if (!this.#advance(length)) return
      }
    }
    this.#busy = false
  }

  // `length` bytes of the first message are gone, and with the first of them
  // the descriptors: what is left is bytes alone, for the watcher to write.
  #advance(length: number): boolean {
    const first = this.#queue[0]
    if (first && length < first.data.length) {
      const rest = first.data.subarray(length)
      this.#watcher.write(rest, (error) => this.#settle(error))
      return false
    }
    this.#queue.shift()?.resolve()
    return true
  }

  #settle(error: Error | null | undefined): void {
    const first = this.#queue.shift()
    if (error) first?.reject(error)
    else first?.resolve()
    this.#flush()
  }

  // Nothing of the first message is gone. False if it has to wait.
  #fail(errno: number): boolean {
    const hasControl = Boolean(this.#queue[0]?.control.length)
    if (!mustWait(errno, hasControl)) {
      this.#queue.shift()?.reject(systemError('sendmsg', -errno))
      return true
    }
    if (!hasControl) return this.#advance(0)
    // The message goes again as it is, descriptors included.
    this.#stopWaiting = whenRoom(this.#fd, this.#tries++, () => this.#flush())
    return false
  }

  #yield(): void {
    setImmediate(() => {
      this.#calls = 0
      this.#flush()
    })
  }
}

/**
 * Whether a sendmsg that failed with `errno` is to be tried again later.
 *
 * @param abi xnu says EMSGSIZE while the reader's unread bytes leave no room
 * for the control buffer (bsd/kern/uipc_socket.c, sosend)
 */
export function mustWait(
  errno: number,
  hasControl: boolean,
  abi: Abi = host,
): boolean {
  if (errno === EAGAIN || errno === ENOBUFS) return true
  return errno === EMSGSIZE && hasControl && abi.emsgsizeMeansFull
}

/**
 * What sendmsg is given, checked and, but for the data, copied.
 *
 * @throws TypeError, RangeError for what the kernel would take and silently
 * send without its descriptors, or refuse with a bare EINVAL
 */
export function prepare(
  data: string | Uint8Array,
  control: Uint8Array = NOTHING,
): Outgoing {
  const bytes = bytesOf(data)
  if (!(control instanceof Uint8Array)) {
    throw new TypeError(`Expected control as Uint8Array, got ${control}`)
  }
  if (control.length === 0) return { data: bytes, control: NOTHING }

  const messages = parseControlMessages(control)
  if (messages.length === 0 || control.length > CONTROL_ROOM) {
    throw new RangeError(
      `Expected control messages of at most ${CONTROL_ROOM} bytes, ` +
        `got ${control.length} bytes`,
    )
  }
  const rights = messages.filter((message) => isRights(message))
  const fds = rights.flatMap((message) => parseUnixRights(message))
  checkRights(bytes, fds.length)
  // Rights to nothing are no control message: darwin's sendmsg wants none.
  const isEmpty = fds.length === 0 && rights.length === messages.length
  return { data: bytes, control: isEmpty ? NOTHING : Buffer.from(control) }
}

/** The same for descriptors alone, of which there is at least one. */
export function prepareRights(
  data: string | Uint8Array,
  fds: readonly number[],
): Outgoing {
  const bytes = bytesOf(data)
  checkRights(bytes, fds.length)
  return { data: bytes, control: buildRights(fds) }
}

function bytesOf(data: string | Uint8Array): Uint8Array {
  if (typeof data === 'string') return Buffer.from(data)
  if (data instanceof Uint8Array) return data
  throw new TypeError(`Expected data as string or Uint8Array, got ${data}`)
}

function checkRights(data: Uint8Array, count: number): void {
  if (count > SURE_TO_FIT && count > maxFdsPerMessage()) {
    throw new RangeError(
      `Expected at most ${maxFdsPerMessage()} descriptors in a message, ` +
        `got ${count}`,
    )
  }
  if (count > 0 && data.length === 0) {
    throw new RangeError(
      'Expected at least one byte of data beside the descriptors, got none: ' +
        'a stream carries descriptors with a byte, and drops them without one',
    )
  }
}

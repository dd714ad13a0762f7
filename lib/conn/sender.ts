// The sending half of a connection: messages in line, tried together, and the
// two ways to wait when the socket is full.
// Read next: lib/conn/receiver.ts.

import { constants } from 'node:os'
import { host } from '../layouts.ts'
import { systemError } from '../libc.ts'
import { type Outgoing, sendNow } from '../message.ts'
import { MAX_BATCH, sendBatch } from '../socket/batch.ts'
import { shutdownWriting } from '../socket/unix.ts'
import type { Watcher } from '../wait/watcher.ts'

type Waiting = Outgoing & {
  /** Of the data at the time of the call, in bytes. */
  readonly dataLength: number
  readonly resolve: () => void
  readonly reject: (reason: Error) => void
}

const { EAGAIN, ENOBUFS, EMSGSIZE } = constants.errno

/** System calls in one turn of the event loop, so that others get theirs. */
const CALLS_PER_TURN = 64

/** Sends the messages of one connection, in order. Used by UnixConn alone. */
export class Sender {
  readonly #fd: number
  readonly #watcher: Watcher
  readonly #queue: Waiting[] = []
  /** A call of #flush is under way, or will come. */
  #busy = false
  #calls = 0
  /** How often in a row there was no room. */
  #tries = 0
  #stopWaiting: (() => void) | undefined
  /** Makes the reason why nothing can be sent any more. */
  #failure: (() => Error) | undefined

  constructor(fd: number, watcher: Watcher) {
    this.#fd = fd
    this.#watcher = watcher
  }

  /** Resolves when the kernel has every byte; rejects as UnixConn.sendmsg. */
  send({ data, control }: Outgoing): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure())
    const dataLength = data.length
    return new Promise((resolve, reject) => {
      this.#queue.push({ data, control, dataLength, resolve, reject })
      // All that is sent within one turn goes out together.
      if (!this.#busy) queueMicrotask(() => this.#flush())
      this.#busy = true
    })
  }

  /**
   * Rejects what was not sent yet, and all that would be sent later.
   *
   * @param reason makes the error, for each send that waits. Mostly none does,
   * and then the time to record the error's stack is saved
   */
  close(reason: () => Error = closedError): void {
    this.#stopWaiting?.()
    this.#failure = reason
    for (const { reject } of this.#queue.splice(0)) reject(reason())
  }

  // Called by the event loop, where no caller could catch an error: each error
  // rejects the send that it arose for.
  #flush(): void {
    this.#busy = true
    for (let first = this.#queue[0]; first; first = this.#queue[0]) {
      if (this.#calls++ === CALLS_PER_TURN) return this.#yield()
      if (hasChanged(first)) {
        this.#queue.shift()?.reject(dataChanged(first))
        continue
      }
      const sent = this.#sendFrom(first)
      if (typeof sent === 'number') {
        if (!this.#fail(-sent)) return
      } else {
        this.#tries = 0
        for (const length of sent) if (!this.#advance(length)) return
      }
    }
    this.#busy = false
  }

  // Sends the first message and, if the platform has batches, those behind it
  // up to one whose data has changed. Returns what sendBatch returns.
  #sendFrom(first: Waiting): number[] | number {
    if (this.#queue.length === 1 || MAX_BATCH === 1) {
      const sent = sendNow(this.#fd, first)
      return sent < 0 ? sent : [sent]
    }
    const batch = this.#queue.slice(0, MAX_BATCH)
    const changed = batch.findIndex(hasChanged)
    return sendBatch(this.#fd, changed < 0 ? batch : batch.slice(0, changed))
  }

  // The kernel has taken `length` bytes of the first message, and with the
  // first of them the descriptors. The watcher writes the other bytes. They are
  // copied: when libuv reads them, the caller's memory may have changed.
  #advance(length: number): boolean {
    const first = this.#queue[0]
    if (first && length < first.dataLength) {
      const rest = Buffer.from(first.data.subarray(length))
      this.#watcher.write(rest, (error) => this.#written(error))
      return false
    }
    this.#queue.shift()?.resolve()
    return true
  }

  // After a failure the peer has a part of a message, and would take the next
  // one for the rest of it. So nothing more is sent, and the peer gets the end
  // of file. What it has sent can still be received.
  #written(error: Error | null | undefined): void {
    if (this.#failure) return // closed, and the descriptor with it
    if (error) {
      this.close(() => error)
      try {
        shutdownWriting(this.#fd)
      } catch {} // ENOTCONN, on macOS, if the peer is gone.
      return
    }
    this.#queue.shift()?.resolve()
    this.#flush()
  }

  // The kernel has taken nothing of the first message. False if it must wait.
  #fail(errno: number): boolean {
    const hasControl = Boolean(this.#queue[0]?.control.length)
    if (!mustWait(errno, hasControl)) {
      this.#queue.shift()?.reject(systemError('sendmsg', -errno))
      return true
    }
    if (!hasControl) return this.#advance(0)
    // The message goes again as it is, descriptors included.
    const flush = (): void => this.#flush()
    this.#stopWaiting = this.#watcher.whenWritable(this.#tries++, flush)
    return false
  }

  #yield(): void {
    setImmediate(() => {
      this.#calls = 0
      this.#flush()
    })
  }
}

/** Whether a sendmsg that failed with `errno` is to be tried again later. */
export function mustWait(errno: number, hasControl: boolean): boolean {
  if (errno === EAGAIN || errno === ENOBUFS) return true
  // xnu says EMSGSIZE while the reader's unread bytes leave no room for the
  // control buffer (bsd/kern/uipc_socket.c, sosend).
  return errno === EMSGSIZE && hasControl && host.emsgsizeMeansFull
}

// Memory that was transferred to another thread, or resized, has nothing of
// what was to be sent, or less: a Uint8Array on it shrinks with it.
function hasChanged({ data, dataLength }: Waiting): boolean {
  return data.length !== dataLength
}

function dataChanged({ data, dataLength }: Waiting): Error {
  return new TypeError(
    `Expected data of ${dataLength} bytes, as at the call, ` +
      `got ${data.length}: detached or resized before it was sent`,
  )
}

function closedError(): Error {
  return Object.assign(new Error('The connection is closed'), {
    code: 'ERR_SOCKET_CLOSED',
    syscall: 'sendmsg',
  })
}

// The sending half of a connection: messages in line, tried together, and sent
// on when the full socket has room again.
// Read next: lib/conn/receiver.ts.

import { constants } from 'node:os'

import { host } from '../layouts.ts'
import { systemError } from '../libc.ts'
import { type Outgoing, sendNow } from '../message.ts'
import { canBatch, MAX_BATCH, sendBatch } from '../socket/batch.ts'
import { shutdownWriting } from '../socket/unix.ts'
import { codedError, whyChanged } from '../wait/errors.ts'
import { Line } from '../wait/line.ts'
import { PER_TURN, type Watch, WRITABLE } from '../wait/watch.ts'
import { whyNotSent } from './checks.ts'

/** A message in line, less what the kernel has taken of it. */
type Unsent = {
  data: Uint8Array
  control: Uint8Array
  /** Of the data, as it should be still, in bytes. */
  dataLength: number
  /** The kernel has taken a part of the message. */
  isCut: boolean
  /** No message, but the end of all of them. */
  isEnd: boolean
}

const { EAGAIN, ENOBUFS, EMSGSIZE } = constants.errno

const NOTHING = new Uint8Array()

/** Sends the messages of one connection, in order. Used by UnixConn alone. */
export class Sender {
  readonly #fd: number
  readonly #watch: Watch
  readonly #isStream: boolean
  readonly #line = new Line<Unsent>()
  /** A call of #flush is under way, or will come. */
  #isBusy = false
  #calls = 0
  /** Makes the reason why nothing can be sent any more. */
  #failure: (() => Error) | undefined

  /** @param isStream a message may be cut, and goes on behind what was sent */
  constructor(fd: number, watch: Watch, isStream: boolean) {
    this.#fd = fd
    this.#watch = watch
    this.#isStream = isStream
  }

  /** Resolves when the kernel has every byte; rejects as UnixConn.sendmsg. */
  send({ data, control }: Outgoing): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure())
    return this.#join(data, control, false)
  }

  /**
   * shutdown(2), once all is sent: the peer reads to the end of file. What is
   * sent later is rejected.
   */
  end(): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure())
    const ended = this.#join(NOTHING, NOTHING, true)
    this.#failure = endedError
    return ended
  }

  #join(data: Uint8Array, control: Uint8Array, isEnd: boolean): Promise<void> {
    const dataLength = data.byteLength
    const unsent = { data, control, dataLength, isCut: false, isEnd }
    const sent = this.#line.join<void>(unsent)
    // All that is sent within one turn goes out together.
    if (!this.#isBusy) queueMicrotask(() => this.#flush())
    this.#isBusy = true
    return sent
  }

  /** To be called when there may be room in the socket. */
  writable(): void {
    this.#calls = 0
    this.#flush()
  }

  /**
   * Rejects what was not sent yet, and all that would be sent later.
   *
   * @param reason makes the error, for each send that waits. Mostly none does,
   * and then the time to record the error's stack is saved
   */
  close(reason: () => Error = closedError): void {
    this.#failure = reason
    while (!this.#line.isEmpty) this.#line.rejectFirst(reason())
  }

  // Called by the event loop, where no caller could catch an error: each error
  // rejects the send that it arose for.
  #flush(): void {
    for (let first = this.#line.first; first; first = this.#line.first) {
      if (this.#calls++ === PER_TURN) return this.#flushNextTurn()
      if (first.isEnd) {
        this.#shutDown()
        this.#line.resolveFirst()
        continue
      }
      const changed = whyChanged(first.data, first.dataLength)
      if (changed) {
        this.#reject(first, changed)
        continue
      }
      const sent = this.#sendFrom(first)
      if (typeof sent !== 'number') {
        for (const length of sent) this.#advance(length)
      } else if (mustWait(-sent, first.control.length > 0)) {
        if (this.#wait(first)) return
      } else {
        const why = whyNotSent(-sent, this.#fd, first)
        this.#reject(first, systemError('sendmsg', sent, why))
      }
    }
    this.#isBusy = false
  }

  // Sends the first message and, if the platform has batches, those behind it
  // up to the end, or one whose data has changed. Returns what sendBatch does.
  #sendFrom(first: Unsent): number[] | number {
    const batch = canBatch() ? this.#line.firstOf(MAX_BATCH) : [first]
    if (batch.length === 1) {
      const sent = sendNow(this.#fd, first)
      return sent < 0 ? sent : [sent]
    }
    const last = batch.findIndex(({ data, dataLength, isEnd }) => {
      return isEnd || whyChanged(data, dataLength) !== undefined
    })
    return sendBatch(this.#fd, last < 0 ? batch : batch.slice(0, last))
  }

  // The kernel has taken `length` bytes of the first message, and with the
  // first of them the descriptors.
  #advance(length: number): void {
    const first = this.#line.first
    if (first === undefined) return
    if (length === first.dataLength || !this.#isStream) {
      return this.#line.resolveFirst()
    }
    first.data = first.data.subarray(length)
    first.dataLength -= length
    first.control = NOTHING
    first.isCut = true
  }

  // Whether it waits. If it cannot, the message has failed.
  #wait(first: Unsent): boolean {
    try {
      this.#watch.wait(WRITABLE)
      return true
    } catch (error) {
      this.#reject(first, error as Error)
      return false
    }
  }

  // Of a message that was cut the peer has a part, and would take the next one
  // for the rest of it. So nothing more is sent, and the peer gets the end of
  // file. What it has sent can still be received.
  #reject(first: Unsent, reason: Error): void {
    if (!first.isCut) return this.#line.rejectFirst(reason)
    this.close(() => reason)
    this.#shutDown()
  }

  #shutDown(): void {
    try {
      shutdownWriting(this.#fd)
    } catch {} // ENOTCONN, on macOS, if the peer is gone.
  }

  #flushNextTurn(): void {
    setImmediate(() => this.writable())
  }
}

/** Whether a sendmsg that failed with `errno` is to be tried again later. */
export function mustWait(errno: number, hasControl: boolean): boolean {
  if (errno === EAGAIN || errno === ENOBUFS) return true
  // xnu says EMSGSIZE while the reader's unread bytes leave no room for the
  // control buffer (bsd/kern/uipc_socket.c, sosend).
  return errno === EMSGSIZE && hasControl && host.emsgsizeMeansFull
}

function endedError(): Error {
  return codedError(
    'ERR_STREAM_WRITE_AFTER_END',
    'The sending side has ended: end() was called',
    { syscall: 'sendmsg' },
  )
}

function closedError(): Error {
  return codedError('ERR_SOCKET_CLOSED', 'The connection is closed', {
    syscall: 'sendmsg',
  })
}

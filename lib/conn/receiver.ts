// The receiving half of a connection. Calls are served in order, each with one
// recvmsg(2) of the size that it asks for; a call for which nothing has arrived
// waits. Nothing is read ahead of the calls here, because what recvmsg has taken
// out of the socket cannot be cut where a later, smaller call would have cut it:
// bytes of several messages have run together by then, and nothing says to which
// of them a descriptor belongs. Who takes whatever comes: ahead.ts.
// Read next: lib/conn/ahead.ts.

import { constants } from 'node:os'

import { FD_SIZE } from '../cmsg.ts'
import { systemError } from '../libc.ts'
import { type Received, receiveNow } from '../message.ts'
import { Line } from '../wait/line.ts'
import { PER_TURN, READABLE, type Watch } from '../wait/watch.ts'
import { closeDescriptorsOf, isEnd } from './checks.ts'
import type { Limits } from './limits.ts'

/** What becomes of a message; the call fails with what this throws. */
type Take<T> = (message: Received, maxFds: number) => T

type Call = {
  readonly maxBytes: number
  readonly maxFds: number
  readonly take: Take<unknown>
}

const EAGAIN = -constants.errno.EAGAIN

/** Bytes of the control buffers of all messages that were given back. */
let controlGivenBack = 0

/**
 * The descriptors of messages that were given back to receivers, of all
 * connections, and not delivered yet. It may be too many, not too few.
 */
export function descriptorsGivenBack(): number {
  return controlGivenBack / FD_SIZE
}

/** Receives the messages of one connection. Used by UnixConn alone. */
export class Receiver {
  readonly #fd: number
  readonly #watch: Watch
  readonly #isStream: boolean
  readonly #line = new Line<Call>()
  /** Given back, the oldest first. */
  #givenBack: Received[] | undefined
  #hasEnded = false
  /** What the call that meets the end is told instead, as -errno. */
  #failure = 0
  #receivedInTurn = 0
  /** The next turn of the event loop, in which it goes on. */
  #nextTurn: NodeJS.Immediate | undefined

  /** @param isStream a message without bytes is the end of file */
  constructor(fd: number, watch: Watch, isStream: boolean) {
    this.#fd = fd
    this.#watch = watch
    this.#isStream = isStream
  }

  /**
   * The next message, null at the end of file.
   *
   * @param isDrained a call has just said EAGAIN, so it need not be tried again
   */
  receive<T>(
    limits: Limits,
    take: Take<T>,
    isDrained = false,
  ): Promise<T | null> {
    const { maxBytes, maxFds, signal } = limits
    const call = { maxBytes, maxFds, take }
    // An aborted call was taken out of the line: another may be first now.
    const onAbort = (): void => this.#serve()
    const received = this.#line.join<T | null>(call, signal, onAbort)
    this.#serve(isDrained)
    return received
  }

  /**
   * The next message, if one was given back. Without a promise, as there is
   * nothing to wait for.
   *
   * @throws what `take` throws
   */
  receiveGivenBack<T>(maxFds: number, take: Take<T>): T | undefined {
    if (!this.#line.isEmpty || this.#receivedInTurn >= PER_TURN) {
      return undefined
    }
    const message = this.#fromGivenBack()
    return message && take(message, maxFds)
  }

  /**
   * Whether several messages may be taken out of the socket: nobody waits for
   * them, nothing was given back, and they are a stream's. Of packets an empty
   * one can be told from the end only while nothing behind it was taken.
   */
  get isIdle(): boolean {
    const isWaiting = !this.#line.isEmpty || this.#givenBack !== undefined
    return this.#isStream && !isWaiting && !this.#hasEnded
  }

  /** An error of the socket, for whoever meets the end. */
  failAtEnd(errno: number): void {
    this.#failure = errno
  }

  /**
   * Gives messages back that were taken out of the socket while it was idle.
   * They are received before all else, each of them whole.
   */
  unshift(messages: Received[]): void {
    if (messages.length === 0) return
    for (const { control } of messages) controlGivenBack += control.length
    this.#givenBack = messages
  }

  /** To be called when the socket can be read. */
  readable(): void {
    this.#receivedInTurn = 0
    this.#serve()
  }

  close(): void {
    this.#hasEnded = true
    clearImmediate(this.#nextTurn)
    this.#nextTurn = undefined
    this.#receivedInTurn = 0
    let message = this.#shift()
    for (; message; message = this.#shift()) closeDescriptorsOf(message)
    this.#serve()
  }

  // Runs in callbacks of the event loop, where no caller could catch an error:
  // each error rejects the call that it arose for.
  #serve(isDrained = false): void {
    if (this.#nextTurn) return
    let call = this.#line.first
    if (call === undefined) return this.#watch.cancel(READABLE)
    for (; call; call = this.#line.first) {
      if (this.#receivedInTurn >= PER_TURN) return this.#serveNextTurn()
      try {
        const message = isDrained ? undefined : this.#next(call.maxBytes)
        if (message === undefined) return this.#watch.wait(READABLE)
        this.#line.resolveFirst(message && call.take(message, call.maxFds))
      } catch (error) {
        this.#line.rejectFirst(error)
      }
    }
  }

  // Undefined if nothing has arrived, null at the end.
  #next(maxBytes: number): Received | null | undefined {
    const early = this.#fromGivenBack()
    if (early) return early
    if (this.#hasEnded) return null
    const message = receiveNow(this.#fd, maxBytes)
    if (message === EAGAIN) return undefined
    if (typeof message === 'number') throw systemError('recvmsg', message)
    return this.#endAt(message)
  }

  // Undefined if there is none, and at the end, behind which comes nothing.
  #fromGivenBack(): Received | undefined {
    const message = this.#shift()
    return (message && this.#endAt(message)) ?? undefined
  }

  #shift(): Received | undefined {
    const message = this.#givenBack?.shift()
    if (this.#givenBack?.length === 0) this.#givenBack = undefined
    if (message) controlGivenBack -= message.control.length
    return message
  }

  #endAt(message: Received): Received | null {
    this.#receivedInTurn++
    if (!isEnd(message, this.#isStream, this.#fd)) return message
    this.#hasEnded = true
    // Whatever follows says that it is the end, too.
    while (this.#shift());
    if (this.#failure !== 0) throw systemError('recvmsg', this.#failure)
    return null
  }

  // There is more in the socket, so the watch would not tell.
  #serveNextTurn(): void {
    this.#nextTurn = setImmediate(() => {
      this.#nextTurn = undefined
      this.readable()
    })
  }
}

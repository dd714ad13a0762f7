// Unix sockets of datagrams, whose messages may carry file descriptors: each
// message comes whole, with the address of who sent it, and no connection is
// needed. systemd's notifications and the journal work in this way. Open
// unix(7), sendto(2) and recvmsg(2) beside it.
// Read next: lib/conn/connect.ts.

import { constants } from 'node:os'

import { buildRights, type Credentials, unixCredentials } from '../cmsg.ts'
import { host } from '../layouts.ts'
import { check, systemError } from '../libc.ts'
import { MAX_BYTES, type Outgoing } from '../message.ts'
import { receiveFrom, sendTo } from '../socket/datagram.ts'
import { unixType } from '../socket/options.ts'
import { parseUnixAddress, unixAddress } from '../socket/sockaddr.ts'
import {
  applyOptions,
  closeFd,
  connectTo,
  newSocket,
  newSocketpair,
  pathOf,
  type SocketOptions,
  setCloseOnExec,
  tiePairToThread,
  tieToThread,
  typeNumber,
} from '../socket/unix.ts'
import { warn } from '../wait/accept.ts'
import { codedError, whyChanged } from '../wait/errors.ts'
import { Line } from '../wait/line.ts'
import {
  type BindOptions,
  listenAt,
  type SocketFile,
} from '../wait/listen-at.ts'
import { FIRST_DELAY, longerDelay } from '../wait/retry.ts'
import { PER_TURN, READABLE, Watch, WRITABLE } from '../wait/watch.ts'
import { prepare, takeMessage, whyNotSent } from './checks.ts'
import {
  type Limits,
  limitsOf,
  type ReceivedFds,
  type ReceiveOptions,
} from './limits.ts'

/** Of a socket that is made. */
export type DatagramOptions = Omit<SocketOptions, 'type'> &
  Pick<BindOptions, 'mode'> & {
    /**
     * Where others send to: the path of a socket file, or `'\0name'` (Linux).
     * Default: nowhere, and then nobody can answer.
     */
    readonly path?: string
    /** Where all goes, and from where alone something comes: connect(2). */
    readonly peer?: string
  }

/** What a datagram carries beside its bytes, and where it goes. */
export type SendOptions = {
  readonly fds?: readonly number[]
  /** The path of its receiver; not for a socket that has a `peer`. */
  readonly to?: string
  /** Who sends it: see unixCredentials(). */
  readonly credentials?: Credentials
}

/** A datagram, and who sent it. */
export type Datagram = ReceivedFds & {
  /** The path of the sender's socket, `'\0name'`, or '' if it has none. */
  readonly from: string
}

type Unsent = {
  readonly message: Outgoing
  readonly to: Uint8Array | undefined
  /** Of the data, as it should be still, in bytes. */
  readonly length: number
}

const { EAGAIN, ENOBUFS, EPROTOTYPE } = constants.errno

/**
 * A Unix socket of datagrams. The caller owns, and closes, it. `for await`
 * gives one datagram a round, until close().
 *
 * @see unix(7)
 * @example
 * const socket = await UnixDatagram.open({ path: '/run/user/1000/notify' })
 * for await (const { data, fds, from } of socket) console.log(`${data}`)
 */
export class UnixDatagram {
  #fd: number
  readonly #file: SocketFile | undefined
  readonly #isConnected: boolean
  readonly #watch: Watch
  readonly #unsent = new Line<Unsent>()
  readonly #receivers = new Line<Limits>()
  #receivedInTurn = 0
  #nextTurn: NodeJS.Immediate | undefined
  #retry: NodeJS.Timeout | undefined
  #delay = FIRST_DELAY

  private constructor(
    fd: number,
    isConnected: boolean,
    file: SocketFile | undefined,
  ) {
    this.#fd = fd
    this.#isConnected = isConnected
    this.#file = file
    this.#watch = new Watch(fd, 'edge', (events) => {
      if (events & READABLE) this.#readable()
      if (events & WRITABLE) this.#send()
    })
  }

  /**
   * socket(2), and bind(2) or connect(2) or both. The file of a dead server is
   * replaced, as by listen().
   *
   * @throws Error EADDRINUSE; EACCES; ENOENT; ENAMETOOLONG; ECONNREFUSED,
   * ENOENT if nobody is at `peer`; EPROTOTYPE for a socket of another type
   * @throws RangeError for `mode`
   */
  static async open(options: DatagramOptions = {}): Promise<UnixDatagram> {
    const { path, peer } = options
    const { fd, file } =
      path === undefined
        ? { fd: newSocket('datagram', options), file: undefined }
        : await listenAt(path, 'datagram', options)
    try {
      if (peer !== undefined) check('connect', connectTo(fd, peer), peer)
      return new UnixDatagram(tieToThread(fd), peer !== undefined, file)
    } catch (error) {
      file?.remove()
      closeFd(fd)
      throw error
    }
  }

  /** socketpair(2): two that are connected to each other. */
  static pair(
    options: Omit<SocketOptions, 'type'> = {},
  ): [UnixDatagram, UnixDatagram] {
    const pair = tiePairToThread(newSocketpair({ type: 'datagram' }))
    let one: UnixDatagram | undefined
    try {
      for (const fd of pair) applyOptions(fd, options)
      one = new UnixDatagram(pair[0], true, undefined)
      return [one, new UnixDatagram(pair[1], true, undefined)]
    } catch (error) {
      if (one) one.close()
      else closeFd(pair[0])
      closeFd(pair[1])
      throw error
    }
  }

  /**
   * Adopts a Unix socket of datagrams, such as one just received, or one that
   * the service manager has opened. Owns `fd` from then on: makes it
   * close-on-exec, and close() closes it, but removes no file. If this throws,
   * `fd` remains the caller's.
   *
   * @throws RangeError for what is no descriptor
   * @throws Error EBADF; ENOTSOCK; EPROTOTYPE for any other kind of socket
   */
  static fromFd(fd: number): UnixDatagram {
    const type = unixType(fd)
    if (type !== typeNumber('datagram')) {
      const why = `descriptor ${fd}: expected a socket of datagrams, got type ${type}`
      throw systemError('getsockopt', -EPROTOTYPE, why)
    }
    return new UnixDatagram(setCloseOnExec(fd), false, undefined)
  }

  /** The socket's own descriptor, not the caller's to close. -1 once closed. */
  get fd(): number {
    return this.#fd
  }

  /** Where it is bound: a path, `'\0name'`, or '' for nowhere. */
  get path(): string {
    return pathOf(this.#fd)
  }

  /**
   * sendmsg(2): one datagram, which may be empty. Calls are served in order, and
   * wait while the receiver's queue is full. Closes no descriptor: keep `fds`
   * open, and `data` as it is, until this resolves.
   *
   * @throws TypeError, RangeError, with nothing sent
   * @throws Error EMSGSIZE, saying how large is too large; ECONNREFUSED, ENOENT
   * if nobody is there; ENOTCONN without `to` and peer; EISCONN with both;
   * EPROTOTYPE; EACCES; EBADF, naming the descriptor; ETOOMANYREFS; EPERM
   * @see sendmsg(2), unix(7)
   */
  async send(
    data: string | Uint8Array,
    { fds = [], to, credentials }: SendOptions = {},
  ): Promise<void> {
    if (this.#fd < 0) throw closedError()
    const control = Buffer.concat([
      fds.length > 0 ? buildRights(fds, host) : Buffer.alloc(0),
      credentials ? unixCredentials(credentials) : Buffer.alloc(0),
    ])
    const message = prepare(data, control, false)
    const address = to === undefined ? undefined : unixAddress(to)
    const { byteLength: length } = message.data
    const sent = this.#unsent.join<void>({ message, to: address, length })
    this.#send()
    await sent
  }

  /**
   * recvmsg(2): one datagram. Calls are served in order. The descriptors in it
   * are close-on-exec and belong to the caller, who must close each.
   *
   * @returns null once the socket is closed
   * @throws TypeError, RangeError
   * @throws Error ERR_MESSAGE_TRUNCATED for a datagram of more than `maxBytes`,
   * with what came as `data`; ERR_FDS_TRUNCATED; ERR_TOO_MANY_FDS; ABORT_ERR
   * @see recvmsg(2), unix(7)
   */
  async receive(options: ReceiveOptions = {}): Promise<Datagram | null> {
    const limits = limitsOf(options, MAX_BYTES)
    if (this.#fd < 0) return null
    const { signal } = limits
    const serve = (): void => this.#receive()
    const received = this.#receivers.join<Datagram | null>(
      limits,
      signal,
      serve,
    )
    this.#receive()
    return received
  }

  /** `for await`: receive() without limits, until close(). */
  async *[Symbol.asyncIterator](): AsyncGenerator<Datagram, void, void> {
    for (;;) {
      const datagram = await this.receive()
      if (datagram === null) return
      yield datagram
    }
  }

  /**
   * Closes the socket, and removes its file. Waiting receivers get null,
   * waiting senders an error. Closing again does nothing. A file that cannot be
   * removed is a warning of the process.
   */
  close(): void {
    if (this.#fd < 0) return
    const failure = this.#file?.remove()
    this.#watch.end()
    closeFd(this.#fd)
    this.#fd = -1
    clearTimeout(this.#retry)
    clearImmediate(this.#nextTurn)
    while (!this.#unsent.isEmpty) this.#unsent.rejectFirst(closedError())
    while (!this.#receivers.isEmpty) this.#receivers.resolveFirst(null)
    if (failure) warn(failure)
  }

  /** close(), for `using`. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** A waiting receiver keeps the process alive, as it does at first. */
  ref(): this {
    this.#watch.ref()
    return this
  }

  /** A waiting receiver does not keep the process alive. */
  unref(): this {
    this.#watch.unref()
    return this
  }

  // Called by the event loop too, where no caller could catch an error: each
  // error rejects the send that it arose for.
  #send(): void {
    if (this.#retry) return
    for (let first = this.#unsent.first; first; first = this.#unsent.first) {
      const { message, to, length } = first
      const changed = whyChanged(message.data, length)
      if (changed) {
        this.#unsent.rejectFirst(changed)
        continue
      }
      const sent = sendTo(this.#fd, message, to)
      if (sent === -EAGAIN || sent === -ENOBUFS) {
        if (this.#waitForRoom()) return
      } else if (sent < 0) {
        const why = whyNotSent(-sent, this.#fd, message)
        this.#unsent.rejectFirst(systemError('sendmsg', sent, why))
      } else {
        this.#delay = FIRST_DELAY
        this.#unsent.resolveFirst()
      }
    }
  }

  // Whether it waits. If it cannot, the first send has failed. Of the queue of a
  // socket to which this one is not connected no event says when there is room.
  #waitForRoom(): boolean {
    if (!this.#isConnected) {
      this.#retry = setTimeout(() => {
        this.#retry = undefined
        this.#send()
      }, this.#delay)
      this.#delay = longerDelay(this.#delay)
      return true
    }
    try {
      this.#watch.wait(WRITABLE)
      return true
    } catch (error) {
      this.#unsent.rejectFirst(error)
      return false
    }
  }

  #readable(): void {
    this.#nextTurn = undefined
    this.#receivedInTurn = 0
    this.#receive()
  }

  #receive(): void {
    if (this.#nextTurn || this.#fd < 0) return
    let limits = this.#receivers.first
    if (limits === undefined) return this.#watch.cancel(READABLE)
    for (; limits; limits = this.#receivers.first) {
      if (this.#receivedInTurn++ === PER_TURN) {
        this.#nextTurn = setImmediate(() => this.#readable())
        return
      }
      try {
        const received = receiveFrom(this.#fd, limits.maxBytes)
        if (received === -EAGAIN) return this.#watch.wait(READABLE)
        if (typeof received === 'number') throw systemError('recvmsg', received)
        const message = takeMessage(received, limits.maxFds)
        const from = parseUnixAddress(received.from)
        this.#receivers.resolveFirst({ ...message, from })
      } catch (error) {
        this.#receivers.rejectFirst(error)
      }
    }
  }
}

function closedError(): Error {
  return codedError('ERR_SOCKET_CLOSED', 'The socket is closed', {
    syscall: 'sendmsg',
  })
}

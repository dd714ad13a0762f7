// A connected Unix stream socket whose messages may carry file descriptors.
// What cannot be done at once waits in line (sender.ts, receiver.ts) without
// blocking anybody. Open unix(7), sendmsg(2) and recvmsg(2) beside it.

import type { Outgoing, Received } from '../message.ts'
import {
  type Credentials,
  checkUnixStream,
  newSocketpair,
  peerCredentials,
  setCloseOnExec,
} from '../socket/unix.ts'
import { Watcher } from '../wait/watcher.ts'
import { takeRights } from './received.ts'
import { type Limits, Receiver } from './receiver.ts'
import { prepare, prepareRights, Sender } from './sender.ts'

export type ReceiveOptions = {
  /** Most bytes of data to receive, 65536 unless given. */
  readonly maxBytes?: number
  /** Most descriptors to accept, any number unless given. */
  readonly maxFds?: number
}

export type ReceivedFds = { readonly data: Buffer; readonly fds: number[] }

export class UnixConn {
  #fd: number
  readonly #watcher: Watcher
  readonly #sender: Sender
  readonly #receiver: Receiver

  /**
   * Of a socket that is known to be right, such as accept(2) gives, and
   * close-on-exec. Owns `fd`. For any other: fromFd().
   */
  constructor(fd: number) {
    this.#fd = fd
    this.#watcher = new Watcher(fd, (failure) =>
      this.#receiver.readable(failure),
    )
    this.#sender = new Sender(fd, this.#watcher)
    this.#receiver = new Receiver(fd, this.#watcher)
  }

  /**
   * Adopts a connected AF_UNIX stream socket, such as a child's `stdio[3]` or
   * one just received. Owns `fd` from then on: makes it non-blocking and
   * close-on-exec, and close() closes it. If this throws, `fd` remains the
   * caller's.
   *
   * @throws Error EBADF; ENOTSOCK; EPROTOTYPE for any other kind of socket:
   * TCP would send the bytes and drop the descriptors without a word
   */
  static fromFd(fd: number): UnixConn {
    checkUnixStream(fd)
    return new UnixConn(setCloseOnExec(fd))
  }

  /** The socket's own descriptor, not the caller's to close. -1 once closed. */
  get fd(): number {
    return this.#fd
  }

  /**
   * sendmsg(2). Calls are served in order. Closes no descriptor: keep those in
   * `control` open, and `data` as it is, until this resolves; then close your
   * copies of what you gave away.
   *
   * @param control control messages, such as `unixRights(fd)`. Descriptors
   * need at least one byte of data to ride on
   * @returns resolved when the kernel has taken every byte, not when the peer
   * has read them
   * @throws TypeError, RangeError at once, with nothing sent
   * @throws Error EBADF if a descriptor is not open; ETOOMANYREFS if too many
   * are on their way, after which the connection still works; EPIPE if the
   * peer is gone
   */
  sendmsg(data: string | Uint8Array, control?: Uint8Array): Promise<void> {
    return this.#send(prepare(data, control))
  }

  /**
   * recvmsg(2). Calls are served in order. The descriptors in `control` are
   * close-on-exec and belong to the caller, who must close each.
   *
   * Bytes and descriptors are not one packet. On Linux the data may begin with
   * bytes sent before the message that carried the descriptors; on macOS and
   * FreeBSD it may go on with bytes sent after it.
   *
   * @returns null at end of file and once the connection is closed
   * @throws TypeError, RangeError at once, with nothing received
   * @throws Error ERR_FDS_TRUNCATED if descriptors were lost on their way in,
   * as this process has no room for more (RLIMIT_NOFILE); ERR_TOO_MANY_FDS for
   * more than `maxFds`. Those that came are closed, `data` of the error holds
   * the bytes, and the connection still works. ECONNRESET if the peer went
   * away with bytes of ours unread
   */
  recvmsg(options: ReceiveOptions = {}): Promise<Received | null> {
    return this.#receiver.receive(limitsOf(options))
  }

  /**
   * sendmsg with `fds`, which may be empty, as one SCM_RIGHTS message. They
   * remain the caller's, as above.
   */
  sendFds(data: string | Uint8Array, fds: readonly number[]): Promise<void> {
    if (fds.length === 0) return this.sendmsg(data)
    return this.#send(prepareRights(data, fds))
  }

  /**
   * recvmsg, taken apart: the caller owns `fds`, which may be empty, and must
   * close each. Control messages of other types are passed over, and what
   * descriptor they bring (SCM_PIDFD) is closed.
   */
  async recvFds(options: ReceiveOptions = {}): Promise<ReceivedFds | null> {
    const { maxBytes, maxFds } = limitsOf(options)
    // takeRights counts them, so the receiver need not.
    const limits = { maxBytes, maxFds: Number.POSITIVE_INFINITY }
    const arrived = this.#receiver.arrived(limits)
    const message = arrived ?? (await this.#receiver.receive(limits))
    if (message === null) return null
    const { data, control } = message
    if (control.length === 0) return { data, fds: [] }
    return { data, fds: takeRights(message, maxFds) }
  }

  /** Who is at the other end: see `peerCredentials` in socket.ts. */
  peerCredentials(): Credentials {
    return peerCredentials(this.#fd)
  }

  /**
   * Closes the socket, and what was received for a call that never came.
   * Waiting receivers get null, waiting senders an error. Closing again does
   * nothing.
   */
  close(): void {
    if (this.#fd < 0) return
    this.#fd = -1
    this.#sender.close(closedError)
    this.#watcher.close()
    this.#receiver.close()
  }

  /** A waiting receiver keeps the process alive. It does so unless unref'd. */
  ref(): this {
    this.#watcher.keepAlive(true)
    return this
  }

  unref(): this {
    this.#watcher.keepAlive(false)
    return this
  }

  #send(message: Outgoing): Promise<void> {
    if (this.#fd < 0) return Promise.reject(closedError())
    return this.#sender.send(message)
  }
}

/** socketpair(2): two connections, each the other's peer. */
export function socketpair(): [UnixConn, UnixConn] {
  const [one, other] = newSocketpair()
  return [new UnixConn(one), new UnixConn(other)]
}

function closedError(): Error {
  return Object.assign(new Error('The connection is closed'), {
    code: 'ERR_SOCKET_CLOSED',
    syscall: 'sendmsg',
  })
}

function limitsOf(options: ReceiveOptions): Limits {
  const { maxBytes = 65536, maxFds = Number.POSITIVE_INFINITY } = options
  checkCount('maxBytes', maxBytes, 1)
  if (maxFds !== Number.POSITIVE_INFINITY) checkCount('maxFds', maxFds, 0)
  return { maxBytes, maxFds }
}

function checkCount(name: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new RangeError(
      `Expected ${name} as an integer from ${least}, got ${String(value)}`,
    )
  }
}

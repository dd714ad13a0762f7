// A connected Unix stream socket whose messages may carry file descriptors.
// What cannot be done at once waits in line (sender.ts, receiver.ts). Open
// unix(7), sendmsg(2) and recvmsg(2) beside it. Read next: lib/conn/limits.ts.

import type { Received } from '../message.ts'
import {
  type Credentials,
  checkUnixStream,
  peerCredentials,
} from '../socket/options.ts'
import { newSocketpair, setCloseOnExec } from '../socket/unix.ts'
import { Watcher } from '../wait/watcher.ts'
import { checkReceived, prepare, prepareRights, takeApart } from './checks.ts'
import type { Limits, ReceivedFds, ReceiveOptions } from './limits.ts'
import { limitsOf } from './limits.ts'
import { Receiver } from './receiver.ts'
import { Sender } from './sender.ts'

/** A connected Unix stream socket: see unix(7), sendmsg(2) and recvmsg(2). */
export class UnixConn {
  #fd: number
  readonly #watcher: Watcher
  readonly #sender: Sender
  readonly #receiver: Receiver

  /** Of a socket of ours, close-on-exec. Owns `fd`. For others: fromFd(). */
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
   * TCP would send the bytes and drop the descriptors without an error
   * @see unix(7)
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
   * Each call stands alone: of one that is rejected (EBADF, ETOOMANYREFS)
   * nothing was sent, and those behind it are sent all the same. To stop at the
   * first that fails, await each, or use an FdStream. A failure (EPIPE) that cuts a
   * message short shuts the sending side down: the peer gets the end of file,
   * all that follow fail with the same error, and receiving goes on.
   *
   * @param control control messages, such as `unixRights(fd)`. Descriptors
   * need at least one byte of data to ride on
   * @returns resolved when the kernel has taken every byte, not when the peer
   * has read them
   * @throws TypeError, RangeError at once, with nothing sent
   * @throws Error EBADF if a descriptor is not open; ETOOMANYREFS if too many
   * are in flight, after which the connection still works; EPERM if the peer
   * takes no descriptors (SO_PASSRIGHTS); EPIPE if the peer is gone
   * @see sendmsg(2), unix(7)
   */
  sendmsg(data: string | Uint8Array, control?: Uint8Array): Promise<void> {
    return this.#sender.send(prepare(data, control))
  }

  /**
   * recvmsg(2), once, with a buffer of `maxBytes`. Calls are served in order,
   * and nothing is read ahead of them. The descriptors in `control` are
   * close-on-exec and belong to the caller, who must close each.
   *
   * Bytes and descriptors are not one packet. On Linux the data may begin with
   * bytes sent before the message that carried the descriptors; on macOS and
   * FreeBSD it may go on with bytes sent after it.
   *
   * @returns null at end of file and once the connection is closed
   * @throws TypeError, RangeError at the call
   * @throws Error ERR_FDS_TRUNCATED if descriptors were lost on their way in,
   * as this process has no room for more (RLIMIT_NOFILE); ERR_TOO_MANY_FDS for
   * more than `maxFds`. Those that came are closed, `data` of the error holds
   * the bytes, and the connection still works. ABORT_ERR once `signal` is
   * aborted. ECONNRESET if the peer went away with bytes of ours unread
   * @see recvmsg(2), unix(7)
   */
  recvmsg(options: ReceiveOptions = {}): Promise<Received | null> {
    return this.#receiver.receive(limitsOf(options), checkReceived)
  }

  /**
   * sendmsg with `fds`, which may be empty, as one SCM_RIGHTS message. They
   * remain the caller's. Returns and throws as sendmsg does.
   */
  sendFds(data: string | Uint8Array, fds: readonly number[]): Promise<void> {
    if (fds.length === 0) return this.sendmsg(data)
    return this.#sender.send(prepareRights(data, fds))
  }

  /**
   * recvmsg, taken apart: the caller owns `fds`, which may be empty, and must
   * close each. Control messages of other types are passed over; the descriptor
   * that one of them may bring (SCM_PIDFD) is closed, and does not count.
   *
   * @returns and throws as recvmsg does
   * @example
   * const message = await conn.recvFds({ maxFds: 1 })
   * if (message === null) throw new Error('The peer has hung up')
   * const [fd] = message.fds
   * if (fd !== undefined) readableFrom(fd).pipe(process.stdout)
   */
  recvFds(options: ReceiveOptions = {}): Promise<ReceivedFds | null> {
    // An async function would do too, but costs 0.4 KB while it waits.
    try {
      return this.#receiver.receive(limitsOf(options), takeApart)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * All that arrives until the end of file, or until the connection is closed,
   * as recvFds gives it. For an owner who takes whatever comes: after the
   * first message several are received in one system call, ahead of the loop.
   *
   * A loop that is left (break, return, throw) leaves the connection open. What
   * was read ahead by then is delivered to the next receiver, before all else
   * and each message whole, even if that is more than its `maxBytes`.
   *
   * @throws Error as recvmsg does
   */
  messages(options: ReceiveOptions = {}): AsyncGenerator<ReceivedFds, void> {
    return this.#messages(limitsOf(options))
  }

  async *#messages(limits: Limits): AsyncGenerator<ReceivedFds, void> {
    let message = await this.#receiver.receive(limits, takeApart)
    while (message !== null) {
      yield message
      message = await this.#receiver.receiveAhead(limits, takeApart)
    }
  }

  /** `for await (const { data, fds } of conn)`: messages() without limits. */
  [Symbol.asyncIterator](): AsyncGenerator<ReceivedFds, void> {
    return this.messages()
  }

  /** Who is at the other end, by the kernel's record: SO_PEERCRED, unix(7). */
  peerCredentials(): Credentials {
    return peerCredentials(this.#fd)
  }

  /**
   * Closes the socket, and what was read ahead. Waiting receivers get null,
   * waiting senders an error. Closing again does nothing.
   */
  close(): void {
    if (this.#fd < 0) return
    this.#fd = -1
    this.#sender.close()
    this.#receiver.close()
    this.#watcher.close()
  }

  /** close(), for `using conn = await connect(path)`. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** A waiting receiver keeps the process alive. It does so unless unref'd. */
  ref(): this {
    this.#watcher.keepAlive(true)
    return this
  }

  /** A waiting receiver does not keep the process alive. */
  unref(): this {
    this.#watcher.keepAlive(false)
    return this
  }
}

/** socketpair(2): two connected ends, both the caller's to close. */
export function socketpair(): [UnixConn, UnixConn] {
  const [one, other] = newSocketpair()
  return [new UnixConn(one), new UnixConn(other)]
}

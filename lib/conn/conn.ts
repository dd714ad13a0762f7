// A connected Unix socket whose messages may carry file descriptors. What cannot
// be done at once waits in line (sender.ts, receiver.ts). Open unix(7),
// sendmsg(2) and recvmsg(2) beside it. Read next: lib/conn/limits.ts.

import { constants } from 'node:os'

import type { Credentials } from '../cmsg.ts'
import { systemError } from '../libc.ts'
import { MAX_BYTES, type Received } from '../message.ts'
import {
  peerCredentials,
  setOutOfBandInline,
  unixType,
} from '../socket/options.ts'
import {
  applyOptions,
  closeConnection,
  closeFd,
  newSocketpair,
  type SocketOptions,
  setCloseOnExec,
  tiePairToThread,
  typeNumber,
} from '../socket/unix.ts'
import { codedError } from '../wait/errors.ts'
import { READABLE, Watch, WRITABLE } from '../wait/watch.ts'
import { messagesOf } from './ahead.ts'
import {
  checkReceived,
  closeAll,
  prepare,
  prepareRights,
  takeMessage,
} from './checks.ts'
import {
  checkCount,
  type Limits,
  limitsOf,
  type ReceivedFds,
  type ReceivedMessage,
  type ReceiveOptions,
} from './limits.ts'
import { Receiver } from './receiver.ts'
import { Sender } from './sender.ts'

/** Bytes that are received at a time from a stream, unless said otherwise. */
const PIECE = 65536

/**
 * A connected Unix socket: see unix(7), sendmsg(2) and recvmsg(2). Made by
 * connect(), listen(), socketpair() and fromFd().
 *
 * Of the type 'stream' it carries bytes, and descriptors beside them, without
 * the boundaries of messages. Of the type 'seqpacket' each message arrives as
 * it was sent, or not at all; an empty one is a message too, but directly
 * before the end, where the kernel does not tell them apart.
 */
export class UnixConn {
  /** The type of its socket. */
  readonly type: 'stream' | 'seqpacket'
  #fd: number
  readonly #watch: Watch
  readonly #sender: Sender
  readonly #receiver: Receiver

  private constructor(fd: number, type: 'stream' | 'seqpacket') {
    this.type = type
    this.#fd = fd
    this.#watch = new Watch(fd, 'edge', (events) => {
      if (events & READABLE) this.#receiver.readable()
      if (events & WRITABLE) this.#sender.writable()
    })
    const isStream = type === 'stream'
    if (isStream) setOutOfBandInline(fd)
    this.#sender = new Sender(fd, this.#watch, isStream)
    this.#receiver = new Receiver(fd, this.#watch, isStream)
  }

  /**
   * Of a socket of this library's own, close-on-exec. Owns `fd`, unless it
   * throws.
   *
   * @internal
   */
  static adopt(fd: number, type: 'stream' | 'seqpacket'): UnixConn {
    return new UnixConn(fd, type)
  }

  /**
   * Adopts a connected Unix socket, stream or seqpacket, such as a child's
   * `stdio[3]` or one just received. Owns `fd` from then on: makes it
   * close-on-exec, and close() closes it. If this throws, `fd` remains the
   * caller's.
   *
   * @throws RangeError for what is no descriptor
   * @throws Error EBADF; ENOTSOCK; EPROTOTYPE for any other kind of socket:
   * TCP would send the bytes and drop the descriptors without an error
   * @see unix(7)
   */
  static fromFd(fd: number): UnixConn {
    const number = unixType(fd)
    const type = number === typeNumber('seqpacket') ? 'seqpacket' : 'stream'
    if (number !== typeNumber(type)) {
      throw systemError(
        'getsockopt',
        -constants.errno.EPROTOTYPE,
        `descriptor ${fd}: expected a socket of the type stream or seqpacket, ` +
          `got type ${number}`,
      )
    }
    return new UnixConn(setCloseOnExec(fd), type)
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
   * @throws TypeError, RangeError, with nothing sent
   * @throws Error EBADF, naming the descriptor, if one is not open;
   * ETOOMANYREFS if too many are in flight, after which the connection still
   * works; EPERM if the peer takes no descriptors (SO_PASSRIGHTS); EPIPE if the
   * peer is gone; EMSGSIZE for a packet that is too large
   * @see sendmsg(2), unix(7)
   */
  async sendmsg(
    data: string | Uint8Array,
    control?: Uint8Array,
  ): Promise<void> {
    const message = prepare(data, control, this.type === 'stream')
    try {
      await this.#sender.send(message)
    } catch (error) {
      throw withCaller(error)
    }
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
   * @throws TypeError, RangeError
   * @throws Error ERR_MESSAGE_TRUNCATED if a packet was longer than `maxBytes`;
   * ERR_FDS_TRUNCATED if descriptors were lost on their way in,
   * as this process has no room for more (RLIMIT_NOFILE); ERR_TOO_MANY_FDS for
   * more than `maxFds`. Those that came are closed, `data` of the error holds
   * the bytes, and the connection still works. ABORT_ERR once `signal` is
   * aborted. ECONNRESET if the peer went away with bytes of ours unread
   * @see recvmsg(2), unix(7)
   */
  recvmsg(options: ReceiveOptions = {}): Promise<ReceivedMessage | null> {
    return this.#receive(options, checkMessage)
  }

  /**
   * sendmsg with `fds`, which may be empty, as one SCM_RIGHTS message. They
   * remain the caller's. Returns and throws as sendmsg does.
   */
  async sendFds(
    data: string | Uint8Array,
    fds: readonly number[],
  ): Promise<void> {
    const message = prepareRights(data, fds, this.type === 'stream')
    try {
      await this.#sender.send(message)
    } catch (error) {
      throw withCaller(error)
    }
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
    return this.#receive(options, takeMessage)
  }

  /**
   * Exactly `size` bytes, from as many messages as it takes, with the
   * descriptors that came with them. Nothing behind them is read. For a
   * protocol whose headers say how much follows. Not for seqpacket.
   *
   * @param options.maxFds at most so many descriptors in all
   * @returns the bytes; null at the end of file before the first of them
   * @throws Error ERR_STREAM_PREMATURE_CLOSE at the end of file before the last
   * of them, with what came as `data`, its descriptors closed; as recvFds()
   * else, and then what had come before is lost, its descriptors closed
   * @example
   * const header = await conn.readExactly(4, { maxFds: 1 })
   */
  async readExactly(
    size: number,
    options: Omit<ReceiveOptions, 'maxBytes'> = {},
  ): Promise<ReceivedFds | null> {
    checkCount('size', size, 1)
    if (this.type !== 'stream') {
      throw new TypeError('Expected a stream, got a socket of messages')
    }
    const { maxFds = Number.POSITIVE_INFINITY, signal } = options
    const pieces: Buffer[] = []
    const fds: number[] = []
    let missing = size
    try {
      while (missing > 0) {
        const message = await this.recvFds({
          maxBytes: missing,
          maxFds: maxFds - fds.length,
          signal,
        })
        if (message === null && pieces.length === 0) return null
        if (message === null) throw cutShort(size, pieces)
        pieces.push(message.data)
        fds.push(...message.fds)
        missing -= message.data.length
      }
    } catch (error) {
      closeAll(fds)
      throw error
    }
    return { data: Buffer.concat(pieces), fds }
  }

  // An async function would do too, but costs 0.4 KB while it waits.
  #receive<T>(
    options: ReceiveOptions,
    take: (message: Received, maxFds: number) => T,
  ): Promise<T | null> {
    try {
      return this.#receiver.receive(this.#limitsOf(options), take)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  #limitsOf(options: ReceiveOptions): Limits {
    return limitsOf(options, this.type === 'stream' ? PIECE : MAX_BYTES)
  }

  /**
   * All that arrives until the end of file, or until the connection is closed,
   * as recvFds gives it. For an owner who takes whatever comes: after the
   * first message several are received in one system call, ahead of the loop
   * (not in a worker thread, which may be terminated before it has them).
   *
   * A loop that is left (break, return, throw) leaves the connection open. What
   * was read ahead by then is delivered to the next receiver, before all else
   * and each message whole, even if that is more than its `maxBytes`.
   *
   * @throws Error as recvmsg does
   */
  messages(options: ReceiveOptions = {}): AsyncGenerator<ReceivedFds, void> {
    return messagesOf(this.#fd, this.#receiver, this.#limitsOf(options))
  }

  /** `for await (const { data, fds } of conn)`: messages() without limits. */
  [Symbol.asyncIterator](): AsyncGenerator<ReceivedFds, void> {
    return this.messages()
  }

  /**
   * shutdown(2): ends the sending side once all that was sent before is gone,
   * as net.Socket's end() does. The peer reads to the end of file, and what it
   * sends can still be received. The connection stays open until close().
   *
   * @throws Error ERR_SOCKET_CLOSED, ERR_STREAM_WRITE_AFTER_END
   * @see shutdown(2)
   */
  end(): Promise<void> {
    return this.#sender.end()
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
    this.#watch.end()
    closeConnection(this.#fd, this.type)
    this.#fd = -1
    this.#sender.close()
    this.#receiver.close()
  }

  /** close(), for `using conn = await connect(path)`. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** A waiting receiver keeps the process alive. It does so unless unref'd. */
  ref(): this {
    this.#watch.ref()
    return this
  }

  /** A waiting receiver does not keep the process alive. */
  unref(): this {
    this.#watch.unref()
    return this
  }
}

// The error was made in a callback of the event loop. Its stack is recorded
// anew where the caller's line is part of it.
function withCaller(error: unknown): unknown {
  if (error instanceof Error) Error.captureStackTrace(error, withCaller)
  return error
}

// What recvmsg() gives: the flags are checked, and tell nothing more.
function checkMessage(message: Received, maxFds: number): ReceivedMessage {
  const { data, control } = checkReceived(message, maxFds)
  return { data, control }
}

function cutShort(size: number, pieces: readonly Buffer[]): Error {
  const data = Buffer.concat(pieces)
  return codedError(
    'ERR_STREAM_PREMATURE_CLOSE',
    `Expected ${size} bytes, got ${data.length} and the end of file`,
    { data },
  )
}

/**
 * socketpair(2): two connected ends, both the caller's to close.
 *
 * @throws RangeError for another type; Error EMFILE
 */
export function socketpair(options: SocketOptions = {}): [UnixConn, UnixConn] {
  const { type = 'stream' } = options
  const pair = tiePairToThread(newSocketpair({ type }))
  let one: UnixConn | undefined
  try {
    for (const fd of pair) applyOptions(fd, options)
    one = UnixConn.adopt(pair[0], type)
    return [one, UnixConn.adopt(pair[1], type)]
  } catch (error) {
    if (one) one.close()
    else closeFd(pair[0])
    closeFd(pair[1])
    throw error
  }
}

/**
 * A pair for a child process: a connection here, and for the child the
 * descriptor of the other end, to be given to it in `stdio` of spawn. That one
 * is blocking, as programs that are not Node expect, and the caller's to close
 * once the child was started. The options are for the end here.
 *
 * @throws RangeError for another type; Error EMFILE
 * @example
 * const { conn, childFd } = pairForChild()
 * const child = spawn('python3', [file], { stdio: [0, 1, 2, childFd] })
 * closeSync(childFd)
 */
export function pairForChild(options: SocketOptions = {}): {
  conn: UnixConn
  childFd: number
} {
  const { type = 'stream' } = options
  // A blocking end is served as well: each call says that it must not wait.
  const pair = newSocketpair({ type, isBlocking: true })
  const [ours, childFd] = tiePairToThread(pair)
  try {
    applyOptions(ours, options)
    return { conn: UnixConn.adopt(ours, type), childFd }
  } catch (error) {
    closeFd(ours)
    closeFd(childFd)
    throw error
  }
}

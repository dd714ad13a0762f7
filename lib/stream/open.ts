// Node streams for descriptors that were received: to read, to write, or both.
// What is no stream of bytes, or may not be read, is refused at once, with the
// reason. How they work: stream.ts. Open read(2) and write(2) beside it.
// Read next: lib/script/cli.ts.

import { constants } from 'node:os'
import {
  addAbortSignal,
  type Duplex,
  type DuplexOptions,
  type Readable,
  type Writable,
} from 'node:stream'

import { systemError } from '../libc.ts'
import { describeFd, type FdKind } from '../socket/describe.ts'
import { checkFd, socketType } from '../socket/options.ts'
import { closeReceived } from '../socket/unix.ts'
import { hasEpoll } from '../wait/watch.ts'
import { nodeDuplex, nodeReadable, nodeWritable } from './node-streams.ts'
import { DescriptorStream } from './stream.ts'

/** Those of a Node stream. `signal` destroys it with an AbortError. */
export type DescriptorStreamOptions = Pick<
  DuplexOptions,
  'defaultEncoding' | 'encoding' | 'highWaterMark' | 'signal'
>

type Direction = 'read' | 'write' | 'read-write'

/**
 * The Node stream that reads from `fd`: a file, pipe, terminal, device or
 * stream socket. It reads what was sent, through the very open file description
 * that the sender has, at its position: it opens nothing, sets nothing, and
 * never blocks the event loop. (Where there is no epoll, on macOS and FreeBSD,
 * it is one of Node's own streams, which set O_NONBLOCK, and of the options
 * only `signal` counts.)
 *
 * Takes the descriptor over at once, even if it throws. Closes it at the end of
 * file, on an error, or on destroy(); but if a read is under way in libuv's
 * pool then, not before that has ended. In a worker thread too it takes what
 * was received and what fs.openSync() has opened. It does not take the
 * descriptor of a FileHandle, which would close it a second time.
 *
 * What a stranger sent is read for as long as the stream lives: bound how many
 * there are, and destroy a stream whose sender has gone.
 *
 * A TCP or Unix socket that is to be a net.Socket, for node:http, say, is
 * `new net.Socket({ fd })`, which owns it, and sets O_NONBLOCK for everyone who
 * has the same open file description.
 *
 * @throws RangeError for what is no descriptor, the only case that closes none
 * @throws Error EBADF for a descriptor that is write-only, O_PATH or not open;
 * EISDIR; EINVAL for what is no stream of bytes, such as a socket that listens,
 * or one of datagrams. The stream fails with EIO for the terminal of this
 * process itself while it runs in the background
 * @see read(2), preadv2(2)
 * @example
 * const message = await conn.recvFds({ maxFds: 1 })
 * const [fd] = message?.fds ?? []
 * if (fd !== undefined) {
 *   for await (const chunk of readableFrom(fd)) process.stdout.write(chunk)
 * }
 */
export function readableFrom(
  fd: number,
  options: DescriptorStreamOptions = {},
): Readable {
  return own(fd, 'read', (kind) => {
    if (!hasEpoll) return withSignal(nodeReadable(fd, kind), options)
    return new DescriptorStream(fd, kind, { ...options, writable: false })
  })
}

/**
 * The Node stream that writes to `fd`, as readableFrom() reads. end() closes
 * the descriptor once all is written; it does not shut a socket down, which
 * others may have.
 *
 * @throws as readableFrom(), EBADF for a descriptor that is read-only
 * @see write(2), pwritev2(2)
 */
export function writableFrom(
  fd: number,
  options: DescriptorStreamOptions = {},
): Writable {
  return own(fd, 'write', (kind) => {
    if (!hasEpoll) return withSignal(nodeWritable(fd, kind), options)
    return new DescriptorStream(fd, kind, { ...options, readable: false })
  })
}

/**
 * The Node stream that reads from `fd` and writes to it: a terminal, a socket,
 * a device. Closes the descriptor when both sides have ended, on an error, or
 * on destroy(). end() does not shut a socket down, which others may have.
 *
 * @throws as readableFrom() and writableFrom()
 */
export function duplexFrom(
  fd: number,
  options: DescriptorStreamOptions = {},
): Duplex {
  return own(fd, 'read-write', (kind) => {
    if (!hasEpoll) return withSignal(nodeDuplex(fd, kind), options)
    return new DescriptorStream(fd, kind, options)
  })
}

function own<S>(
  fd: number,
  direction: Direction,
  make: (kind: FdKind) => S,
): S {
  checkFd(fd)
  try {
    return make(checkedKind(fd, direction))
  } catch (error) {
    closeReceived(fd)
    throw error
  }
}

// Node's own streams are opened with defaults, but for this.
function withSignal<S extends Readable | Writable>(
  stream: S,
  { signal }: DescriptorStreamOptions,
): S {
  if (signal) addAbortSignal(signal, stream)
  return stream
}

// The kind of `fd`, if it can be streamed in this direction.
function checkedKind(fd: number, direction: Direction): FdKind {
  const { kind, access } = describeFd(fd)
  const call = direction === 'write' ? 'write' : 'read'
  if (access === 'none') throw refusal(call, 'EBADF', 'it is a path (O_PATH)')
  if (direction !== 'write' && access === 'write') {
    throw refusal('read', 'EBADF', 'it is write-only')
  }
  if (direction !== 'read' && access === 'read') {
    throw refusal('write', 'EBADF', 'it is read-only')
  }
  if (kind === 'directory') throw refusal(call, 'EISDIR', 'it is a directory')
  if (kind === 'other')
    throw refusal(call, 'EINVAL', 'it is no stream of bytes')
  const type = kind === 'socket' ? socketType(fd) : 'stream'
  if (type !== 'stream') throw refusal(call, 'EINVAL', `it is a socket ${type}`)
  return kind
}

function refusal(
  call: 'read' | 'write',
  code: 'EBADF' | 'EISDIR' | 'EINVAL',
  why: string,
): Error {
  return systemError(
    call,
    -constants.errno[code],
    `cannot ${call} this: ${why}`,
  )
}

// Streams for received descriptors where there is no epoll (macOS, FreeBSD):
// Node's own. They set O_NONBLOCK on sockets and pipes, for the sender too, and
// read a terminal through a description that libuv opens anew.
// Read next: lib/stream/open.ts.

import { createReadStream, createWriteStream, read, write } from 'node:fs'
import { Socket } from 'node:net'
import { Duplex, type Readable, type Writable } from 'node:stream'
import { ReadStream } from 'node:tty'
import { isMainThread } from 'node:worker_threads'
import type { FdKind } from '../socket/describe.ts'
import { turnLingerOff } from '../socket/options.ts'
import { closeFd, duplicate } from '../socket/unix.ts'

/** For `fd`, which it owns, of a kind that can be streamed. */
export function nodeReadable(fd: number, kind: FdKind): Readable {
  if (kind === 'socket' || kind === 'pipe') {
    return openSocket(fd, { readable: true, writable: false })
  }
  if (kind === 'terminal') return closedWith(fd, new ReadStream(fd))
  return createReadStream('', {
    fd,
    ...(!isMainThread && { fs: { read, close } }),
  })
}

/** For `fd`, which it owns, of a kind that can be streamed. */
export function nodeWritable(fd: number, kind: FdKind): Writable {
  if (kind === 'socket' || kind === 'pipe') {
    return openSocket(fd, { readable: false, writable: true })
  }
  // A tty.WriteStream would block the event loop while nobody reads.
  return createWriteStream('', {
    fd,
    ...(!isMainThread && { fs: { write, close } }),
  })
}

/** For `fd`, which it owns, of a kind that can be streamed. */
export function nodeDuplex(fd: number, kind: FdKind): Duplex {
  if (kind === 'socket' || kind === 'pipe') {
    return openSocket(fd, { readable: true, writable: true })
  }
  const writer = nodeWritable(duplicate(fd), kind)
  return combine(nodeReadable(fd, kind), writer)
}

// Duplex.from() would do too, but fails with an AbortError when it is destroyed.
function combine(reader: Readable, writer: Writable): Duplex {
  const duplex = new Duplex({
    read: () => reader.resume(),
    write: (chunk, encoding, done) => writer.write(chunk, encoding, done),
    final: (done) => writer.end(done),
    destroy: (error, done) => {
      reader.destroy()
      writer.destroy()
      done(error)
    },
  })
  reader.on('data', (chunk) => {
    if (!duplex.push(chunk)) reader.pause()
  })
  reader.on('end', () => duplex.push(null))
  for (const side of [reader, writer]) {
    side.on('error', (error) => duplex.destroy(error))
  }
  return duplex
}

// It is not to shut down a socket, which others may have.
function openSocket(
  fd: number,
  sides: { readable: boolean; writable: boolean },
): Socket {
  const stream = new Socket({ fd, ...sides, allowHalfOpen: true })
  stream._final = (done) => done()
  // Turned off at the end, as the sender may turn it on meanwhile.
  const destroy = stream._destroy.bind(stream)
  stream._destroy = (error, done) => {
    turnLingerOff(fd)
    destroy(error, done)
  }
  return stream
}

// The stream has the terminal that libuv opened anew, and leaves `fd` open
// beside it. Only where nothing can be opened anew, as for the master side of a
// pseudo-terminal, it has `fd` itself.
function closedWith(fd: number, stream: ReadStream): ReadStream {
  const { fd: own } = Reflect.get(stream, '_handle') as { fd: number }
  if (own !== fd) stream.once('close', () => closeFd(fd))
  return stream
}

// In a worker thread Node would warn that it has never opened this number.
function close(fd: number, done: (error: null) => void): void {
  closeFd(fd)
  done(null)
}

// The Node stream that reads a received descriptor.
//
// The descriptor is ours, but the open file description behind it is shared
// with whoever sent it: offset, O_NONBLOCK and a terminal's mode are theirs
// too. So each kind is read in the way that changes least:
//
//    terminal   libuv opens the terminal anew and reads that; mode untouched
//    pipe       opened anew where the system can (Linux), so that O_NONBLOCK
//               is set on a description of our own; elsewhere, and for a named
//               FIFO, on the shared one
//    socket     cannot be opened anew: O_NONBLOCK on the shared one
//    file       read in the thread pool, at the shared offset
//
// What it is: describe.ts. Open open(2), read(2) and proc_pid_fd(5) beside it.
// Read next: lib/socket/file.ts.

import { constants, createReadStream, read, readlinkSync } from 'node:fs'
import { Socket } from 'node:net'
import { constants as os } from 'node:os'
import type { Readable } from 'node:stream'
import { ReadStream as TerminalStream } from 'node:tty'
import { isMainThread } from 'node:worker_threads'

import { allocate, declare, systemError } from '../libc.ts'
import { describeFd } from './describe.ts'
import { turnLingerOff } from './options.ts'
import { isOtherEnd } from './peer.ts'
import { closeFd, closeReceived } from './unix.ts'

// int open(const char *path, int flags, ...)
const open = declare('open', 'int', ['pointer', 'int'])

const { O_RDONLY, O_NONBLOCK, O_NOCTTY } = constants
const O_CLOEXEC = 0o2000000 // Linux: elsewhere there is no /proc/self/fd

/** The path of a descriptor, such as /proc/self/fd/3, for open(2). */
const path = allocate(32)

/**
 * The Node stream that reads from `fd`. Takes the descriptor over at once, even
 * if it throws, and closes it at the end of file, on an error, or on destroy().
 *
 * What a stranger sent is read for as long as the stream lives: bound how many
 * there are, and destroy a stream whose sender has gone.
 *
 * @param own the descriptor of the connection that `fd` came over, for those
 * who read until its peer hangs up: see isOtherEnd()
 * @throws RangeError for what is no descriptor, the only case that closes none
 * @throws Error EBADF for a descriptor that is write-only, O_PATH or not open;
 * EISDIR; EINVAL for a kind of descriptor that is no stream of bytes, and for
 * the other end of `own`
 * @see open(2), read(2)
 * @example
 * const message = await conn.recvFds({ maxFds: 1 })
 * const [fd] = message?.fds ?? []
 * if (fd !== undefined) {
 *   const input = readableFrom(fd, conn.fd)
 *   for await (const chunk of input) process.stdout.write(chunk)
 * }
 */
export function readableFrom(fd: number, own = -1): Readable {
  if (!Number.isInteger(fd) || fd < 0) {
    throw new RangeError(`Expected a file descriptor, got ${String(fd)}`)
  }
  let owned = fd
  try {
    const { kind, access } = describeFd(fd)
    if (access === 'write') throw unreadable('EBADF', 'it is write-only')
    if (access === 'none') throw unreadable('EBADF', 'it is a path (O_PATH)')
    switch (kind) {
      case 'terminal':
        return openTerminal(fd)
      case 'pipe':
        owned = reopen(fd, 'pipe:')
        return openSocket(owned)
      case 'socket':
        if (isOtherEnd(fd, own))
          throw unreadable('EINVAL', 'it is the other end of its connection')
        return withoutLinger(openSocket(fd), fd)
      case 'character device':
        // A device with nothing to say must not hold a pool thread: told not
        // to block it answers EAGAIN, which ends the stream with that error.
        owned = reopen(fd, '/dev/')
        return openFile(owned)
      case 'file':
      case 'block device':
        return openFile(fd)
      case 'directory':
        throw unreadable('EISDIR', 'it is a directory')
      case 'other':
        throw unreadable('EINVAL', 'it is no stream of bytes')
    }
  } catch (error) {
    closeReceived(owned)
    throw error
  }
}

// The stream has the terminal that libuv opened anew, and leaves `fd` open
// beside it. Only where nothing can be opened anew, as for the master side of a
// pseudo-terminal, it has `fd` itself.
function openTerminal(fd: number): Readable {
  const stream = new TerminalStream(fd)
  const { fd: own } = Reflect.get(stream, '_handle') as { fd: number }
  if (own !== fd) stream.once('close', () => closeFd(fd))
  return stream
}

// Not writable, so that the stream never shuts down a socket which others hold.
function openSocket(fd: number): Socket {
  return new Socket({
    fd,
    readable: true,
    writable: false,
    allowHalfOpen: true,
  })
}

// See closeReceived(). Turned off at the end, because the sender may turn it on
// for as long as it has the same socket.
function withoutLinger(stream: Socket, fd: number): Readable {
  const destroy = stream._destroy.bind(stream)
  stream._destroy = (error, done) => {
    turnLingerOff(fd)
    destroy(error, done)
  }
  return stream
}

// Node closes a file in its thread pool, where close(2) may take its time. In a
// worker thread it would warn that it has never opened this number.
function openFile(fd: number): Readable {
  if (isMainThread) return createReadStream('', { fd })
  const close = (fd: number, done: (error: null) => void): void => {
    closeFd(fd)
    done(null)
  }
  return createReadStream('', { fd, fs: { read, close } })
}

// A new open file description of the same object, non-blocking, in place of
// `fd`; or `fd` itself where there is no /proc or no permission. What to reopen
// goes by its name: a named FIFO is left alone, because one whose writers are
// gone already would never end for a reader who opened it later.
//
// Opened through libc: a number that Node has opened in a worker thread it
// closes when the thread ends, even if it has a new owner. O_NOCTTY, as a
// terminal becomes the controlling one of a session leader that opens it.
function reopen(fd: number, namePrefix: string): number {
  const name = `/proc/self/fd/${fd}`
  try {
    if (!readlinkSync(name).startsWith(namePrefix)) return fd
  } catch {
    return fd
  }
  path.bytes.fill(0)
  path.bytes.write(name)
  const flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC
  const reopened = open(path.address, flags)
  if (reopened < 0) return fd
  closeFd(fd)
  return reopened
}

function unreadable(code: 'EBADF' | 'EISDIR' | 'EINVAL', why: string): Error {
  return systemError('read', -os.errno[code], `cannot read this: ${why}`)
}

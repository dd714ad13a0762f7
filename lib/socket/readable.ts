// What a received descriptor is, and the Node stream that reads it.
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
// Open open(2), fcntl(2) and, on Linux, proc(5) beside it.

import {
  closeSync,
  constants,
  createReadStream,
  fstatSync,
  openSync,
  readlinkSync,
  type Stats,
} from 'node:fs'
import { Socket } from 'node:net'
import { constants as os } from 'node:os'
import type { Readable } from 'node:stream'
import { isatty, ReadStream as TerminalStream } from 'node:tty'

import { host } from '../layouts.ts'
import { check, declare, systemError } from '../libc.ts'
import { closeFd } from './unix.ts'

// int fcntl(int fd, int command, ...)
const fcntl = declare('fcntl', 'int', ['int', 'int'])

export type FdKind =
  | 'terminal'
  | 'pipe'
  | 'socket'
  | 'file'
  | 'directory'
  | 'character device'
  | 'block device'
  | 'other'

export type FdDescription = {
  readonly kind: FdKind
  /** As it was opened: O_RDONLY, O_WRONLY or O_RDWR. */
  readonly access: 'read' | 'write' | 'read-write'
}

const { O_RDONLY, O_WRONLY, O_NONBLOCK } = constants
const O_ACCMODE = 3 // on every platform, and nowhere in Node

/**
 * What a descriptor refers to, and what may be done with it.
 *
 * @throws Error EBADF
 */
export function describeFd(fd: number): FdDescription {
  const stats = fstatSync(fd)
  const flags = check('fcntl', fcntl(fd, host.constants.F_GETFL))
  const mode = flags & O_ACCMODE
  const access =
    mode === O_RDONLY ? 'read' : mode === O_WRONLY ? 'write' : 'read-write'
  return { kind: kindOf(fd, stats), access }
}

/**
 * The Node stream that reads from `fd`. Takes the descriptor over at once, even
 * if it throws, and closes it at the end of file, on an error, or on destroy().
 *
 * @throws Error EBADF for a descriptor that is write-only or not open; EISDIR;
 * EINVAL for a kind of descriptor that is no stream of bytes
 */
export function readableFrom(fd: number): Readable {
  const { kind, access } = describeFd(fd)
  let owned = fd
  try {
    if (access === 'write') throw unreadable('EBADF', 'it is write-only')
    switch (kind) {
      case 'terminal':
        return openTerminal(fd)
      case 'pipe':
        owned = reopen(fd, 'pipe:')
        return openSocket(owned)
      case 'socket':
        return openSocket(fd)
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
    closeSync(owned)
    throw error
  }
}

const kinds = new Map<number, FdKind>([
  [constants.S_IFIFO, 'pipe'],
  [constants.S_IFSOCK, 'socket'],
  [constants.S_IFREG, 'file'],
  [constants.S_IFDIR, 'directory'],
  [constants.S_IFCHR, 'character device'],
  [constants.S_IFBLK, 'block device'],
])

function kindOf(fd: number, { mode }: Stats): FdKind {
  if (isatty(fd)) return 'terminal'
  return kinds.get(mode & constants.S_IFMT) ?? 'other'
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
function openSocket(fd: number): Readable {
  return new Socket({
    fd,
    readable: true,
    writable: false,
    allowHalfOpen: true,
  })
}

function openFile(fd: number): Readable {
  return createReadStream('', { fd })
}

// A new open file description of the same object, non-blocking, in place of
// `fd`; or `fd` itself where there is no /proc or no permission. What to reopen
// goes by its name: a named FIFO is left alone, because one whose writers are
// gone already would never tell its end to a reader who opened it later.
export function reopen(
  fd: number,
  namePrefix: string,
  folder = '/proc/self/fd',
): number {
  const name = `${folder}/${fd}`
  try {
    if (!readlinkSync(name).startsWith(namePrefix)) return fd
    const reopened = openSync(name, O_RDONLY | O_NONBLOCK)
    closeSync(fd)
    return reopened
  } catch {
    return fd
  }
}

function unreadable(code: 'EBADF' | 'EISDIR' | 'EINVAL', why: string): Error {
  return systemError('read', -os.errno[code], `cannot read this: ${why}`)
}

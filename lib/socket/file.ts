// The file of a Unix socket, which outlives the server that made it: made with
// the right mode, told from one that a dead server left, and removed. Nothing
// but a socket that refuses connections is ever removed. Open unix(7), bind(2),
// flock(2) and umask(2) beside it.
// Read next: lib/socket/inet.ts.

import {
  closeSync,
  constants as fs,
  lstatSync,
  openSync,
  type Stats,
  unlinkSync,
} from 'node:fs'
import { constants } from 'node:os'

import { check, declare, systemError } from '../libc.ts'
import { peerCredentials } from './options.ts'
import { isAbstract } from './sockaddr.ts'
import { bindTo, closeFd, connectTo, newSocket } from './unix.ts'

// int fchmod(int fd, mode_t mode)
const fchmod = declare('fchmod', 'int', ['int', 'uint'])
// mode_t umask(mode_t mask)
const umask = declare('umask', 'int', ['uint'])
// int flock(int fd, int operation)
const flock = declare('flock', 'int', ['int', 'int'])

const { EAGAIN, EADDRINUSE, ECONNREFUSED } = constants.errno
const LOCK_EX_NB = 2 | 4 // LOCK_EX | LOCK_NB on every platform

/** What group and others may do, out of a mode. */
const FOR_OTHERS = 0o077

/**
 * bind(2): 0 or -errno. The file has `mode` from the moment it exists. A
 * chmod(2) of the path could not do that, and would follow a link that another
 * user put there meanwhile.
 */
export function bindFile(fd: number, path: string, mode: number): number {
  // Linux gives the file the mode of the socket itself, less the umask.
  const isSet = fchmod(fd, mode) >= 0
  if (isSet && (mode & FOR_OTHERS) === 0) return bindTo(fd, path)
  // The whole process shares the umask, with the threads that open files for
  // it, so it is touched only where it has to be, and for this one call.
  const before = umask(~mode & 0o777)
  try {
    return bindTo(fd, path)
  } finally {
    umask(before)
  }
}

/**
 * Looks at what makes bind(2) say EADDRINUSE.
 *
 * @returns the socket file, if it refuses connections; undefined if there is
 * nothing
 * @throws Error EADDRINUSE, with the `pid` of the server that has the path, or
 * saying that what is there is no socket; EPROTOTYPE for one of datagrams
 */
export function refusingFile(path: string): Stats | undefined {
  const found = lstatAt(path)
  if (found && !found.isSocket()) {
    throw systemError('bind', -EADDRINUSE, `${path}: exists, and is no socket`)
  }
  const fd = newSocket()
  try {
    const result = connectTo(fd, path)
    // A live server, even if its backlog is full; then it cannot say its pid.
    if (result === 0) throw occupied(path, peerCredentials(fd).pid)
    if (result === -EAGAIN) throw occupied(path)
    if (result !== -ECONNREFUSED && result !== -constants.errno.ENOENT) {
      check('connect', result, path)
    }
  } finally {
    closeFd(fd)
  }
  return found
}

function occupied(path: string, pid?: number): Error {
  const who = pid === undefined ? 'a server' : `process ${pid}`
  const message = `${path}: ${who} is listening there`
  return Object.assign(systemError('bind', -EADDRINUSE, message), { pid })
}

/**
 * flock(2) of a folder, without waiting: two servers must not look at its files
 * and change them at the same time.
 *
 * @returns a descriptor, whose closing unlocks; 'busy' if another process has
 * the lock; undefined where there can be none, as the folder may not be read
 */
export function lockFolder(folder: string): number | 'busy' | undefined {
  try {
    const fd = openSync(folder, fs.O_RDONLY | fs.O_DIRECTORY)
    const result = flock(fd, LOCK_EX_NB)
    if (result >= 0) return fd
    closeSync(fd)
    return result === -EAGAIN ? 'busy' : undefined
  } catch {
    return undefined
  }
}

/** Removes the socket file `file`, unless another is at the path by now. */
export function removeIfSame(path: string, file: Stats): void {
  if (isSame(lstatAt(path), file)) unlinkSync(path)
}

/** Whether two looks at a path found the same file. */
export function isSame(one: Stats | undefined, other: Stats | undefined) {
  // A number of a removed file (st_ino) may be given to the next at once.
  return (
    one !== undefined &&
    one.dev === other?.dev &&
    one.ino === other.ino &&
    one.birthtimeMs === other.birthtimeMs
  )
}

/** Nothing for a path where nothing is, and for a name that is no path. */
export function lstatAt(path: string): Stats | undefined {
  if (isAbstract(path)) return undefined
  return lstatSync(path, { throwIfNoEntry: false })
}

// Listening at a path. The file of a Unix socket outlives the server that made
// it: so it is made with the right mode, told from one that a dead server left,
// and removed in the end; and of servers that start at the same time exactly
// one gets the path, and everyone reaches it. Nothing but a socket that refuses
// connections is ever removed. Open bind(2), listen(2), unix(7), flock(2) and
// umask(2) beside it.
// Read next: lib/index.ts.

import {
  closeSync,
  constants as fs,
  lstatSync,
  openSync,
  type Stats,
  unlinkSync,
} from 'node:fs'
import { constants } from 'node:os'
import { dirname, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { check, declare, systemError } from '../libc.ts'
import { peerCredentials } from '../socket/options.ts'
import { isAbstract } from '../socket/sockaddr.ts'
import {
  bindTo,
  closeFd,
  connectTo,
  listenOn,
  newSocket,
  type SocketOptions,
  type SocketType,
} from '../socket/unix.ts'

// int fchmod(int fd, mode_t mode)
const fchmod = declare('fchmod', 'int', ['int', 'uint'])
// mode_t umask(mode_t mask)
const umask = declare('umask', 'int', ['uint'])
// int flock(int fd, int operation)
const flock = declare('flock', 'int', ['int', 'int'])

const { EAGAIN, EADDRINUSE, ECONNREFUSED, ENOENT, EPROTOTYPE } = constants.errno
const LOCK_EX_NB = 2 | 4 // LOCK_EX | LOCK_NB on every platform

/** What group and others may do, out of a mode. */
const FOR_OTHERS = 0o077

/** Of a listening Unix socket and its file. */
export type BindOptions = {
  /** Connections that may wait to be accepted. Default: 511. */
  readonly backlog?: number
  /**
   * Of the socket file. Default: 0o600, the owner alone. A mode for others sets
   * umask(2), which all threads of the process share, for the moment of
   * bind(2). An abstract name has no mode: whoever is in the same network
   * namespace can connect.
   */
  readonly mode?: number
}

/**
 * How long a socket must refuse to be taken for a dead server's, in ms: one
 * that has called bind(2) and not yet listen(2) refuses too.
 */
const REFUSES_FOR = 200

/** At most so many looks at a path that always holds another such socket. */
const MAX_LOOKS = 5

/**
 * How long to wait for a folder's lock, in ms. Whoever may read the folder can
 * hold it: then the server starts without.
 */
const LOCK_TIMEOUT = 2000
const LOCK_RETRY_DELAY = 5

/** The file of a listening socket, told from others that take its place. */
export class SocketFile {
  /** Absolute, as the working directory may change. */
  readonly path: string
  readonly #stats: Stats

  constructor(path: string, stats: Stats) {
    this.path = resolve(path)
    this.#stats = stats
  }

  /** Whether it is at its path still, and a socket. */
  isHere(): boolean {
    return this.#stats.isSocket() && isSame(lstatAt(this.path), this.#stats)
  }

  /**
   * Removes it, unless another is at the path by now. Never throws.
   *
   * @returns why it stays: EACCES, EPERM, EROFS, EIO
   */
  remove(): Error | undefined {
    try {
      if (isSame(lstatAt(this.path), this.#stats)) unlinkSync(this.path)
      return undefined
    } catch (error) {
      return error as Error
    }
  }
}

/** The socket file at `path`; undefined for a name, and where nothing is. */
export function socketFileAt(path: string): SocketFile | undefined {
  const stats = lstatAt(path)
  return stats && new SocketFile(path, stats)
}

/**
 * socket(2), bind(2), listen(2). The caller owns the descriptor, which is
 * close-on-exec and non-blocking, and the socket file, if there is one.
 *
 * @param path of the socket file; on Linux `'\0name'` for an abstract name
 * @throws Error EADDRINUSE, with the `pid` of the server that has the path, or
 * saying that the path is not a socket; EACCES; ENOENT; ENAMETOOLONG
 * @throws RangeError for `backlog` or `mode`
 */
export async function listenAt(
  path: string,
  type: SocketType,
  options: BindOptions & Omit<SocketOptions, 'type'> = {},
): Promise<{ fd: number; file: SocketFile | undefined }> {
  const { backlog = 511, mode = 0o600 } = options
  checkRange('backlog', backlog, 0x7fffffff)
  checkRange('mode', mode, 0o777)
  const fd = newSocket(type, options)
  const place = { fd, path, type, backlog, mode }
  try {
    if (!isAbstract(path)) return { fd, file: await listenAtPath(place) }
    listenAtName(place)
    return { fd, file: undefined }
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

/** Which socket is to listen, and where. */
type Place = {
  readonly fd: number
  readonly path: string
  readonly type: SocketType
  readonly backlog: number
  readonly mode: number
}

// An abstract name ends with its server, so it is never stale.
function listenAtName(place: Place): void {
  const { fd, path } = place
  const result = bindTo(fd, path)
  if (result === -EADDRINUSE) refusingFile(place)
  check('bind', result, path)
  check('listen', startToListen(place), path)
}

// Datagrams arrive as soon as the socket is bound.
function startToListen({ fd, type, backlog }: Place): number {
  return type === 'datagram' ? 0 : listenOn(fd, backlog)
}

async function listenAtPath(place: Place): Promise<SocketFile> {
  const { path } = place
  let stale: Stats | undefined
  for (let look = 0; look < MAX_LOOKS; look++) {
    const found = await withFolderLock(dirname(path), () => {
      return tryToListen(place, stale)
    })
    if (found instanceof SocketFile) return found
    stale = found
    await sleep(REFUSES_FOR)
  }
  throw systemError('bind', -EADDRINUSE, `${path}: it changes all the time`)
}

// Listens, or returns the file of a socket that refuses, if it is not `stale`:
// the one that refused at the last look already.
function tryToListen(
  place: Place,
  stale: Stats | undefined,
): SocketFile | Stats {
  const { fd, path, mode } = place
  let result = bindFile(fd, path, mode)
  if (result === -EADDRINUSE) {
    const found = refusingFile(place)
    if (found && !isSame(found, stale)) return found
    if (found) unlinkSync(path)
    result = bindFile(fd, path, mode)
  }
  check('bind', result, path)
  const file = socketFileAt(path)
  const listening = startToListen(place)
  if (listening < 0) file?.remove()
  check('listen', listening, path)
  // If the lock could not be had, or another program does not use it, another
  // server may have taken our file for stale until now, when it answers.
  if (!file?.isHere()) {
    throw systemError('listen', -EADDRINUSE, `${path}: replaced by another`)
  }
  return file
}

// bind(2): 0 or -errno. The file has `mode` from the moment it exists. A
// chmod(2) of the path could not do that, and would follow a link that another
// user put there meanwhile.
function bindFile(fd: number, path: string, mode: number): number {
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

// What makes bind(2) say EADDRINUSE: the socket file, if it refuses
// connections; undefined if there is nothing. Throws EADDRINUSE, with the `pid`
// of the server that has the path, or saying that what is there is no socket;
// EPROTOTYPE for one of another type.
function refusingFile({ path, type }: Place): Stats | undefined {
  const found = lstatAt(path)
  if (found && !found.isSocket()) {
    throw systemError('bind', -EADDRINUSE, `${path}: exists, and is no socket`)
  }
  const fd = newSocket(type)
  try {
    const result = connectTo(fd, path)
    // A live server, even if its backlog is full; then it cannot say its pid.
    if (result === 0) throw occupied(path, listenerOf(fd, type))
    if (result === -EAGAIN) throw occupied(path)
    if (result !== -ECONNREFUSED && result !== -ENOENT) {
      const why = `${path}: a socket of another type than ${type} is there`
      check('connect', result, result === -EPROTOTYPE ? why : path)
    }
  } finally {
    closeFd(fd)
  }
  return found
}

// Of a socket of datagrams the kernel does not tell.
function listenerOf(fd: number, type: SocketType): number | undefined {
  return type === 'datagram' ? undefined : peerCredentials(fd).pid
}

function occupied(path: string, pid?: number): Error {
  const who = pid === undefined ? 'a server' : `process ${pid}`
  const message = `${path}: ${who} is listening there`
  return Object.assign(systemError('bind', -EADDRINUSE, message), { pid })
}

// The action is not asynchronous, so the lock is never held for long.
async function withFolderLock<T>(folder: string, action: () => T): Promise<T> {
  const end = performance.now() + LOCK_TIMEOUT
  let lock = lockFolder(folder)
  while (lock === 'busy' && performance.now() < end) {
    await sleep(LOCK_RETRY_DELAY)
    lock = lockFolder(folder)
  }
  try {
    return action()
  } finally {
    if (typeof lock === 'number') closeSync(lock)
  }
}

// flock(2) of a folder, without waiting: two servers must not look at its files
// and change them at the same time. Returns a descriptor, whose closing
// unlocks; 'busy' if another process has the lock; undefined where there can be
// none, as the folder may not be read.
function lockFolder(folder: string): number | 'busy' | undefined {
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

// Whether two looks at a path found the same file.
function isSame(one: Stats | undefined, other: Stats | undefined): boolean {
  // A number of a removed file (st_ino) may be given to the next at once.
  return (
    one !== undefined &&
    one.dev === other?.dev &&
    one.ino === other.ino &&
    one.birthtimeMs === other.birthtimeMs
  )
}

// Nothing for a path where nothing is, and for a name that is no path.
function lstatAt(path: string): Stats | undefined {
  if (isAbstract(path)) return undefined
  return lstatSync(path, { throwIfNoEntry: false })
}

function checkRange(name: string, value: number, most: number): void {
  if (!Number.isInteger(value) || value < 0 || value > most) {
    throw new RangeError(
      `Expected ${name} as an integer from 0 to ${most}, got ${value}`,
    )
  }
}

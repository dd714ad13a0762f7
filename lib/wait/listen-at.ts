// Listening at a path where a server that died may have left its file, and
// where other servers may start at the same time: exactly one of them gets the
// path, and everyone reaches it. Open bind(2), listen(2) and unix(7) beside it.
// Read next: lib/index.ts.

import { closeSync, type Stats, unlinkSync } from 'node:fs'
import { constants } from 'node:os'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { check, systemError } from '../libc.ts'
import {
  bindFile,
  isSame,
  lockFolder,
  lstatAt,
  refusingFile,
  removeIfSame,
} from '../socket/file.ts'
import { refuseDescriptors } from '../socket/options.ts'
import { isAbstract } from '../socket/sockaddr.ts'
import { bindTo, closeFd, listenOn, newSocket } from '../socket/unix.ts'

/** Of a listening Unix socket and its file. */
export type BindOptions = {
  /** Connections that may wait to be accepted: 511 unless given. */
  readonly backlog?: number
  /** Of the socket file: 0o600, the owner alone, unless given. A mode for
   * others sets umask(2), which all threads of the process share, for the
   * moment of bind(2). */
  readonly mode?: number
  /** Has the kernel refuse descriptors that clients send: they get EPERM
   * (Linux 6.16 and later; elsewhere nothing changes). */
  readonly refuseFds?: boolean
}

/** How long a socket must refuse to be taken for a dead server's, in ms: one
 * that has called bind(2) and not yet listen(2) refuses too. */
const REFUSES_FOR = 200
/** Looks at a path that always holds another refusing socket. */
const LOOKS = 5

/** How long to wait for a folder's lock, in ms. Whoever may read the folder can
 * hold it: then the server starts without. */
const LOCK_TIMEOUT = 2000
const LOCK_RETRY_DELAY = 5

const { EADDRINUSE } = constants.errno

/**
 * socket(2), bind(2), listen(2). The caller owns the descriptor, which is
 * close-on-exec and non-blocking, and the socket file.
 *
 * @param path of the socket file; on Linux `'\0name'` for an abstract name
 * @throws Error EADDRINUSE, with the `pid` of the server that has the path, or
 * saying that the path is not a socket; EACCES; ENOENT; ENAMETOOLONG
 * @throws RangeError for `backlog` or `mode`
 */
export async function listenAt(
  path: string,
  options: BindOptions = {},
): Promise<number> {
  const { backlog = 511, mode = 0o600 } = options
  checkRange('backlog', backlog, 0x7fffffff)
  checkRange('mode', mode, 0o777)
  const fd = newSocket()
  try {
    if (options.refuseFds) refuseDescriptors(fd)
    if (isAbstract(path)) listenAtName(fd, path, backlog)
    else await listenAtFile(fd, path, backlog, mode)
    return fd
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

// An abstract name ends with its server, so it is never stale.
function listenAtName(fd: number, name: string, backlog: number): void {
  const result = bindTo(fd, name)
  if (result === -EADDRINUSE) refusingFile(name)
  check('bind', result, name)
  check('listen', listenOn(fd, backlog), name)
}

async function listenAtFile(
  fd: number,
  path: string,
  backlog: number,
  mode: number,
): Promise<void> {
  let stale: Stats | undefined
  for (let look = 0; look < LOOKS; look++) {
    stale = await withFolderLock(dirname(path), () => {
      return tryToListen(fd, path, backlog, mode, stale)
    })
    if (stale === undefined) return
    await sleep(REFUSES_FOR)
  }
  throw systemError('bind', -EADDRINUSE, `${path}: it changes all the time`)
}

// Listens, or returns the file of a socket that refuses, if it is not `stale`:
// the one that refused at the last look already.
function tryToListen(
  fd: number,
  path: string,
  backlog: number,
  mode: number,
  stale: Stats | undefined,
): Stats | undefined {
  let result = bindFile(fd, path, mode)
  if (result === -EADDRINUSE) {
    const found = refusingFile(path)
    if (found && !isSame(found, stale)) return found
    if (found) unlinkSync(path)
    result = bindFile(fd, path, mode)
  }
  check('bind', result, path)
  const file = lstatAt(path)
  const listening = listenOn(fd, backlog)
  if (listening < 0 && file) removeIfSame(path, file)
  check('listen', listening, path)
  // If the lock could not be had, or another program does not use it, another
  // server may have taken our file for stale until now, when it answers.
  if (!file?.isSocket() || !isSame(lstatAt(path), file)) {
    throw systemError('listen', -EADDRINUSE, `${path}: replaced by another`)
  }
  return undefined
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

function checkRange(name: string, value: number, most: number): void {
  if (!Number.isInteger(value) || value < 0 || value > most) {
    throw new RangeError(
      `Expected ${name} as an integer from 0 to ${most}, got ${value}`,
    )
  }
}

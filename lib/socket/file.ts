// The file of a Unix socket, which outlives the server that made it. A file
// left over by a server that died is removed, one that a live server answers
// on never is, and nothing but a socket is ever.

import { closeSync, lstatSync, type Stats, unlinkSync } from 'node:fs'
import { constants } from 'node:os'

import { check, systemError } from '../libc.ts'
import { connectTo, isAbstract, newSocket, peerCredentials } from './unix.ts'

const { EAGAIN, EADDRINUSE, ECONNREFUSED } = constants.errno

/**
 * Makes way for a server that found something at its path.
 *
 * @throws Error EADDRINUSE, with the `pid` of the server that has the path, or
 * saying that what is there is no socket
 */
export function removeStale(path: string): void {
  // Simplification: two servers that find the same stale file in the same
  // instant can still take it from each other. A lock file would prevent it.
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
    if (result !== -ECONNREFUSED) check('connect', result, path)
  } finally {
    closeSync(fd)
  }
  if (found) removeIfSame(path, found)
}

function occupied(path: string, pid?: number): Error {
  const who = pid === undefined ? 'a server' : `process ${pid}`
  const message = `${path}: ${who} is listening there`
  return Object.assign(systemError('bind', -EADDRINUSE, message), { pid })
}

/** Removes the socket file `file`, unless another is at the path by now. */
export function removeIfSame(path: string, file: Stats): void {
  const found = lstatAt(path)
  if (found?.dev === file.dev && found.ino === file.ino) unlinkSync(path)
}

/** Nothing for a path where nothing is, and for a name that is no path. */
export function lstatAt(path: string): Stats | undefined {
  if (isAbstract(path)) return undefined
  return lstatSync(path, { throwIfNoEntry: false })
}

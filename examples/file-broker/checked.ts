// Opening a file of a directory for somebody else, and looking at what was
// opened. The only order that works:
//
//    check the path, then open it    somebody swaps the file in between, and
//                                    what is opened was never checked
//    open the path, then check the   what is checked is what is given away,
//    descriptor                      whatever happens to the path meanwhile
//
// So nothing here looks at a file before it is open, and opening must do no
// harm: not wait for a FIFO, not follow a link. Open open(2), fstat(2), fifo(7)
// and path_resolution(7) beside it.

import { constants, type Stats } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'

export type Limits = {
  /** In bytes. */
  readonly maxSize: number
  /** Since the last change, in seconds. */
  readonly maxAge: number
}

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants

/**
 * Opens a directory once, for all that is to be opened in it later.
 *
 * @returns its descriptor, which the caller owns, and the path to look names
 * up in. On Linux that is the open directory itself, wherever it is moved and
 * whatever comes in its place. Elsewhere it is `path`, as it is at that time:
 * who may replace a part of it, by a link for instance, has to be trusted
 */
export async function openDirectory(
  path: string,
): Promise<{ handle: FileHandle; base: string }> {
  const handle = await open(path, O_RDONLY | O_DIRECTORY)
  const isLinux = process.platform === 'linux'
  return { handle, base: isLinux ? `/proc/self/fd/${handle.fd}` : path }
}

/**
 * Opens the file `name` in the directory `base`, read-only. That is a property
 * of the open file description: nobody who gets the descriptor can change it.
 *
 * @returns the file, which the caller owns, and its size in bytes
 * @throws Error ELOOP for a symbolic link; ENOENT, EACCES, ENXIO; without a
 * code if it is open but not to be given away. Then it is closed again
 */
export async function openChecked(
  base: string,
  name: unknown,
  limits: Limits,
): Promise<{ file: FileHandle; size: number }> {
  // One component: a link or ".." can stand nowhere but at its end.
  if (typeof name !== 'string' || !isComponent(name))
    throw new Error('Expected the name of a file, without "/"')
  // O_NOFOLLOW: the end is no link either. O_NONBLOCK: a FIFO opens at once, to
  // be refused, instead of holding a thread of ours until somebody writes to
  // it. O_NOCTTY: a terminal does not become this process's own.
  const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY
  const file = await open(join(base, name), flags)
  try {
    const stats = await file.stat() // fstat(2), not stat(2)
    const objection = objectionTo(stats, limits)
    if (objection !== undefined) throw new Error(objection)
    return { file, size: stats.size }
  } catch (error) {
    await file.close()
    throw error
  }
}

function isComponent(name: string): boolean {
  const isDots = name === '.' || name === '..'
  return name !== '' && !isDots && !name.includes('/') && !name.includes('\0')
}

function objectionTo(stats: Stats, limits: Limits): string | undefined {
  if (!stats.isFile()) return 'Expected a regular file'
  // A hard link is no link that could be noticed by its name: who may write in
  // this directory could bring in a file that only the broker can read.
  if (stats.nlink !== 1)
    return `Expected a file of one name, got ${stats.nlink}`
  // Who gets the descriptor can open the file anew through /proc/self/fd. Then
  // the file's own mode decides, and no directory is in the way.
  if (stats.mode & 0o002) return 'Expected a file that others cannot write to'
  const { maxSize, maxAge } = limits
  if (stats.size > maxSize)
    return `Expected at most ${maxSize} bytes, got ${stats.size}`
  const age = Math.floor((Date.now() - stats.mtimeMs) / 1000)
  if (age > maxAge) return `Expected an age of at most ${maxAge} s, got ${age}`
  return undefined
}

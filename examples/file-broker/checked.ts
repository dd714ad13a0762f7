// Opening a file of a directory for another user, and checking what was opened.
// The only order that works is the second:
//
//    check the path, then open it    another user replaces the file in between,
//                                    and what is opened was never checked
//    open the path, then check the   what is checked is what is given away,
//    descriptor                      whatever happens to the path meanwhile
//
// Opening must do no harm either: a FIFO that is opened to be refused wakes its
// writer, who then gets EPIPE. So the path is opened with O_PATH, which finds
// the file and touches nothing, and only a file that has passed is opened for
// reading, through /proc/self/fd. Open open(2), fstat(2), fifo(7) and
// path_resolution(7) beside it.

import { constants, type Stats } from 'node:fs'
import { type FileHandle, lstat, open } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

export type Limits = {
  /** In bytes. */
  readonly maxSize: number
  /** Since the last change, in seconds. */
  readonly maxAge: number
}

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants

const isLinux = process.platform === 'linux'

/** <asm-generic/fcntl.h>; Node does not know it. */
const O_PATH = 0o10000000

/** More than the kernel's clock for ctime may be behind Date.now(), in ms. */
const CLOCK_TICK = 50

/** How often a file is looked at while it is being changed. */
const LOOKS = 3

export type Folder = {
  readonly handle: FileHandle
  /** To look names up in. */
  readonly base: string
}

/**
 * Opens a directory once, for all that is to be opened in it later.
 *
 * @returns its descriptor, which the caller owns, and the path to look names
 * up in. On Linux that is the open directory itself, wherever it is moved and
 * whatever comes in its place. Elsewhere it is `path`, as it is at that time:
 * who may replace a part of it, by a link for instance, has to be trusted
 */
export async function openDirectory(path: string): Promise<Folder> {
  const handle = await open(path, O_RDONLY | O_DIRECTORY)
  return { handle, base: isLinux ? procPath(handle) : path }
}

/**
 * Opens the file `name` of a directory, read-only. That is a property
 * of the open file description, so a client cannot change it.
 * A client that may write to the file could open it anew through
 * /proc/self/fd, so such files are refused.
 *
 * @returns the file, which the caller owns, and its size in bytes
 * @throws Error ELOOP for a symbolic link; ENOENT, EACCES, ENXIO; without a
 * code if it is open but not to be given away. Then it is closed again
 */
export async function openChecked(
  folder: Folder,
  name: unknown,
  limits: Limits,
): Promise<{ file: FileHandle; size: number }> {
  const { file, size } = await find(folder, name, limits)
  if (!isLinux) return { file, size }
  try {
    // The same file, whatever DIR/NAME is by now.
    return { file: await open(procPath(file), O_RDONLY | O_NOCTTY), size }
  } finally {
    await file.close()
  }
}

/**
 * The size of a file that openChecked() would open, if it stays as it is.
 * Opens nothing.
 *
 * @throws Error as openChecked()
 */
export async function sizeOf(
  folder: Folder,
  name: string,
  limits: Limits,
): Promise<number> {
  const stats = await lstat(join(folder.base, name))
  const objection = objectionTo(stats, limits)
  if (objection !== undefined) throw new Error(objection)
  return stats.size
}

// The file, with O_PATH where there is that.
async function find(
  folder: Folder,
  name: unknown,
  limits: Limits,
): Promise<{ file: FileHandle; size: number }> {
  // One component: a link or ".." can stand nowhere but at its end.
  if (typeof name !== 'string' || !isComponent(name))
    throw new Error('Expected the name of a file, without "/"')
  const path = join(folder.base, name)
  const file = await openHarmlessly(path)
  try {
    for (let look = 1; ; look++) {
      const began = Date.now()
      const objection = objectionTo(await file.stat(), limits) // fstat(2)
      if (objection !== undefined) throw new Error(objection)
      // A user may link another user's file as DIR/NAME and remove that link
      // when it is open here: then it has one name, which is not in DIR. So is
      // the file still there? And as links may come and go between any two of
      // these calls: is its ctime, which shows that, older than all of them?
      const there = await lstat(path)
      const stats = await file.stat()
      if (there.dev !== stats.dev || there.ino !== stats.ino)
        throw new Error('Expected a file that stays where it is')
      if (stats.ctimeMs < began - CLOCK_TICK) return { file, size: stats.size }
      if (look === LOOKS) throw new Error('Expected a file at rest')
      await sleep(2 * CLOCK_TICK)
    }
  } catch (error) {
    await file.close()
    throw error
  }
}

// O_NOFOLLOW: no link at the end of the path. With O_PATH the link itself would
// be opened, and refused as no regular file. O_NONBLOCK: a FIFO opens at once.
// O_NOCTTY: a terminal does not become this process's own.
//
// Simplification: without O_PATH and /proc (macOS, the BSDs) a FIFO is passed
// over only if it is one before it is opened, and may be put there after that.
async function openHarmlessly(path: string): Promise<FileHandle> {
  if (isLinux) {
    const file = await open(path, O_PATH | O_NOFOLLOW)
    const isLink = (await file.stat()).isSymbolicLink()
    if (!isLink) return file
    await file.close()
    throw Object.assign(new Error('ELOOP'), { code: 'ELOOP' })
  }
  if ((await lstat(path)).isFIFO()) throw new Error('Expected a regular file')
  return open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)
}

function procPath(file: FileHandle): string {
  return `/proc/self/fd/${file.fd}`
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
  // A client can open the file anew through /proc/self/fd. Then
  // the file's own mode decides, and no directory is in the way. The bits of
  // the group are also the most that an access control list grants (acl(5)).
  if (!isOurs(stats)) {
    const mode = (stats.mode & 0o7777).toString(8)
    return (
      'Expected a file that only its owner can write, who is root or this ' +
      `server's user, got one of uid ${stats.uid} with mode ${mode}`
    )
  }
  const { maxSize, maxAge } = limits
  if (stats.size > maxSize)
    return `Expected at most ${maxSize} bytes, got ${stats.size}`
  const age = Math.floor((Date.now() - stats.mtimeMs) / 1000)
  if (age > maxAge) return `Expected an age of at most ${maxAge} s, got ${age}`
  return undefined
}

// Whether only this process's user, and root, can write to the file.
function isOurs({ mode, uid }: Stats): boolean {
  return (mode & 0o022) === 0 && (uid === 0 || uid === process.geteuid?.())
}

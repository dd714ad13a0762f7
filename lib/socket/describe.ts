// What a descriptor is: the kind of file behind it, as fstat(2) and isatty(3)
// tell, and what it was opened for, as fcntl(2) tells.
// Read next: lib/socket/readable.ts.

import { constants, fstatSync, type Stats } from 'node:fs'
import { isatty } from 'node:tty'

import { host } from '../layouts.ts'
import { check, declare } from '../libc.ts'

// int fcntl(int fd, int command, ...)
const fcntl = declare('fcntl', 'int', ['int', 'int'])

/** From st_mode, see inode(7), and isatty(3). */
export type FdKind =
  | 'terminal'
  | 'pipe'
  | 'socket'
  | 'file'
  | 'directory'
  | 'character device'
  | 'block device'
  | 'other'

/** What describeFd() finds. */
export type FdDescription = {
  readonly kind: FdKind
  /** As it was opened: O_RDONLY, O_WRONLY, O_RDWR; 'none' is O_PATH. */
  readonly access: 'read' | 'write' | 'read-write' | 'none'
}

const { O_RDONLY, O_WRONLY } = constants
const O_ACCMODE = 3 // on every platform, and nowhere in Node
const O_PATH = 0o10000000 // Linux, <asm-generic/fcntl.h>

/**
 * What a descriptor refers to, and what may be done with it.
 *
 * @throws Error EBADF
 * @see fstat(2), isatty(3), F_GETFL in fcntl(2)
 */
export function describeFd(fd: number): FdDescription {
  const stats = fstatSync(fd)
  const flags = check('fcntl', fcntl(fd, host.constants.F_GETFL))
  return { kind: kindOf(fd, stats), access: accessOf(flags) }
}

function accessOf(flags: number): FdDescription['access'] {
  if (process.platform === 'linux' && flags & O_PATH) return 'none'
  const mode = flags & O_ACCMODE
  if (mode === O_RDONLY) return 'read'
  return mode === O_WRONLY ? 'write' : 'read-write'
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

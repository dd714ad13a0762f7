// What a descriptor is: the kind of file behind it, and what it was opened for.
// Asked in a way in which nobody else has to answer: the owner of a FUSE file
// system could let fstat(2), or an ioctl(2) on one of its files, wait for ever.
// Read next: lib/socket/inet.ts.

import { constants, fstatSync } from 'node:fs'
import { constants as os } from 'node:os'
import { isatty } from 'node:tty'

import { host } from '../layouts.ts'
import { allocate, check, declareOptional } from '../libc.ts'
import { fcntl } from './calls.ts'
import { checkFd } from './options.ts'

// int statx(int dirfd, const char *path, int flags, unsigned mask,
//           struct statx *buf)
const statx = declareOptional('statx', 'int', [
  'int',
  'pointer',
  'int',
  'uint',
  'pointer',
])

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

const AT_EMPTY_PATH = 0x1000 // the descriptor itself, <linux/fcntl.h>
/** What the kernel remembers, without asking the file's server. */
const AT_STATX_DONT_SYNC = 0x4000
const STATX_TYPE = 1
/** struct statx in statx(2): its size, and where stx_mode lies, 16 bits. */
const STATX = { size: 256, stx_mode: 28 }

const isLinux = process.platform === 'linux'

/** An empty path, and a struct statx. */
const path = allocate(1)
const found = allocate(STATX.size)

/**
 * What a descriptor refers to, and what may be done with it.
 *
 * @throws RangeError for what is no descriptor; Error EBADF
 * @see statx(2), isatty(3), F_GETFL in fcntl(2)
 */
export function describeFd(fd: number): FdDescription {
  const flags = check('fcntl', fcntl(checkFd(fd), host.constants.F_GETFL, 0))
  return { kind: kindOf(fd), access: accessOf(flags) }
}

function accessOf(flags: number): FdDescription['access'] {
  if (isLinux && flags & O_PATH) return 'none'
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

function kindOf(fd: number): FdKind {
  const kind = kinds.get(modeOf(fd) & constants.S_IFMT) ?? 'other'
  return kind === 'character device' && isatty(fd) ? 'terminal' : kind
}

// musl has statx from 1.2.5 on. A filter of system calls (seccomp(2)) that does
// not know it says EPERM.
function modeOf(fd: number): number {
  if (!isLinux) return fstatSync(fd).mode
  const flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC
  const result = statx(fd, path.address, flags, STATX_TYPE, found.address)
  if (isMissing(result)) return fstatSync(fd).mode
  check('statx', result)
  return found.bytes.readUInt16LE(STATX.stx_mode)
}

function isMissing(result: number): boolean {
  return result === -os.errno.ENOSYS || result === -os.errno.EPERM
}

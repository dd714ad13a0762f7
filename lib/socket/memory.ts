// Descriptors that programs like to pass, and for which Node has no call: memory
// that is a file (memfd_create(2)), and pipes (pipe(2)).
// Read next: lib/socket/c-library.ts.

import { ftruncateSync } from 'node:fs'

import { allocate, check, declareOptional, systemError } from '../libc.ts'
import { fcntl, O_CLOEXEC, value } from './calls.ts'
import { closeFd, setCloseOnExec } from './unix.ts'

// int memfd_create(const char *name, unsigned flags)
const memfd_create = declareOptional('memfd_create', 'int', ['pointer', 'uint'])
// int pipe(int fds[2])
const pipeCall = declareOptional('pipe', 'int', ['pointer'])
// int pipe2(int fds[2], int flags)
const pipe2 = declareOptional('pipe2', 'int', ['pointer', 'int'])

const MFD_CLOEXEC = 1 // <linux/memfd.h>
const MFD_ALLOW_SEALING = 2
const F_ADD_SEALS = 1033 // <linux/fcntl.h>
const seals = { seal: 1, shrink: 2, grow: 4, write: 8 }

/** The longest name, in bytes: see memfd_create(2). */
const MAX_NAME = 249

const isLinux = process.platform === 'linux'

/** Of memfd(). */
export type MemfdOptions = {
  /** In bytes, zeroed. Default: 0. */
  readonly size?: number
  /**
   * What nobody may do from then on, whoever has the descriptor: 'seal' is to
   * add another. Default: none.
   */
  readonly seal?: readonly ('shrink' | 'grow' | 'write' | 'seal')[]
}

/**
 * memfd_create(2): a file without a path, in memory, which lives as long as a
 * descriptor of it is open. The caller owns the descriptor, which is
 * close-on-exec, and to be written to with fs.writeSync. Linux only.
 *
 * @param name what /proc shows
 * @throws RangeError for a name that is too long, or a size; Error ENOSYS on
 * other systems; EMFILE; ENOMEM
 * @see memfd_create(2), F_ADD_SEALS in fcntl(2)
 * @example
 * const fd = memfd('picture', { size: 4096, seal: ['shrink', 'grow'] })
 */
export function memfd(name: string, options: MemfdOptions = {}): number {
  const { size = 0, seal = [] } = options
  const bytes = Buffer.from(name)
  if (bytes.length > MAX_NAME || bytes.includes(0)) {
    throw new RangeError(
      `Expected a name of at most ${MAX_NAME} bytes, got ${bytes.length}`,
    )
  }
  if (!Number.isSafeInteger(size) || size < 0) {
    throw new RangeError(`Expected size as an integer from 0, got ${size}`)
  }
  const wanted = seal.reduce((sum, one) => sum | sealNumber(one), 0)
  const path = allocate(bytes.length + 1)
  path.bytes.set(bytes)
  const flags = MFD_CLOEXEC | MFD_ALLOW_SEALING
  const fd = check('memfd_create', memfd_create(path.address, flags))
  try {
    if (size > 0) ftruncateSync(fd, size)
    if (wanted !== 0) check('fcntl', fcntl(fd, F_ADD_SEALS, wanted))
    return fd
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

function sealNumber(name: keyof typeof seals): number {
  const number = seals[name]
  if (number !== undefined) return number
  const known = Object.keys(seals).join(', ')
  throw new RangeError(`Expected seals of ${known}, got ${String(name)}`)
}

/**
 * pipe(2): what is written to `write` can be read from `read`. The caller owns
 * both descriptors, which are blocking and close-on-exec.
 *
 * @throws Error EMFILE, ENFILE
 * @see pipe(2)
 */
export function pipe(): { read: number; write: number } {
  const made = isLinux
    ? pipe2(value.address, O_CLOEXEC)
    : pipeCall(value.address)
  if (made < 0) throw systemError('pipe', made)
  const read = value.bytes.readInt32LE(0)
  const write = value.bytes.readInt32LE(4)
  if (!isLinux) {
    setCloseOnExec(read)
    setCloseOnExec(write)
  }
  return { read, write }
}

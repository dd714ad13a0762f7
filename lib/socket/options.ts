// Options of a socket, read and set (getsockopt(2), setsockopt(2)), its name
// (getsockname(2)), and how many descriptors the process may have
// (getrlimit(2)). Open socket(7) and unix(7) beside it.
// Read next: lib/socket/peer.ts.

import { Buffer } from 'node:buffer'
import { constants } from 'node:os'

import { type Abi, host } from '../layouts.ts'
import { allocate, check, declare, systemError } from '../libc.ts'

// int getsockname(int fd, struct sockaddr *addr, socklen_t *addrlen)
const getsockname = declare('getsockname', 'int', ['int', 'pointer', 'pointer'])
// int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
const getsockopt = declare('getsockopt', 'int', [
  'int',
  'int',
  'int',
  'pointer',
  'pointer',
])
// int setsockopt(int fd, int level, int name, const void *value,
//                socklen_t len)
const setsockopt = declare('setsockopt', 'int', [
  'int',
  'int',
  'int',
  'pointer',
  'uint',
])
// int getrlimit(int resource, struct rlimit *limit)
const getrlimit = declare('getrlimit', 'int', ['int', 'pointer'])

/** struct ucred in unix(7). */
export type Credentials = {
  /** 0 where the kernel does not tell. */
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

const { AF_UNIX, SOCK_STREAM, SOL_SOCKET } = host.constants
const { SO_LINGER, SO_PEEK_OFF, SO_TYPE } = host.constants
const SO_PASSRIGHTS = 83 // Linux 6.16, <asm-generic/socket.h>
/** struct linger: int l_onoff, int l_linger. */
const LINGER_SIZE = 8

/** Values that are passed by address: an option or a name, and its length. */
const value = allocate(128)
const length = allocate(4)

/** The value of an option of `size` bytes: a copy, which stays as it is. */
function getOption(
  fd: number,
  level: number,
  option: number,
  size: number,
): Buffer {
  value.bytes.fill(0)
  length.bytes.writeUInt32LE(size)
  const { address } = value
  const result = getsockopt(fd, level, option, address, length.address)
  check('getsockopt', result)
  return Buffer.from(value.bytes.subarray(0, size))
}

/** Whether C gets this number as it is: it would take NaN, say, for 0. */
export function isInt(fd: number): boolean {
  return (fd | 0) === fd
}

/**
 * `fd`, which need not be open.
 *
 * @throws RangeError for what C would take for another descriptor
 */
export function checkFd(fd: number): number {
  if (isInt(fd)) return fd
  throw new RangeError(`Expected a file descriptor, got ${String(fd)}`)
}

/**
 * Checks that `fd` is an AF_UNIX stream socket.
 *
 * @throws RangeError for what is no descriptor
 * @throws Error EBADF, ENOTSOCK, or EPROTOTYPE for any other kind of socket
 */
export function checkUnixStream(fd: number): void {
  checkFd(fd)
  const type = getOption(fd, SOL_SOCKET, SO_TYPE, 4).readInt32LE(0)
  length.bytes.writeUInt32LE(value.bytes.length)
  const named = getsockname(fd, value.address, length.address)
  check('getsockname', named)
  const family = value.bytes[host.sockaddr_un.sun_family]
  if (family !== AF_UNIX || type !== SOCK_STREAM) {
    throw systemError(
      family === AF_UNIX ? 'getsockopt' : 'getsockname',
      -constants.errno.EPROTOTYPE,
      `descriptor ${fd}: expected an AF_UNIX stream socket (family ` +
        `${AF_UNIX}, type ${SOCK_STREAM}), got family ${family}, type ${type}`,
    )
  }
}

/**
 * Who connected, listened or made the pair at the other end, as the kernel
 * noted it then (SO_PEERCRED in unix(7); LOCAL_PEERCRED in unix(4)).
 */
export function peerCredentials(fd: number): Credentials {
  const { peercred } = host
  return readCredentials(peercred, (option, size) => {
    return getOption(fd, peercred.level, option, size)
  })
}

/** Credentials as a platform tells them: in one option, or in two. */
export function readCredentials(
  { option, size, uid, gid, pid }: Abi['peercred'],
  ask: (option: number, size: number) => Buffer,
): Credentials {
  const found = ask(option, size)
  return {
    pid:
      'offset' in pid
        ? found.readInt32LE(pid.offset)
        : ask(pid.option, 4).readInt32LE(0),
    uid: found.readUInt32LE(uid),
    gid: found.readUInt32LE(gid),
  }
}

/**
 * Has the kernel refuse descriptors that are sent to this socket, and to those
 * that are accepted from it: the sender's call fails with EPERM (SO_PASSRIGHTS,
 * Linux 6.16). Where the kernel does not know that, nothing happens:
 * descriptors arrive, and the receiver has to close them.
 */
export function refuseDescriptors(fd: number): void {
  value.bytes.writeInt32LE(0)
  const { address } = value
  const result = setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, address, 4)
  if (result !== -constants.errno.ENOPROTOOPT) check('setsockopt', result)
}

/** SO_LINGER off; nothing for what is no socket. */
export function turnLingerOff(fd: number): void {
  value.bytes.fill(0, 0, LINGER_SIZE)
  setsockopt(fd, SOL_SOCKET, SO_LINGER, value.address, LINGER_SIZE)
}

/** SO_PEEK_OFF: where MSG_PEEK begins, in bytes. -1 for the start, always. */
export function setPeekOffset(fd: number, offset: number): void {
  value.bytes.writeInt32LE(offset)
  setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, value.address, 4)
}

let limit = 0

/** How many descriptors this process may have: RLIMIT_NOFILE, getrlimit(2). */
export function descriptorLimit(): number {
  if (limit === 0) {
    const { RLIMIT_NOFILE } = host.constants
    check('getrlimit', getrlimit(RLIMIT_NOFILE, value.address))
    limit = value.bytes.readUInt32LE(0)
  }
  return limit
}

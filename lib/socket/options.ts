// Options of a socket, read and set (getsockopt(2), setsockopt(2)), its name
// (getsockname(2)), and how many descriptors the process may have
// (getrlimit(2)). Open socket(7) and unix(7) beside it.
// Read next: lib/socket/describe.ts.

import { Buffer } from 'node:buffer'
import { constants } from 'node:os'

import type { Credentials } from '../cmsg.ts'
import { type Abi, host } from '../layouts.ts'
import { check, declare, systemError } from '../libc.ts'
import { ioctl } from '../message.ts'
import * as c from './calls.ts'
import { value, valueLength } from './calls.ts'

// int getrlimit(int resource, struct rlimit *limit)
const getrlimit = declare('getrlimit', 'int', ['int', 'pointer'])

const { AF_UNIX, SOCK_STREAM, SOL_SOCKET } = host.constants
const { SO_ACCEPTCONN, SO_LINGER, SO_TYPE } = host.constants
const SO_PASSRIGHTS = 83 // Linux 6.16, <asm-generic/socket.h>
const SO_OOBINLINE = 10 // Linux, <asm-generic/socket.h>
const FIONREAD = 0x541b // Linux, <asm-generic/ioctls.h>
const SO_RCVTIMEO = 20 // Linux, <asm-generic/socket.h>
const POLLRDHUP = 0x2000 // <asm-generic/poll.h>
/** struct linger: int l_onoff, int l_linger. */
const LINGER_SIZE = 8

/** The value of an option of `size` bytes: a copy, which stays as it is. */
function getOption(
  fd: number,
  level: number,
  option: number,
  size: number,
): Buffer {
  value.bytes.fill(0)
  valueLength.bytes.writeUInt32LE(size)
  const { address } = value
  const result = c.getsockopt(fd, level, option, address, valueLength.address)
  check('getsockopt', result)
  return Buffer.from(value.bytes.subarray(0, size))
}

/** The value of an option of the level SOL_SOCKET that is an int. */
function intOption(fd: number, option: number): number {
  return getOption(fd, SOL_SOCKET, option, 4).readInt32LE()
}

/**
 * Sets an option of the level SOL_SOCKET whose value is an int.
 *
 * @returns 0 or -errno
 */
export function setOption(fd: number, option: number, number: number): number {
  value.bytes.writeInt32LE(number)
  return c.setsockopt(fd, SOL_SOCKET, option, value.address, 4)
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

/** The address that a socket is bound to, as the kernel writes it: a copy. */
export function socketName(fd: number): Buffer {
  valueLength.bytes.writeUInt32LE(value.bytes.length)
  const result = c.getsockname(fd, value.address, valueLength.address)
  check('getsockname', result)
  const length = valueLength.bytes.readUInt32LE()
  return Buffer.from(value.bytes.subarray(0, length))
}

/**
 * The type of a Unix socket, as a number such as SOCK_STREAM.
 *
 * @throws RangeError for what is no descriptor
 * @throws Error EBADF, ENOTSOCK, or EPROTOTYPE for what is no Unix socket
 */
export function unixType(fd: number): number {
  checkFd(fd)
  const type = intOption(fd, SO_TYPE)
  const family = socketName(fd)[host.sockaddr_un.sun_family]
  if (family === AF_UNIX) return type
  throw systemError(
    'getsockname',
    -constants.errno.EPROTOTYPE,
    `descriptor ${fd}: expected a Unix socket (family ${AF_UNIX}), ` +
      `got family ${family}`,
  )
}

/**
 * What can be done with a socket: 'stream' if bytes can be sent and received
 * over it, else what it is instead.
 *
 * @throws Error EBADF, ENOTSOCK
 */
export function socketType(fd: number): 'stream' | (string & {}) {
  const type = intOption(fd, SO_TYPE)
  if (type !== SOCK_STREAM) return 'of messages, not of a stream of bytes'
  return isListening(fd) ? 'that listens' : 'stream'
}

/** Whether it is a socket whose messages have boundaries, such as UDP's. */
export function isMessageSocket(fd: number): boolean {
  try {
    return intOption(fd, SO_TYPE) !== SOCK_STREAM
  } catch {
    return false // EBADF, ENOTSOCK
  }
}

/** Whether it is a socket that listens: SO_ACCEPTCONN in socket(7). */
export function isListening(fd: number): boolean {
  try {
    return intOption(fd, SO_ACCEPTCONN) !== 0
  } catch {
    return false // EBADF, ENOTSOCK
  }
}

/** Whether it is a Unix socket. */
export function isUnixSocket(fd: number): boolean {
  try {
    unixType(fd)
    return true
  } catch {
    return false
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
  const result = setOption(fd, SO_PASSRIGHTS, 0)
  if (result !== -constants.errno.ENOPROTOOPT) check('setsockopt', result)
}

/**
 * Has the kernel add credentials to each message that this socket receives, and
 * those that are accepted from it (SO_PASSCRED).
 *
 * @throws Error where there are none: on macOS and FreeBSD
 */
export function setPassCredentials(fd: number): void {
  const { SO_PASSCRED } = host.constants
  if (SO_PASSCRED === 0) {
    throw new Error(
      `Expected Linux for passCredentials, got ${host.name}: ` +
        'only Linux has SO_PASSCRED',
    )
  }
  check('setsockopt', setOption(fd, SO_PASSCRED, 1))
}

/**
 * SO_RCVTIMEO: how long a call that receives or accepts may wait in the kernel,
 * in µs, rounded up to what the kernel's clock can tell (1 to 10 ms); 0 for as
 * long as it takes. Nothing for what is no socket, and but for 64-bit Linux:
 * with 32 bits the two C libraries have times of different sizes.
 */
export function setReceiveTimeout(fd: number, timeout: number): void {
  const { pointerSize } = host
  if (process.platform !== 'linux' || pointerSize !== 8) return
  // struct timeval: long tv_sec, long tv_usec
  value.bytes.fill(0, 0, 2 * pointerSize)
  value.bytes.writeInt32LE(timeout, pointerSize)
  const { address } = value
  c.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, address, 2 * pointerSize)
}

/**
 * SO_OOBINLINE: a byte that is sent with MSG_OOB (Linux 5.15) comes in order
 * with the others. Else the kernel drops it, and closes the descriptors that
 * ride on it, within recvmsg(2), for as long as their sender chose. Linux only.
 */
export function setOutOfBandInline(fd: number): void {
  if (process.platform !== 'linux') return
  setOption(fd, SO_OOBINLINE, 1)
}

/** SO_SNDBUF: what may be on its way from this socket, in bytes. */
export function sendBufferSize(fd: number): number {
  const { SO_SNDBUF } = host.constants
  return intOption(fd, SO_SNDBUF)
}

/**
 * Whether the peer of a socket is gone, or has ended its sending side: POLLRDHUP
 * of poll(2). Linux only; elsewhere it says yes.
 */
export function isHungUp(fd: number): boolean {
  if (process.platform !== 'linux') return true
  value.bytes.writeInt32LE(fd)
  value.bytes.writeInt32LE(POLLRDHUP, 4)
  return c.poll(value.address, 1, 0) > 0
}

/** How many bytes wait to be read from a socket. Linux only; elsewhere 0. */
export function unreadBytes(fd: number): number {
  value.bytes.writeInt32LE(0)
  if (process.platform === 'linux') ioctl(fd, FIONREAD, value.address)
  return value.bytes.readInt32LE()
}

/** Whether a descriptor is open: F_GETFD. */
export function isOpen(fd: number): boolean {
  const F_GETFD = 1 // on every platform
  return c.fcntl(fd, F_GETFD, 0) >= 0
}

/** SO_LINGER off; nothing for what is no socket. */
export function turnLingerOff(fd: number): void {
  value.bytes.fill(0, 0, LINGER_SIZE)
  c.setsockopt(fd, SOL_SOCKET, SO_LINGER, value.address, LINGER_SIZE)
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

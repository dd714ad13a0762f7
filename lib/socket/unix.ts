// Unix stream sockets, call by call: made, named, bound, connected, accepted
// and closed. Descriptors are close-on-exec from birth where the platform can
// (SOCK_CLOEXEC), else as soon as they exist. Open unix(7) beside it.
// Read next: lib/socket/sockaddr.ts.

import { host } from '../layouts.ts'
import { allocate, check, declare, NULL } from '../libc.ts'
import { checkFd, isInt, turnLingerOff } from './options.ts'
import { unixAddress } from './sockaddr.ts'

// int socket(int domain, int type, int protocol)
const socket = declare('socket', 'int', ['int', 'int', 'int'])
// int socketpair(int domain, int type, int protocol, int sv[2])
const socketpair = declare('socketpair', 'int', [
  'int',
  'int',
  'int',
  'pointer',
])
// int bind(int fd, const struct sockaddr *addr, socklen_t addrlen)
const bind = declare('bind', 'int', ['int', 'pointer', 'uint'])
// int listen(int fd, int backlog)
const listen = declare('listen', 'int', ['int', 'int'])
// int connect(int fd, const struct sockaddr *addr, socklen_t addrlen)
const connect = declare('connect', 'int', ['int', 'pointer', 'uint'])
// int accept(int fd, struct sockaddr *addr, socklen_t *addrlen)
const accept = declare('accept', 'int', ['int', 'pointer', 'pointer'])
// int accept4(int fd, struct sockaddr *addr, socklen_t *addrlen, int flags)
const accept4 = declare('accept4', 'int', ['int', 'pointer', 'pointer', 'int'])
// int shutdown(int fd, int how)
const shutdown = declare('shutdown', 'int', ['int', 'int'])
// int close(int fd)
const close = declare('close', 'int', ['int'])
// int dup(int fd)
const dup = declare('dup', 'int', ['int'])
// int ioctl(int fd, unsigned long request, ...)
const ioctl = declare('ioctl', 'int', ['int', 'uint'])

const { AF_UNIX, FIOCLEX, SOCK_CLOEXEC, SOCK_NONBLOCK } = host.constants
const TYPE = host.constants.SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK

/** An address that goes in, or the two descriptors that come out. */
const value = allocate(128)

/** socket(2). The caller owns the descriptor. */
export function newSocket(): number {
  const made = check('socket', socket(AF_UNIX, TYPE, 0))
  return SOCK_CLOEXEC === 0 ? ownedFd(made) : made
}

/**
 * socketpair(2). The caller owns both descriptors.
 *
 * @param isBlocking as a program that is not Node expects to inherit its end; a
 * UnixConn works with either kind
 */
export function newSocketpair(isBlocking = false): [number, number] {
  const type = isBlocking ? TYPE & ~SOCK_NONBLOCK : TYPE
  check('socketpair', socketpair(AF_UNIX, type, 0, value.address))
  const [one, other] = [value.bytes.readInt32LE(0), value.bytes.readInt32LE(4)]
  if (SOCK_CLOEXEC !== 0) return [one, other]
  try {
    return [setCloseOnExec(one), setCloseOnExec(other)]
  } catch (error) {
    closeFd(one)
    closeFd(other)
    throw error
  }
}

/** bind(2): 0 or -errno. Creates the socket file, unless `path` is abstract. */
export function bindTo(fd: number, path: string): number {
  return bind(fd, value.address, writeAddress(path))
}

/** listen(2): 0 or -errno. */
export function listenOn(fd: number, backlog: number): number {
  return listen(fd, backlog)
}

/** connect(2): 0 or -errno. */
export function connectTo(fd: number, path: string): number {
  return connect(fd, value.address, writeAddress(path))
}

/** accept(2): a descriptor, which the caller owns, or -errno. */
export function acceptFrom(fd: number): number {
  if (SOCK_CLOEXEC !== 0) {
    return accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)
  }
  const accepted = accept(fd, NULL, NULL)
  if (accepted < 0) return accepted
  const result = ioctl(accepted, FIOCLEX)
  if (result >= 0) return accepted
  closeFd(accepted)
  return result
}

/**
 * FIOCLEX: makes a descriptor close-on-exec.
 *
 * @returns `fd`
 * @throws RangeError for what is no descriptor; Error EBADF
 * @see FIOCLEX in ioctl(2)
 */
export function setCloseOnExec(fd: number): number {
  check('ioctl', ioctl(checkFd(fd), FIOCLEX))
  return fd
}

/** setCloseOnExec for a new descriptor, which is closed if that fails. */
export function ownedFd(fd: number): number {
  try {
    return setCloseOnExec(fd)
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

/**
 * dup(2), close-on-exec. The caller owns the copy.
 *
 * @throws RangeError for what is no descriptor; Error EBADF; EMFILE
 * @see dup(2)
 */
export function duplicate(fd: number): number {
  return ownedFd(check('dup', dup(checkFd(fd))))
}

/** shutdown(2) for writing: the peer reads to the end of file. */
export function shutdownWriting(fd: number): void {
  const SHUT_WR = 1 // on every platform
  check('shutdown', shutdown(fd, SHUT_WR))
}

/**
 * close(2), through libc: what libc opened is unknown to Node, whose closeSync
 * in a worker thread prints a warning for such a number. Reports no error,
 * because after close(2) the number is free whatever it returned.
 */
export function closeFd(fd: number): void {
  close(fd)
}

/**
 * Closes a descriptor that was received and is not delivered. If it is a
 * socket, SO_LINGER is turned off first: with it close(2) of the last
 * descriptor of a TCP socket blocks for as long as the sender chose. That turns
 * it off for everyone who has the same socket. Never throws: what is not open,
 * or no descriptor, is passed over.
 *
 * A file on FUSE whose server is slow can still block close(2).
 *
 * @see SO_LINGER in socket(7)
 */
export function closeReceived(fd: number): void {
  if (!isInt(fd)) return
  turnLingerOff(fd)
  closeFd(fd)
}

// Puts the address where calls take it from; returns its length in bytes.
function writeAddress(path: string): number {
  const address = unixAddress(path)
  value.bytes.set(address)
  return address.length
}

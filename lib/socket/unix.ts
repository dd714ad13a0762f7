// Unix sockets, call by call: made, named, bound, connected, accepted
// and closed. Descriptors are close-on-exec from birth where the platform can
// (SOCK_CLOEXEC), else as soon as they exist. Open unix(7) beside it.
// Read next: lib/socket/sockaddr.ts.

import { close as closeInPool, closeSync, constants, openSync } from 'node:fs'
import { isMainThread } from 'node:worker_threads'

import { host } from '../layouts.ts'
import { check, NULL } from '../libc.ts'
import { ioctl } from '../message.ts'
import * as c from './calls.ts'
import { O_CLOEXEC, value } from './calls.ts'
import {
  checkFd,
  isInt,
  refuseDescriptors,
  setPassCredentials,
  socketName,
  turnLingerOff,
  unreadBytes,
} from './options.ts'
import { beginPoolCall } from './pool-calls.ts'
import { parseUnixAddress, unixAddress } from './sockaddr.ts'

const { AF_UNIX, FIOCLEX, FIONBIO, SOCK_CLOEXEC, SOCK_NONBLOCK } =
  host.constants
const isLinux = process.platform === 'linux'
const F_SETFD = 2 // on every platform
const FD_CLOEXEC = 1 // on every platform
const F_DUPFD_CLOEXEC = 1030 // <linux/fcntl.h>

/** The types of Unix sockets: SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM. */
export type SocketType = 'stream' | 'seqpacket' | 'datagram'

const types: Readonly<Record<SocketType, number>> = {
  stream: host.constants.SOCK_STREAM,
  seqpacket: host.constants.SOCK_SEQPACKET,
  datagram: host.constants.SOCK_DGRAM,
}

/** What a new socket has. */
export type SocketOptions = {
  /**
   * Default: 'stream'. macOS has no 'seqpacket'. On FreeBSD a message without
   * bytes is taken for the end.
   */
  readonly type?: 'stream' | 'seqpacket'
  /**
   * Has the kernel tell of each message who sent it, in a control message
   * (SO_PASSCRED, Linux). Default: false.
   */
  readonly passCredentials?: boolean
  /**
   * Has the kernel refuse descriptors that the peer sends: it gets EPERM (Linux
   * 6.16 and later; elsewhere nothing changes). Default: false.
   */
  readonly refuseFds?: boolean
}

/** The number of a type of socket, such as SOCK_STREAM. */
export function typeNumber(type: SocketType): number {
  const number = types[type]
  if (number !== undefined) return number
  const known = Object.keys(types).join(', ')
  throw new RangeError(`Expected type as one of ${known}, got ${String(type)}`)
}

/**
 * socket(2). The caller owns the descriptor.
 *
 * @throws RangeError for another type; Error EPROTONOSUPPORT
 */
export function newSocket(
  type: SocketType = 'stream',
  options: Omit<SocketOptions, 'type'> = {},
): number {
  const flags = typeNumber(type) | SOCK_CLOEXEC | SOCK_NONBLOCK
  const fd = ownedFd(check('socket', c.socket(AF_UNIX, flags, 0)))
  try {
    applyOptions(fd, options)
    return fd
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

/** Options of a socket that exists. */
export function applyOptions(
  fd: number,
  { passCredentials, refuseFds }: Omit<SocketOptions, 'type'>,
): void {
  if (passCredentials) setPassCredentials(fd)
  if (refuseFds) refuseDescriptors(fd)
}

/**
 * socketpair(2). The caller owns both descriptors.
 *
 * @param options.isBlocking as a program that is not Node expects to inherit
 * its end; a UnixConn works with either kind
 */
export function newSocketpair({
  type = 'stream',
  isBlocking = false,
}: {
  readonly type?: SocketType
  readonly isBlocking?: boolean
} = {}): [number, number] {
  const nonBlocking = isBlocking ? 0 : SOCK_NONBLOCK
  const flags = typeNumber(type) | SOCK_CLOEXEC | nonBlocking
  check('socketpair', c.socketpair(AF_UNIX, flags, 0, value.address))
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
  return c.bind(fd, value.address, writeAddress(path))
}

/** listen(2): 0 or -errno. */
export function listenOn(fd: number, backlog: number): number {
  return c.listen(fd, backlog)
}

/**
 * getsockname(2) of a Unix socket: its path, `'\0name'` for an abstract name,
 * '' for none.
 *
 * @throws Error EBADF, ENOTSOCK
 */
export function pathOf(fd: number): string {
  return parseUnixAddress(socketName(fd))
}

/** connect(2): 0 or -errno. */
export function connectTo(fd: number, path: string): number {
  return c.connect(fd, value.address, writeAddress(path))
}

/** accept(2): a descriptor, which the caller owns, or -errno. */
export function acceptFrom(fd: number): number {
  if (SOCK_CLOEXEC !== 0) {
    return c.accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)
  }
  const accepted = c.accept(fd, NULL, NULL)
  if (accepted < 0) return accepted
  const result = ioctl(accepted, FIOCLEX, NULL)
  if (result >= 0) return accepted
  closeFd(accepted)
  return result
}

/**
 * Makes a descriptor close-on-exec: no child inherits it by accident.
 *
 * @returns `fd`
 * @throws RangeError for what is no descriptor; Error EBADF
 * @see F_SETFD in fcntl(2), FIOCLEX in ioctl(2)
 */
export function setCloseOnExec(fd: number): number {
  checkFd(fd)
  // An O_PATH descriptor has no ioctl(2), and elsewhere fcntl(2) cannot be
  // given its argument (see libc.ts).
  if (isLinux) check('fcntl', c.fcntl(fd, F_SETFD, FD_CLOEXEC))
  else check('ioctl', ioctl(fd, FIOCLEX, NULL))
  return fd
}

/**
 * dup3(2): `place` is closed, and becomes a descriptor of what `fd` refers to,
 * close-on-exec. Elsewhere than on Linux dup2(2), and then that.
 *
 * @throws Error EBADF
 */
export function putInPlace(fd: number, place: number): void {
  if (isLinux) {
    check('dup3', c.dup3(fd, place, O_CLOEXEC))
  } else {
    check('dup2', c.dup2(fd, place))
    setCloseOnExec(place)
  }
}

/**
 * O_NONBLOCK, for everyone who has the same open file description. Nothing for
 * what is not open, and where the argument cannot be given (see libc.ts).
 */
export function setNonBlocking(fd: number): void {
  if (!isLinux) return
  value.bytes.writeInt32LE(1)
  ioctl(fd, FIONBIO, value.address)
}

/**
 * A new descriptor, close-on-exec also where the call that made it could not
 * say so. It is closed if that fails.
 */
export function ownedFd(fd: number): number {
  if (SOCK_CLOEXEC !== 0) return fd
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
 * @see dup(2), F_DUPFD_CLOEXEC in fcntl(2)
 */
export function duplicate(fd: number): number {
  checkFd(fd)
  if (isLinux) return check('fcntl', c.fcntl(fd, F_DUPFD_CLOEXEC, 0))
  return ownedFd(check('dup', c.dup(fd)))
}

/** shutdown(2) for writing: the peer reads to the end of file. */
export function shutdownWriting(fd: number): void {
  const SHUT_WR = 1 // on every platform
  check('shutdown', c.shutdown(fd, SHUT_WR))
}

/**
 * close(2). Never throws: after it the number is free whatever it returned.
 */
export function closeFd(fd: number): void {
  if (isMainThread) c.close(fd)
  else closeInWorker(fd)
}

// In a worker thread Node has a list of what fs.openSync() has opened there, and
// closes what is left of it when the thread ends (trackUnmanagedFds in the
// documentation of worker_threads). A number of that list has to be closed by
// Node: libc would leave it there, and by the end of the thread it may be
// another thread's file. Others, which libc has opened, Node closes as well, but
// with a warning. Whoever uses this library could do nothing about that, so it
// is not let out; it is made before closeSync() returns.
function closeInWorker(fd: number): void {
  const { emitWarning } = process
  process.emitWarning = () => {}
  try {
    closeSync(fd)
  } catch {
    // As with close(2).
  } finally {
    process.emitWarning = emitWarning
  }
}

/**
 * A descriptor that ends with its thread. In a worker thread, a new number for
 * what `fd` refers to, which is on Node's list (see above) and so is closed with
 * the thread, even if that is terminated; `fd` is closed. Elsewhere it is `fd`.
 * Not for what may become a net.Socket, which closes its number by itself.
 *
 * @throws Error EMFILE; then `fd` remains the caller's
 */
export function tieToThread(fd: number): number {
  if (isMainThread || !isLinux) return fd
  // Any file will do: it is replaced at once.
  const listed = openSync('/', constants.O_DIRECTORY)
  try {
    putInPlace(fd, listed)
  } catch (error) {
    closeFd(listed)
    throw error
  }
  closeFd(fd)
  return listed
}

/** tieToThread() for both. Closes both if it throws. */
export function tiePairToThread([one, other]: readonly [number, number]): [
  number,
  number,
] {
  let first = one
  try {
    first = tieToThread(one)
    return [first, tieToThread(other)]
  } catch (error) {
    closeFd(first)
    closeFd(other)
    throw error
  }
}

/**
 * close(2) of what a stranger may have made, in libuv's pool, where it may take
 * its time: a file on FUSE can hold it for as long as its server chooses. In a
 * worker thread at once, as Node would print a warning there. Never throws.
 */
export function closeLater(fd: number): void {
  if (!isMainThread || fd < 0) return closeFd(fd)
  closeInPool(fd, beginPoolCall()) // After close(2) it is free anyway.
}

/**
 * close(2) of a connection. With bytes that nobody has read descriptors may be
 * queued, which the kernel closes then: that may take as long as their sender
 * chose (SO_LINGER, a file on FUSE), so it is done in the pool. Never throws.
 */
export function closeConnection(fd: number, type: SocketType): void {
  const isEmpty = isLinux && type === 'stream' && unreadBytes(fd) === 0
  if (isEmpty) closeFd(fd)
  else closeLater(fd)
}

/**
 * Closes a descriptor that was received and is not delivered, or not wanted. If
 * it is a socket, SO_LINGER is turned off first: with it close(2) of the last
 * descriptor of a TCP socket blocks for as long as the sender chose. That turns
 * it off for everyone who has the same socket. Never throws: what is not open,
 * or no descriptor, is passed over. In the main thread the number is free a
 * moment later, as close(2) is called in libuv's pool.
 *
 * In a worker thread it is for every descriptor, whether received or opened
 * there with fs.openSync(), and prints nothing. (fs.closeSync() closes what was
 * received as well, but prints a warning: Node has not opened it.) What was
 * received and is not closed stays open when the thread ends.
 *
 * @see SO_LINGER in socket(7)
 */
export function closeReceived(fd: number): void {
  if (!isInt(fd)) return
  turnLingerOff(fd)
  closeLater(fd)
}

// Puts the address where calls take it from; returns its length in bytes.
function writeAddress(path: string): number {
  const address = unixAddress(path)
  value.bytes.set(address)
  return address.length
}

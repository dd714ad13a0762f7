// Unix stream sockets, call by call: made, named, bound, connected, accepted,
// and asked about. Descriptors are close-on-exec from birth where the platform
// can (SOCK_CLOEXEC), else as soon as they exist. Open unix(7) beside it.

import { constants } from 'node:os'

import { type Abi, host } from '../layouts.ts'
import { allocate, check, declare, NULL, systemError } from '../libc.ts'

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

export type Credentials = {
  /** 0 where the kernel does not tell. */
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

const { AF_UNIX, SOCK_STREAM } = host.constants

const SOCK_SEQPACKET = 5 // on every platform
const SO_PASSRIGHTS = 83 // Linux 6.16, <asm-generic/socket.h>
/** <asm-generic/socket.h>; <sys/socket.h> of macOS and FreeBSD. */
const SO_LINGER = process.platform === 'linux' ? 13 : 0x80
/** struct linger: int l_onoff, int l_linger. */
const LINGER_SIZE = 8

/** Values that go in and out by address: an option or a name, and its length. */
const value = allocate(128)
const length = allocate(4)

/** socket(2). The caller owns the descriptor. */
export function newSocket(abi: Abi = host): number {
  const made = check('socket', socket(AF_UNIX, newSocketType(abi), 0))
  return guardNew(made, abi)
}

/** socketpair(2). The caller owns both descriptors. */
export function newSocketpair(abi: Abi = host): [number, number] {
  const type = newSocketType(abi)
  check('socketpair', socketpair(AF_UNIX, type, 0, value.address))
  const [one, other] = [value.bytes.readInt32LE(0), value.bytes.readInt32LE(4)]
  return [guardNew(one, abi), guardNew(other, abi)]
}

/** bind(2). Creates the socket file, unless the name is abstract. */
export function bindTo(fd: number, path: string): number {
  return bind(fd, value.address, writeName(path))
}

/** connect(2). 0 or -errno. */
export function connectTo(fd: number, path: string): number {
  return connect(fd, value.address, writeName(path))
}

/** accept(2). The caller owns the descriptor; -errno if there is none. */
export function acceptFrom(fd: number, abi: Abi = host): number {
  const { SOCK_CLOEXEC, SOCK_NONBLOCK } = abi.constants
  if (SOCK_CLOEXEC !== 0) {
    return accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)
  }
  const accepted = accept(fd, NULL, NULL)
  return accepted < 0 ? accepted : setCloseOnExec(accepted)
}

/** Whether `fd` is a socket of a kind that can listen, as a UDP one cannot. */
export function acceptsConnections(fd: number): boolean {
  const { SOL_SOCKET, SO_TYPE } = host.constants
  const type = getOption(fd, SOL_SOCKET, SO_TYPE, 4).readInt32LE(0)
  return type === SOCK_STREAM || type === SOCK_SEQPACKET
}

/**
 * Has the kernel refuse descriptors that are sent to this socket, and to those
 * that are accepted from it: the sender's call fails with EPERM (SO_PASSRIGHTS,
 * Linux 6.16). Elsewhere nothing happens: descriptors arrive, and whoever
 * receives them has to close them.
 */
export function refuseDescriptors(fd: number): void {
  if (process.platform !== 'linux') return
  value.bytes.writeInt32LE(0)
  const { SOL_SOCKET } = host.constants
  const { address } = value
  const result = setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, address, 4)
  if (result !== -constants.errno.ENOPROTOOPT) check('setsockopt', result)
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
 * Closes a descriptor that was received and that nobody wants. If it is a
 * socket, SO_LINGER is turned off first: with it close(2) of the last
 * descriptor of a TCP socket blocks for as long as the sender chose. That turns
 * it off for everyone who has the same socket. Never throws.
 */
export function closeReceived(fd: number): void {
  value.bytes.fill(0, 0, LINGER_SIZE)
  const { SOL_SOCKET } = host.constants
  setsockopt(fd, SOL_SOCKET, SO_LINGER, value.address, LINGER_SIZE)
  closeFd(fd)
}

function newSocketType({ constants }: Abi): number {
  return SOCK_STREAM | constants.SOCK_CLOEXEC | constants.SOCK_NONBLOCK
}

// SOCK_CLOEXEC has done it, where there is one.
function guardNew(fd: number, abi: Abi): number {
  return abi.constants.SOCK_CLOEXEC === 0 ? setCloseOnExec(fd) : fd
}

/** Makes a descriptor close-on-exec. Without an argument, so not variadic. */
export function setCloseOnExec(fd: number): number {
  check('ioctl', ioctl(fd, host.constants.FIOCLEX))
  return fd
}

/** dup(2), close-on-exec. The caller owns the copy. */
export function duplicate(fd: number): number {
  return setCloseOnExec(check('dup', dup(fd)))
}

/** shutdown(2) for writing: the peer reads to the end of file. */
export function shutdownWriting(fd: number): void {
  const SHUT_WR = 1 // on every platform
  check('shutdown', shutdown(fd, SHUT_WR))
}

/**
 * Checks that `fd` is an AF_UNIX stream socket.
 *
 * @throws Error EBADF, ENOTSOCK, or EPROTOTYPE for any other kind of socket
 */
export function checkUnixStream(fd: number): void {
  const { SOL_SOCKET, SO_TYPE } = host.constants
  const type = getOption(fd, SOL_SOCKET, SO_TYPE, 4).readInt32LE(0)
  length.bytes.writeUInt32LE(value.bytes.length)
  const named = getsockname(fd, value.address, length.address)
  check('getsockname', named)
  const family = value.bytes[host.sockaddr_un.sun_family]
  if (family !== AF_UNIX || type !== SOCK_STREAM) {
    throw systemError(
      'fromFd',
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
export function peerCredentials(fd: number, abi: Abi = host): Credentials {
  const { level, option, size, uid, gid, pid } = abi.peercred
  const found = getOption(fd, level, option, size)
  const credentials = {
    uid: found.readUInt32LE(uid),
    gid: found.readUInt32LE(gid),
  }
  if ('offset' in pid) {
    return { pid: found.readInt32LE(pid.offset), ...credentials }
  }
  const told = getOption(fd, level, pid.option, 4)
  return { pid: told.readInt32LE(0), ...credentials }
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

// A copy of the option's value: the next call writes over the original.
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

/** An abstract name (Linux) begins with a zero byte and is in no folder. */
export function isAbstract(path: string): boolean {
  return path.startsWith('\0')
}

// Puts the name where calls take it from; returns its length in bytes.
function writeName(path: string): number {
  const name = buildName(path)
  value.bytes.set(name)
  return name.length
}

/**
 * struct sockaddr_un. A path ends with a zero byte, an abstract name does not.
 *
 * @throws Error ENAMETOOLONG, saying how long it may be; TypeError for what is
 * no name
 */
export function buildName(path: string, abi: Abi = host): Buffer {
  const { sun_family, sun_path, sun_path_size, hasAbstractNames } =
    abi.sockaddr_un
  const name = Buffer.from(path)
  const most = sun_path_size - 1
  if (name.length > most) {
    const { ENAMETOOLONG } = constants.errno
    const message =
      `Expected a socket path of at most ${most} bytes, ` +
      `got ${name.length}: ${path}`
    throw Object.assign(new Error(message), {
      code: 'ENAMETOOLONG',
      errno: -ENAMETOOLONG,
    })
  }
  if (path === '' || path.includes('\0', 1)) {
    throw new TypeError(`Expected a socket path, got ${JSON.stringify(path)}`)
  }
  if (isAbstract(path) && !hasAbstractNames) {
    throw new TypeError('Expected a socket path: only Linux has abstract names')
  }
  const size = sun_path + name.length + (isAbstract(path) ? 0 : 1)
  const address = Buffer.alloc(size)
  // Two bytes on Linux, of which the second is zero; one on the BSDs.
  if (sun_family === 1) address[0] = size
  address[sun_family] = abi.constants.AF_UNIX
  name.copy(address, sun_path)
  return address
}

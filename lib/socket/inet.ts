// A TCP socket that is bound to an address and port, and no more than that:
// neither listening nor connected. Node binds only what it goes on to listen
// or connect with; a program that makes sockets for others needs the step
// between. Open ip(7), ipv6(7), bind(2) and inet_pton(3) beside it.
//
//    sockaddr_in                     sockaddr_in6
//     0  sin_family  2                0  sin6_family    2
//     2  sin_port    2                2  sin6_port      2
//     4  sin_addr    4                4  sin6_flowinfo  4
//     8  (zero)      8                8  sin6_addr     16
//    16                              24  sin6_scope_id  4
//                                    28
//
// The BSDs begin with a length byte and a family of one byte. Port and address
// are big-endian everywhere: "network byte order".

import { isIP, isIPv6 } from 'node:net'

import { host } from '../layouts.ts'
import { allocate, check, declare } from '../libc.ts'
import { closeFd, setCloseOnExec } from './unix.ts'

// int socket(int domain, int type, int protocol)
const socket = declare('socket', 'int', ['int', 'int', 'int'])
// int bind(int fd, const struct sockaddr *addr, socklen_t addrlen)
const bind = declare('bind', 'int', ['int', 'pointer', 'uint'])
// int listen(int fd, int backlog)
const listen = declare('listen', 'int', ['int', 'int'])
// int setsockopt(int fd, int level, int name, const void *value,
//                socklen_t len)
const setsockopt = declare('setsockopt', 'int', [
  'int',
  'int',
  'int',
  'pointer',
  'uint',
])
// int inet_pton(int family, const char *text, void *address)
const inet_pton = declare('inet_pton', 'int', ['int', 'pointer', 'pointer'])

const PORT = 2
const v4 = { size: 16, address: 4, addressSize: 4 }
const v6 = { size: 28, address: 8, addressSize: 16 }

export type Protocol = 'tcp' | 'udp'

export type InetAbi = {
  readonly hasLength: boolean
  readonly AF_INET6: number
  readonly SO_REUSEADDR: number
}

const AF_INET = 2 // on every platform
const SOCK_DGRAM = 2 // on every platform

/** Connections that may wait to be accepted. */
const BACKLOG = 511

const linux: InetAbi = { hasLength: false, AF_INET6: 10, SO_REUSEADDR: 2 }

// Read from the headers of xnu and FreeBSD, not executed there.
const others: Readonly<Record<string, InetAbi>> = {
  darwin: { hasLength: true, AF_INET6: 30, SO_REUSEADDR: 4 },
  freebsd: { hasLength: true, AF_INET6: 28, SO_REUSEADDR: 4 },
}

export function inetAbi(platform: string): InetAbi {
  return others[platform] ?? linux
}

const hostInet = inetAbi(process.platform)

/** What goes in and out by address: the text of an address, any other value. */
const text = allocate(64)
const value = allocate(v6.size)

/**
 * socket(2) and bind(2): a TCP socket bound to `address`, with SO_REUSEADDR,
 * so that the port of a connection that has just ended can be bound again.
 * The caller owns the descriptor, which is blocking and close-on-exec.
 *
 * @param address IPv4 or IPv6 in digits; `0.0.0.0` or `::` for any
 * @param port 0 for one that the kernel chooses
 * @throws RangeError for what is no address or no port
 * @throws Error EACCES for a privileged port (ip(7)); EADDRINUSE;
 * EADDRNOTAVAIL if the address is not this machine's
 */
export function boundSocket(address: string, port: number): number {
  const name = sockaddr(address, port)
  const family = isIPv6(address) ? hostInet.AF_INET6 : AF_INET
  const { SOCK_STREAM, SOCK_CLOEXEC, SOL_SOCKET } = host.constants
  const made = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)
  const fd = setCloseOnExec(check('socket', made))
  try {
    const { SO_REUSEADDR } = hostInet
    value.bytes.writeInt32LE(1)
    const { address: at } = value
    check('setsockopt', setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, at, 4))
    value.bytes.set(name)
    const bound = bind(fd, at, name.length)
    check('bind', bound, `${address} port ${port}`)
    return fd
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

/**
 * A TCP socket that listens, or a UDP socket that is bound, as a service gets
 * it from who may use the port. The caller owns the descriptor, which is
 * blocking and close-on-exec.
 *
 * @param address IPv4 or IPv6 in digits
 * @param port 0 for one that the kernel chooses
 * @throws RangeError, Error as `boundSocket`
 */
export function serviceSocket(
  protocol: Protocol,
  address: string,
  port: number,
): number {
  const fd =
    protocol === 'tcp'
      ? boundSocket(address, port)
      : newDatagramSocket(isIPv6(address) ? hostInet.AF_INET6 : AF_INET)
  try {
    const detail = `${address} port ${port}`
    if (protocol === 'tcp') {
      // With SO_REUSEADDR two sockets may be bound to one port, but only one
      // of them can listen: it has to be this one, and before it is given away.
      check('listen', listen(fd, BACKLOG), detail)
    } else {
      const bytes = sockaddr(address, port)
      value.bytes.set(bytes)
      check('bind', bind(fd, value.address, bytes.length), detail)
    }
    return fd
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

// Without SO_REUSEADDR, which for UDP lets two servers share the datagrams.
function newDatagramSocket(family: number): number {
  const type = SOCK_DGRAM | host.constants.SOCK_CLOEXEC
  return setCloseOnExec(check('socket', socket(family, type, 0)))
}

/** A struct sockaddr_in or sockaddr_in6, as `abi` has it. */
export function sockaddr(
  address: string,
  port: number,
  abi: InetAbi = hostInet,
): Buffer {
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw new RangeError(`Expected a port from 0 to 65535, got ${port}`)
  }
  const layout = isIPv6(address) ? v6 : v4
  const family = isIPv6(address) ? abi.AF_INET6 : AF_INET
  const name = Buffer.alloc(layout.size)
  if (abi.hasLength) name.set([layout.size, family])
  else name.writeUInt16LE(family)
  name.writeUInt16BE(port, PORT)
  name.set(parse(address).subarray(0, layout.addressSize), layout.address)
  return name
}

// inet_pton knows every way to write an IPv6 address, so that we need not. It
// returns 1 for success; a zone, such as `%eth0`, is not for it.
function parse(address: string): Buffer {
  const family = isIPv6(address) ? hostInet.AF_INET6 : AF_INET
  text.bytes.fill(0)
  text.bytes.write(address, 0, text.bytes.length - 1)
  if (
    isIP(address) === 0 ||
    inet_pton(family, text.address, value.address) !== 1
  ) {
    throw new RangeError(`Expected an IP address in digits, got ${address}`)
  }
  return value.bytes
}

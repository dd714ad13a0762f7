// TCP and UDP sockets for other processes: bound to an address and port, or
// listening as well. Node has no function that only binds a TCP socket, and
// none that gives the number of a socket that it has made. Open
// ip(7), tcp(7), udp(7), bind(2) and listen(2) beside it.
// Read next: lib/socket/queued.ts.

import { isIPv6 } from 'node:net'

import { host } from '../layouts.ts'
import { allocate, check, declare } from '../libc.ts'
import { AF_INET, inetAbi, inetAddress } from './sockaddr.ts'
import { closeFd, ownedFd } from './unix.ts'

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

const SOCK_DGRAM = 2 // on every platform

/** Connections that may wait to be accepted. */
const BACKLOG = 511

/** tcp(7), udp(7). */
export type Protocol = 'tcp' | 'udp'

const { AF_INET6, SO_REUSEADDR } = inetAbi(process.platform)

/** What goes in by address: an option or a name. 28 bytes are the longest. */
const value = allocate(28)

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
 * @see bind(2), ip(7)
 */
export function boundSocket(address: string, port: number): number {
  const name = inetAddress(address, port)
  const family = isIPv6(address) ? AF_INET6 : AF_INET
  const { SOCK_STREAM, SOCK_CLOEXEC, SOL_SOCKET } = host.constants
  const made = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)
  const fd = ownedFd(check('socket', made))
  try {
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
 * @see listen(2), tcp(7), udp(7)
 */
export function serviceSocket(
  protocol: Protocol,
  address: string,
  port: number,
): number {
  const fd =
    protocol === 'tcp'
      ? boundSocket(address, port)
      : newDatagramSocket(isIPv6(address) ? AF_INET6 : AF_INET)
  try {
    const detail = `${address} port ${port}`
    if (protocol === 'tcp') {
      // With SO_REUSEADDR two sockets may be bound to one port, but only one
      // of them can listen: it has to be this one, and before it is given away.
      check('listen', listen(fd, BACKLOG), detail)
    } else {
      const bytes = inetAddress(address, port)
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
  return ownedFd(check('socket', socket(family, type, 0)))
}

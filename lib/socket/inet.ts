// TCP and UDP sockets for other processes: bound to an address and port, or
// listening as well. Node has no function that only binds a TCP socket, and
// none that gives the number of a socket that it has made. Open
// ip(7), tcp(7), udp(7), bind(2) and listen(2) beside it.
// Read next: lib/socket/memory.ts.

import { isIPv6 } from 'node:net'

import { host as abi } from '../layouts.ts'
import { check } from '../libc.ts'
import * as c from './calls.ts'
import { value } from './calls.ts'
import { setOption } from './options.ts'
import { inetAddress } from './sockaddr.ts'
import { closeFd, ownedFd } from './unix.ts'

/** Connections that may wait to be accepted. */
const BACKLOG = 511

/** tcp(7), udp(7). */
export type Protocol = 'tcp' | 'udp'

/** Where a TCP or UDP socket is bound, in Node's words. */
export type InetOptions = {
  /** 0 to 65535; with 0 the kernel chooses one. */
  readonly port: number
  /** IPv4 or IPv6 in digits; `0.0.0.0` or `::` for any. */
  readonly host: string
}

const { AF_INET, AF_INET6, SO_REUSEADDR } = abi.constants
const { SOCK_STREAM, SOCK_DGRAM, SOCK_CLOEXEC } = abi.constants

/**
 * socket(2) and bind(2): a TCP socket bound to an address, with SO_REUSEADDR,
 * so that the port of a connection that has just ended can be bound again.
 * The caller owns the descriptor, which is blocking and close-on-exec.
 *
 * @throws RangeError for what is no address or no port
 * @throws Error EACCES for a privileged port (ip(7)); EADDRINUSE;
 * EADDRNOTAVAIL if the address is not this machine's
 * @see bind(2), ip(7)
 */
export function boundSocket(options: InetOptions): number {
  return newBoundSocket('tcp', options)
}

/**
 * A TCP socket that listens, or a UDP socket that is bound, as a service gets
 * it from who may use the port. The caller owns the descriptor, which is
 * blocking and close-on-exec.
 *
 * @throws RangeError for another protocol; RangeError, Error as boundSocket()
 * @see listen(2), tcp(7), udp(7)
 */
export function serviceSocket(
  protocol: Protocol,
  options: InetOptions,
): number {
  if (protocol !== 'tcp' && protocol !== 'udp') {
    throw new RangeError(`Expected tcp or udp, got ${String(protocol)}`)
  }
  const fd = newBoundSocket(protocol, options)
  if (protocol === 'udp') return fd
  try {
    // With SO_REUSEADDR two sockets may be bound to one port, but only one of
    // them can listen: it has to be this one, and before it is given away.
    check('listen', c.listen(fd, BACKLOG), nameOf(options))
    return fd
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

function newBoundSocket(protocol: Protocol, options: InetOptions): number {
  const { host, port } = options
  const address = inetAddress(host, port)
  const family = isIPv6(host) ? AF_INET6 : AF_INET
  const type = protocol === 'tcp' ? SOCK_STREAM : SOCK_DGRAM
  const made = c.socket(family, type | SOCK_CLOEXEC, 0)
  const fd = ownedFd(check('socket', made))
  try {
    // For UDP it would let two servers share the datagrams.
    if (protocol === 'tcp') check('setsockopt', setOption(fd, SO_REUSEADDR, 1))
    value.bytes.set(address)
    const bound = c.bind(fd, value.address, address.length)
    check('bind', bound, nameOf(options))
    return fd
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

function nameOf({ host, port }: InetOptions): string {
  return `${host} port ${port}`
}

// What a server of TCP or UDP begins with, as bare descriptors: a socket that
// takes clients, and the connections that come in. node:net does the same, but
// keeps the numbers to itself, and without them nothing can be passed on. Open
// listen(2), accept(2), tcp(7) and udp(7) beside it.

import { closeSync } from 'node:fs'
import { isIPv6 } from 'node:net'
import { constants } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'

import { host } from '../layouts.ts'
import { allocate, check, declare, systemError } from '../libc.ts'
import { boundSocket, inetAbi, sockaddr } from '../socket/inet.ts'
import { acceptFrom, guard } from '../socket/unix.ts'
import { Watcher } from './watcher.ts'

// int socket(int domain, int type, int protocol)
const socket = declare('socket', 'int', ['int', 'int', 'int'])
// int bind(int fd, const struct sockaddr *addr, socklen_t addrlen)
const bind = declare('bind', 'int', ['int', 'pointer', 'uint'])
// int listen(int fd, int backlog)
const listen = declare('listen', 'int', ['int', 'int'])

export type Protocol = 'tcp' | 'udp'

const AF_INET = 2 // on every platform
const SOCK_DGRAM = 2 // on every platform
const { AF_INET6 } = inetAbi(process.platform)

/** Connections that may wait to be accepted. */
const BACKLOG = 511

/** How long to wait for a free descriptor, in ms: nothing tells. */
const RETRY_DELAY = 20

const { EAGAIN, ECONNABORTED, EMFILE, ENFILE } = constants.errno

/** The name to bind to. 28 bytes is the longest. */
const name = allocate(28)

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
      : newDatagramSocket(isIPv6(address) ? AF_INET6 : AF_INET)
  try {
    const detail = `${address} port ${port}`
    if (protocol === 'tcp') {
      // With SO_REUSEADDR two sockets may be bound to one port, but only one
      // of them can listen: it has to be this one, and before it is given away.
      check('listen', listen(fd, BACKLOG), detail)
    } else {
      const bytes = sockaddr(address, port)
      name.bytes.set(bytes)
      check('bind', bind(fd, name.address, bytes.length), detail)
    }
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

// Without SO_REUSEADDR, which for UDP lets two servers share the datagrams.
function newDatagramSocket(family: number): number {
  const type = SOCK_DGRAM | host.constants.SOCK_CLOEXEC
  return guard(check('socket', socket(family, type, 0)))
}

/**
 * accept(2), again and again: the descriptors of the connections that come in
 * on a listening socket. The caller owns, and closes, each. They are
 * non-blocking and close-on-exec.
 *
 * @param fd closed when this ends
 * @param signal ends it
 */
export async function* connectionsOn(
  fd: number,
  signal?: AbortSignal,
): AsyncGenerator<number, void, void> {
  let wake = (): void => {}
  const watcher = new Watcher(fd, () => wake())
  const stop = (): void => wake()
  signal?.addEventListener('abort', stop)
  try {
    while (!signal?.aborted) {
      const accepted = acceptFrom(fd)
      if (accepted >= 0) {
        yield accepted
      } else if (accepted === -EAGAIN) {
        watcher.watch()
        await new Promise<void>((resolve) => {
          wake = resolve
        })
        watcher.rest()
      } else if (accepted === -EMFILE || accepted === -ENFILE) {
        // The connection stays in the backlog: only time helps.
        await sleep(RETRY_DELAY)
      } else if (accepted !== -ECONNABORTED) {
        throw systemError('accept', accepted)
      }
    }
  } finally {
    signal?.removeEventListener('abort', stop)
    watcher.close()
  }
}

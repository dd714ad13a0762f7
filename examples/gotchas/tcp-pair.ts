// Two connected TCP sockets on the loopback address, as bare descriptors.

import { closeSync } from 'node:fs'

import { serviceSocket } from '../../lib/index.ts'
import { host } from '../../lib/layouts.ts'
import { allocate, check, declare } from '../../lib/libc.ts'
import { inetAddress } from '../../lib/socket/sockaddr.ts'
import { acceptFrom } from '../../lib/socket/unix.ts'

const AF_INET = 2 // on every platform
const LOOPBACK = '127.0.0.1'

// int socket(int domain, int type, int protocol)
const socket = declare('socket', 'int', ['int', 'int', 'int'])
// int connect(int fd, const struct sockaddr *addr, socklen_t addrlen)
const connect = declare('connect', 'int', ['int', 'pointer', 'uint'])
// int getsockname(int fd, struct sockaddr *addr, socklen_t *addrlen)
const getsockname = declare('getsockname', 'int', ['int', 'pointer', 'pointer'])

/** Both are blocking, one is the other's peer. */
export function tcpPair(): [number, number] {
  const listening = serviceSocket('tcp', { host: LOOPBACK, port: 0 })
  const name = allocate(16)
  const length = allocate(4)
  length.bytes.writeUInt32LE(name.bytes.length)
  check('getsockname', getsockname(listening, name.address, length.address))

  const port = name.bytes.readUInt16BE(2)
  const near = check('socket', socket(AF_INET, host.constants.SOCK_STREAM, 0))
  name.bytes.set(inetAddress(LOOPBACK, port))
  check('connect', connect(near, name.address, name.bytes.length))
  const far = check('accept', acceptFrom(listening))
  closeSync(listening)
  return [near, far]
}

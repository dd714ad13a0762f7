// Sockets that are read to their end, that are full, and that never will be read.
// Not a test itself.

import { once } from 'node:events'
import { Socket } from 'node:net'

import { tcpPair } from '../../examples/gotchas/tcp-pair.ts'
import { host } from '../../lib/layouts.ts'
import * as libc from '../../lib/libc.ts'
import { sendNow } from '../../lib/message.ts'

// int setsockopt(int fd, int level, int name, const void *value,
//                socklen_t len)
const option = ['int', 'int', 'int', 'pointer', 'uint'] as const
const setsockopt = libc.declare('setsockopt', 'int', option)

/**
 * A TCP socket whose last close(2) would wait an hour for its peer to read, by
 * SO_LINGER; and the peer. Both are the caller's to close.
 */
export function lingering(): { fd: number; peer: number } {
  const [fd, peer] = tcpPair()
  const { SOL_SOCKET, SO_LINGER } = host.constants
  const linger = libc.allocate(8)
  linger.bytes.writeInt32LE(1)
  linger.bytes.writeInt32LE(3600, 4)
  const result = setsockopt(fd, SOL_SOCKET, SO_LINGER, linger.address, 8)
  libc.check('setsockopt', result)
  fill(fd)
  return { fd, peer }
}

/** Fills a socket: it can send no more. */
export function fill(fd: number): void {
  const message = { data: Buffer.alloc(60_000), control: Buffer.alloc(0) }
  while (sendNow(fd, message) > 0);
}

/** Reads a socket to its end, and closes it. */
export async function readToEnd(fd: number): Promise<void> {
  await once(new Socket({ fd }).resume(), 'close')
}

// The other process of soak-messages.ts, at the other end of a socketpair, as
// fd 3. A message without descriptors asks for so many messages, as four bytes,
// none being answered with a byte. One with descriptors is sent back.

import { closeSync, openSync } from 'node:fs'

import { UnixConn } from '../lib/index.ts'

/** Handed over before the first is waited for. */
const WINDOW = 256

const conn = UnixConn.fromFd(3)
const sent = openSync('/dev/null', 'r')

for (;;) {
  const message = await conn.recvFds()
  if (message === null) break
  if (message.fds.length > 0) {
    await conn.sendFds(message.data, message.fds)
    for (const fd of message.fds) closeSync(fd)
  } else {
    await give(message.data.readUInt32LE())
  }
}

async function give(count: number): Promise<void> {
  if (count === 0) await conn.sendmsg('.')
  for (let left = count; left > 0; left -= WINDOW) {
    const sends = Array.from({ length: Math.min(left, WINDOW) }, () =>
      conn.sendFds('x', [sent]),
    )
    await Promise.all(sends)
  }
}

// Sockets with SO_LINGER that a peer sends so that close(2) of them waits: in
// each place where the kernel closes them, the event loop goes on. A byte that
// arrives meanwhile is the proof, as no time is measured.

import { closeSync, writeSync } from 'node:fs'

import { UnixConn } from '../../../lib/index.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { leakFree } from '../../support/descriptors.ts'
import { missing } from '../../support/missing.ts'
import { Running } from '../../support/processes.ts'
import { lingering, readToEnd } from '../../support/sockets.ts'

for (const [name, flags] of [
  ['queued when the connection is closed', 0],
  ['on an out-of-band byte that nobody reads', 1 /* MSG_OOB */],
] as const) {
  leakFree(
    `close() does not wait for a lingering socket ${name}`,
    async (t) => {
      const { fd, peer } = lingering()
      const [ours, theirs] = newSocketpair()
      const source =
        'import socket, array, sys\n' +
        's = socket.socket(fileno=3)\n' +
        "rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [4]))\n" +
        `s.sendmsg([b'x'], [rights], ${flags})\n` +
        "print('sent', flush=True)\n"
      const python = new Running(t, ['python3', '-c', source], {
        stdio: ['ignore', 'pipe', 'pipe', theirs, fd],
      })
      await python.printed(/sent/)
      await python.exit
      for (const each of [theirs, fd]) closeSync(each)
      const conn = UnixConn.fromFd(ours)
      conn.close()
      // It closes an hour later, or when its peer has read all.
      const [one, other] = newSocketpair()
      writeSync(one, 'x')
      const next = UnixConn.fromFd(other)
      t.match(await next.recvFds(), { fds: [] }, 'others are served')
      next.close()
      closeSync(one)
      await readToEnd(peer)
    },
    missing('python3'),
  )
}

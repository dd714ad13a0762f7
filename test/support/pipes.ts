// Pipes, which Node cannot make. Not a test itself.

import { execFileSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

import { UnixConn } from '../../lib/index.ts'
import { duplicate, newSocketpair } from '../../lib/socket/unix.ts'
import { Running } from './processes.ts'

/** pipe(2), by a detour: Node has no call for it, but opens a FIFO. */
export function pipe(): { r: number; w: number } {
  const folder = mkdtempSync(join(tmpdir(), 'fd-'))
  const path = join(folder, 'fifo')
  execFileSync('mkfifo', [path])
  // Opened for both, it does not wait for the other end.
  const both = openSync(path, constants.O_RDWR)
  const r = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const w = openSync(path, constants.O_WRONLY)
  closeSync(both)
  rmSync(folder, { recursive: true })
  return { r, w }
}

/**
 * pipe(2), anonymous: what a shell makes for `|`. `shared` is another number
 * for the open file description of `r`. By another detour: a child that holds
 * the pipe sends it.
 */
export async function anonymousPipe(t: Test) {
  const [ours, theirs] = newSocketpair()
  const source =
    'import os, socket; s = socket.socket(fileno=3); ' +
    "socket.send_fds(s, [b'x'], list(os.pipe()))"
  const child = new Running(t, ['python3', '-c', source], {
    stdio: ['ignore', 'pipe', 'pipe', theirs],
  })
  closeSync(theirs)
  const conn = UnixConn.fromFd(ours)
  const { fds: [r = -1, w = -1] = [] } = (await conn.recvFds()) ?? {}
  conn.close()
  await child.exit
  return { r, w, shared: duplicate(r) }
}

// Processes of other users, which root alone can start. Not a test itself.

import { spawnSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { resolve } from 'node:path'

import { plainEnv } from './processes.ts'

/**
 * A reason to skip if no script can be run as user 65534 (nobody), else false:
 * only root can, and only where that user may read this folder and Node.
 */
export function missingNobody(): string | false {
  if (process.getuid?.() !== 0) return 'only root can run a script as nobody'
  // By its whole path: the folders above it may be closed to that user.
  const file = JSON.stringify(resolve('package.json'))
  const read = `require('fs').readFileSync(${file})`
  const nobody = { uid: 65534, gid: 65534, env: plainEnv() }
  const { status } = spawnSync(process.execPath, ['-e', read], nobody)
  return status !== 0 && `nobody cannot read ${process.cwd()} or run Node`
}

/**
 * A command that runs another as a user who has no other process, so that
 * nothing else counts towards what the kernel limits for each user. For root.
 */
export function asNewUser(): string[] {
  const id = randomInt(10_000, 60_000)
  const ids = [`--reuid=${id}`, `--regid=${id}`, '--clear-groups']
  // tsx would leave a folder behind for each user.
  return ['env', 'TSX_DISABLE_CACHE=1', 'setpriv', ...ids]
}

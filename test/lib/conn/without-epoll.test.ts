// The tests of what waits, once more, as it waits elsewhere than on Linux:
// without epoll.

import { join } from 'node:path'
import { t } from 'tap'

import { hasEpoll } from '../../../lib/wait/watch.ts'

const NAMES = [
  'ahead',
  'conn',
  'datagram',
  'listener',
  'receiver',
  'sender',
  'seqpacket',
  'stream',
]

const skip =
  (!hasEpoll && 'the tests themselves run without epoll') ||
  (process.env.FDPASS_FFI === 'node' && 'net.Socket waits with either engine')

// With the loaders of the runner, and without a limit of their own.
for (const name of NAMES) {
  const file = join(import.meta.dirname, `${name}.test.ts`)
  const env = { ...process.env, FDPASS_WAIT: 'sockets' }
  const args = [...process.execArgv, file]
  t.spawn(process.execPath, args, { name, env, skip, timeout: 0 })
}

// uv_poll: its handles, and what happens where it fails. What every watcher
// does is in watcher.test.ts.

import { closeSync, writeSync } from 'node:fs'

import { engineName } from '../../../lib/libc.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { UvPoll } from '../../../lib/wait/uv-poll.ts'
import { leakFree, plainEnv, run, script, until } from '../../support.ts'

const skip = engineName === 'node:ffi' ? false : 'not with ffi-rs'
const env = plainEnv({ FDPASS_FFI: 'node' })

// Left open, and ready, to the end of this process, which has to end well.
if (!skip) {
  const [fd, peer] = newSocketpair()
  const left = new UvPoll(fd, () => left.rest())
  left.keepAlive(false)
  left.watch()
  writeSync(peer, 'x')
}

leakFree(
  'one owner that throws does not keep the others from their turn',
  async (t) => {
    const pairs = Array.from({ length: 3 }, newSocketpair)
    const told: number[] = []
    const errors: unknown[] = []
    const watchers = pairs.map(([fd], index) => {
      const watcher = new UvPoll(fd, () => {
        told.push(index)
        watcher.rest()
        throw new Error(`of ${index}`)
      })
      return watcher
    })
    // The runner's own listener would fail the test.
    const listeners = process.listeners('uncaughtException')
    process.removeAllListeners('uncaughtException')
    process.on('uncaughtException', (error) => errors.push(error.message))
    t.teardown(() => {
      process.removeAllListeners('uncaughtException')
      for (const each of listeners) process.on('uncaughtException', each)
    })
    for (const watcher of watchers) watcher.watch()
    for (const [, peer] of pairs) writeSync(peer, 'x')
    await until('all are told', () => errors.length === 3)
    t.strictSame(told.sort(), [0, 1, 2])
    t.strictSame(errors.sort(), ['of 0', 'of 1', 'of 2'])
    for (const watcher of watchers) watcher.close()
    for (const [, peer] of pairs) closeSync(peer)
  },
  skip,
)

leakFree(
  'a descriptor that Node polls already: the owner is told',
  async (t) => {
    const [one, other] = newSocketpair()
    const failures: (Error | undefined)[] = []
    const first = new UvPoll(one, () => {})
    const second = new UvPoll(one, (failure) => {
      failures.push(failure)
      second.rest()
    })
    first.watch()
    second.watch()
    await until('the failure', () => failures.length > 0)
    t.match(failures, [{ code: 'EEXIST', syscall: 'uv_poll_start' }])
    const called = new Promise<void>((resolve) => {
      second.whenWritable(0, resolve)
    })
    await called
    first.rest()
    second.close()
    t.throws(() => first.close(), { code: 'EBADF' }, 'which it shared')
    closeSync(other)
  },
  skip,
)

leakFree(
  'an error on the socket is told, and does not end the watch',
  async (t) => {
    const [one, other] = newSocketpair()
    let calls = 0
    const watcher = new UvPoll(one, () => calls++)
    // Closed with bytes unread: ECONNRESET is left behind for the peer.
    writeSync(one, 'unread')
    watcher.watch()
    closeSync(other)
    await until('the call', () => calls > 1)
    t.ok(calls > 1, 'again and again, until it is fetched')
    watcher.close()
  },
  skip,
)

// Closed at every point of its life, thousands of times, while everything that
// nothing refers to is collected: libuv must not write into freed memory.
const churn = `
import { closeSync, readSync, writeSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { newSocketpair } from './lib/socket/unix.ts'
import { UvPoll } from './lib/wait/uv-poll.ts'

let told = 0
let written = 0
const full = Buffer.alloc(400_000)
for (let round = 0; round < 200; round++) {
  const open = []
  for (let point = 0; point < 10; point++) {
    const [fd, peer] = newSocketpair()
    const watcher = new UvPoll(fd, () => {
      told++
      if (point === 4) watcher.close()
      else watcher.rest()
    })
    if (point === 0) watcher.close()
    watcher.watch()
    if (point === 1) watcher.close()
    if (point === 2) watcher.rest()
    if (point >= 3) writeSync(peer, 'x')
    if (point === 5) watcher.whenWritable(0, () => { written++; watcher.close() })
    if (point === 6) watcher.write(full, () => {})
    if (point === 7) { closeSync(peer); await turn() }
    if (point === 8) await turn()
    if (round % 2 === 0 && point === 9) watcher.close()
    open.push(() => {
      watcher.close()
      watcher.close()
      if (point !== 7) closeSync(peer)
    })
  }
  if (round % 4 === 0) gc()
  if (round % 4 < 3) await turn()
  if (round % 4 === 1) gc()
  for (const close of open) close()
  if (round % 4 === 2) gc()
}
await turn()
console.log('told', told > 0, 'written', written > 0)
`

leakFree(
  'handles are closed and opened again at every point of their life',
  async (t) => {
    const command = script('--expose-gc', '--input-type=module', '-e')
    const result = await run(t, [...command, churn], { env })
    t.equal(result.stdout, 'told true written true\n', result.stderr)
    t.strictSame([result.code, result.signal], [0, null])
  },
  skip,
)

// The process ends, by itself or by exit(), with handles in every state.
const ending = (how: string): string => `
import { writeSync } from 'node:fs'
import { newSocketpair } from './lib/socket/unix.ts'
import { UvPoll } from './lib/wait/uv-poll.ts'
const pairs = Array.from({ length: 100 }, newSocketpair)
const watchers = pairs.map(([fd]) => new UvPoll(fd, () => {}))
for (const [index, watcher] of watchers.entries()) {
  if (index % 4 === 0) watcher.close()
  if (index % 4 === 1) { watcher.keepAlive(false); watcher.watch() }
  if (index % 4 === 2) { watcher.watch(); watcher.rest() }
  if (index % 8 === 1) writeSync(pairs[index][1], 'x')
}
process.on('exit', () => {
  for (const watcher of watchers.slice(0, 50)) watcher.close()
  for (const watcher of watchers.slice(50)) watcher.watch()
})
gc()
${how}
`

leakFree(
  'a process ends with handles open',
  async (t) => {
    const ways = {
      'by itself': '',
      'by exit()': 'process.exit(0)',
      'by exit() later': 'setTimeout(() => process.exit(0), 5)',
    }
    for (const [name, how] of Object.entries(ways)) {
      const command = script('--expose-gc', '--input-type=module', '-e')
      const result = await run(t, [...command, ending(how)], { env })
      t.strictSame([result.code, result.signal], [0, null], name)
      t.notMatch(result.stderr, /Error|Assert|abort/i)
    }
  },
  skip,
)

// uv_poll, by which the event loop watches the list of epoll(7) with node:ffi:
// what it tells, and that a process ends well whatever is ready at its end.

import { closeSync, openSync } from 'node:fs'
import type { Test } from 'tap'

import { engineName } from '../../../lib/libc.ts'
import { UvPoll } from '../../../lib/wait/uv-poll.ts'
import { leakFree } from '../../support/descriptors.ts'
import { plainEnv, run, script } from '../../support/processes.ts'

const skip = engineName === 'node:ffi' ? false : 'not with ffi-rs'

/**
 * Runs a module in a process of its own, as each UvPoll lasts to the end of the
 * process. It has to end by itself, with this code, and nothing on stderr.
 */
async function runModule(t: Test, source: string, code = 0): Promise<string> {
  const command = script('--expose-gc', '--input-type=module', '-e')
  const env = { ...plainEnv(), FDPASS_WAIT: '' }
  const result = await run(t, [...command, source], { env })
  t.strictSame([result.code, result.signal], [code, null], 'how it ended')
  if (code === 0) t.equal(result.stderr, '')
  return result.stdout
}

leakFree(
  'what cannot be watched is refused, and remains the caller’s',
  async (t) => {
    const file = openSync('package.json', 'r')
    const message = new RegExp(`^uv_poll_init EPERM descriptor ${file}`)
    const never = { code: 'EPERM', syscall: 'uv_poll_init', message }
    t.throws(() => new UvPoll(file, () => {}), never)
    closeSync(file)
    const closed = { code: 'EBADF', syscall: 'uv_poll_init' }
    t.throws(() => new UvPoll(file, () => {}), closed)
  },
  skip,
)

leakFree(
  'it tells once in each turn in which a read would not block',
  async (t) => {
    const source = `
import { once } from 'node:events'
import { writeSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { receiveNow } from './lib/message.ts'
import { newSocketpair } from './lib/socket/unix.ts'
import { UvPoll } from './lib/wait/uv-poll.ts'
const [one, other] = newSocketpair()
let calls = 0
const poll = new UvPoll(one, () => calls++)
for (let i = 0; i < 5; i++) await turn()
console.log('before', calls)
writeSync(other, 'still there')
while (calls < 3) await turn()
gc()
const { data } = receiveNow(one, 100)
console.log(String(data))
for (let i = 0; i < 5; i++) await turn()
const last = calls
for (let i = 0; i < 5; i++) await turn()
console.log('after', calls - last)
writeSync(other, 'x')
while (calls === last) await turn()
console.log('again')
`
    const stdout = await runModule(t, source)
    t.equal(stdout, 'before 0\nstill there\nafter 0\nagain\n')
  },
  skip,
)

leakFree(
  'only a referenced one keeps the process alive',
  async (t) => {
    const source = `
import { once } from 'node:events'
import { writeSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { newSocketpair } from './lib/socket/unix.ts'
import { UvPoll } from './lib/wait/uv-poll.ts'
const [one, other] = newSocketpair()
let calls = 0
const poll = new UvPoll(one, () => { calls++; poll.unref() })
await once(process, 'beforeExit')
for (const prepare of [
  () => {},
  () => { poll.ref(); poll.unref() },
  () => { poll.ref(); poll.ref(); gc() },
]) {
  // One turn, so that the event loop ends again if nothing keeps it alive.
  await turn()
  let outcome = 'ends'
  calls = 0
  prepare()
  const timer = setTimeout(() => {
    outcome = 'waits'
    writeSync(other, 'x')
  }, 200)
  timer.unref()
  await once(process, 'beforeExit')
  console.log(outcome, calls > 0)
  clearTimeout(timer)
}
`
    t.equal(await runModule(t, source), 'ends false\nends false\nwaits true\n')
  },
  skip,
)

// Connections that wait, of which each second one has something to receive.
const CONNECTIONS = `
import { writeSync } from 'node:fs'
import { socketpair, waitReadable } from './lib/index.ts'
const pairs = Array.from({ length: 100 }, () => socketpair())
function sendToSome() {
  for (const [index, [, peer]] of pairs.entries()) {
    if (index % 2) writeSync(peer.fd, 'x')
  }
}
`

const endings: Readonly<Record<string, string>> = {
  'by itself, with connections that are ready': `
    for (const [conn] of pairs) conn.unref().recvmsg()
    sendToSome()
  `,
  'by itself, with waits that were told': `
    sendToSome()
    await waitReadable(pairs[1][0].fd)
    for (const [conn] of pairs) conn.unref().recvmsg()
  `,
  'by exit(), with connections that are ready': `
    for (const [conn] of pairs) conn.recvmsg()
    sendToSome()
    await null
    process.exit()
  `,
  'by exit() when it is told': `
    for (const [conn] of pairs) conn.recvmsg().then(() => process.exit())
    sendToSome()
  `,
  'by exit() in a timer': `
    for (const [conn] of pairs) conn.recvmsg()
    setTimeout(() => { sendToSome(); process.exit() })
  `,
  'by itself, and closes connections before all other listeners': `
    for (const [conn] of pairs) conn.unref().recvmsg()
    process.prependListener('exit', () => {
      for (const [conn] of pairs) conn.close()
    })
    sendToSome()
  `,
  'by exit(), and closes connections before all other listeners': `
    for (const [conn] of pairs) conn.recvmsg()
    process.prependListener('exit', () => {
      for (const [conn] of pairs) conn.close()
    })
    sendToSome()
    await null
    process.exit()
  `,
  'by itself, and closes connections after all other listeners': `
    for (const [conn] of pairs) conn.unref().recvmsg()
    process.on('exit', () => {
      for (const pair of pairs) for (const conn of pair) conn.close()
    })
    sendToSome()
  `,
  'by itself, and uses connections at its end': `
    for (const [conn] of pairs) conn.unref().recvmsg()
    process.on('exit', () => {
      for (const [conn, peer] of pairs) {
        conn.ref()
        peer.recvmsg()
        peer.unref()
        waitReadable(peer.fd)
        writeSync(conn.fd, 'late')
      }
      sendToSome()
    })
  `,
  'by exit(), and waits for the first time at its end': `
    process.on('exit', () => {
      for (const [conn] of pairs) conn.recvmsg()
      sendToSome()
    })
    process.exit()
  `,
  'by itself, and goes on once before that': `
    const [[first, peer], ...others] = pairs
    for (const [conn] of others) conn.unref().recvmsg()
    process.once('beforeExit', () => {
      first.recvmsg().then(sendToSome)
      setTimeout(() => peer.sendmsg('x')).unref()
    })
  `,
  'by itself, after everything that nothing refers to is collected': `
    await Promise.all(pairs.slice(0, 50).map(async ([conn, peer]) => {
      const received = conn.recvmsg()
      gc()
      await peer.sendmsg('x')
      await received
    }))
    for (const [conn] of pairs) conn.unref().recvmsg()
    sendToSome()
    gc()
  `,
}

for (const [how, source] of Object.entries(endings)) {
  leakFree(
    `a process ends ${how}`,
    async (t) => {
      const announce = `process.on('exit', () => console.log('the end'))\n`
      const stdout = await runModule(t, CONNECTIONS + announce + source)
      t.equal(stdout, 'the end\n', 'once, and nothing after it')
    },
    skip,
  )
}

leakFree(
  'an error of an owner ends the process as any other does',
  async (t) => {
    const source = `
import { UnixConn } from './lib/index.ts'
import { newSocketpair } from './lib/socket/unix.ts'
import { READABLE, Watch } from './lib/wait/watch.ts'
import { writeSync } from 'node:fs'
const pairs = Array.from({ length: 3 }, () => newSocketpair())
for (const [fd, peer] of pairs) {
  const watch = new Watch(fd, 'edge', () => { throw new Error('of ' + fd) })
  watch.wait(READABLE)
  writeSync(peer, 'x')
}
process.on('exit', (code) => console.log('exit', code))
`
    t.equal(await runModule(t, source, 1), 'exit 1\n')
  },
  skip,
)

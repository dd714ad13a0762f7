// Waiting for room without uv_poll: told by epoll(7), and by the clock.

import { closeSync, openSync, writeSync } from 'node:fs'

import { receiveNow, sendNow } from '../../../lib/message.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { whenWritable } from '../../../lib/wait/writable.ts'
import {
  leakFree,
  missing,
  plainEnv,
  run,
  script,
  turns,
  until,
} from '../../support.ts'

const notLinux =
  process.platform === 'linux' ? false : 'only Linux has epoll(7)'

/** A pair whose first end can send no more. */
function fullPair(): [number, number] {
  const [one, other] = newSocketpair()
  const message = { data: Buffer.alloc(60_000), control: Buffer.alloc(0) }
  while (sendNow(one, message) > 0);
  return [one, other]
}

function drain(fd: number): void {
  while (typeof receiveNow(fd, 2 ** 20) !== 'number');
}

leakFree(
  'whenWritable() calls back once there is room',
  async (t) => {
    const [one, other] = fullPair()
    let calls = 0
    whenWritable(one, 0, () => calls++)
    await turns()
    t.equal(calls, 0, 'not while it is full')
    drain(other)
    await until('room', () => calls > 0)
    writeSync(one, 'x')
    await turns()
    t.equal(calls, 1)
    for (const fd of [one, other]) closeSync(fd)
  },
  notLinux,
)

leakFree('whenWritable() stops when told', async (t) => {
  const [one, other] = fullPair()
  const stop = whenWritable(one, 0, () => t.fail('called'))
  stop()
  drain(other)
  await turns()
  for (const fd of [one, other]) closeSync(fd)
  t.pass('nothing was heard')
})

leakFree('whenWritable() is ended by a peer that goes away', async (t) => {
  const [one, other] = fullPair()
  let calls = 0
  whenWritable(one, 0, () => calls++)
  closeSync(other)
  await until('the call', () => calls === 1)
  t.equal(calls, 1)
  closeSync(one)
})

leakFree('whenWritable() goes by the clock where nothing tells', async (t) => {
  // A file, which epoll_ctl refuses.
  const fd = openSync('/dev/null', 'w')
  const stop = whenWritable(fd, 0, () => t.fail('called'))
  stop()
  const order: number[] = []
  const waits = [5, 0].map(
    (tries) =>
      new Promise<void>((resolve) => {
        whenWritable(fd, tries, () => {
          order.push(tries)
          resolve()
        })
      }),
  )
  await Promise.all(waits)
  t.strictSame(order, [0, 5], 'the more tries there were, the longer it waits')
  closeSync(fd)
})

// The first full socket of the process needs an epoll instance, and there is
// no descriptor for it.
const full = `
import { closeSync, openSync, readdirSync } from 'node:fs'
import { socketpair } from './lib/index.ts'
const [a, b] = socketpair()
const fillers = []
for (;;) { try { fillers.push(openSync('/dev/null')) } catch { break } }
const sends = []
for (let i = 0; i < 1000; i++) sends.push(a.sendFds('x'.repeat(2000), [0]))
await new Promise((resolve) => setTimeout(resolve, 20))
for (const fd of fillers.splice(-20)) closeSync(fd)
let bytes = 0
let count = 0
while (bytes < 2_000_000) {
  const { data, fds } = await b.recvFds()
  bytes += data.length
  count += fds.length
  for (const fd of fds) closeSync(fd)
}
await Promise.all(sends)
console.log('descriptors', count)
a.close()
b.close()
`

leakFree(
  'a full socket and no free descriptor: the send waits all the same',
  async (t) => {
    const command = ['prlimit', '--nofile=200:200']
    const env = plainEnv({ FDPASS_FFI: process.env.FDPASS_FFI })
    const args = [...script('--input-type=module', '-e'), full]
    const { code, stdout, stderr } = await run(t, [...command, ...args], {
      env,
    })
    t.equal(stdout, 'descriptors 1000\n', stderr)
    t.equal(code, 0)
  },
  missing('prlimit'),
)

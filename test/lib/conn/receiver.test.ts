// Who gets what of that which arrives: calls with sizes of their own, loops
// that take all, and calls that are given up.

import { getEventListeners } from 'node:events'
import { closeSync, fstatSync } from 'node:fs'
import { t } from 'tap'

import { socketpair, UnixConn } from '../../../lib/index.ts'
import { MAX_BATCH } from '../../../lib/socket/batch.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import {
  leakFree,
  missing,
  openFds,
  pipe,
  Running,
  run,
  script,
} from '../../support.ts'

const ROUNDS = 60

const noBatches =
  MAX_BATCH === 1 && 'nothing is read ahead where libc is not glibc'

/** A message of a protocol that says how long the next part is. */
function header(bodyLength: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32LE(bodyLength)
  return bytes
}

// Reads header by header and body by body, each by its length. Returns how many
// of the bodies came whole, with one descriptor.
async function readByLength(conn: UnixConn): Promise<number> {
  let right = 0
  for (let i = 0; i < ROUNDS; i++) {
    const head = await conn.recvFds({ maxBytes: 8, maxFds: 0 })
    const maxBytes = head?.data.readUInt32LE() ?? 0
    const body = await conn.recvFds({ maxBytes, maxFds: 1 })
    const { data, fds } = body ?? { data: '', fds: [] }
    if (`${data}` === `body ${i}` && fds.length === 1) right++
    for (const fd of fds) closeSync(fd)
  }
  return right
}

leakFree('recvFds() takes its own maxBytes, and no more', async (t) => {
  const [a, b] = socketpair()
  const sends: Promise<void>[] = []
  for (let i = 0; i < ROUNDS; i++) {
    const body = `body ${i}`
    sends.push(a.sendmsg(header(body.length)), a.sendFds(body, [0]))
  }
  await Promise.all(sends)
  t.equal(await readByLength(b), ROUNDS)
  for (const conn of [a, b]) conn.close()
})

leakFree(
  'recvFds() takes its own maxBytes of what Python sends',
  async (t) => {
    const [ours, theirs] = newSocketpair()
    const source = `
import os, socket
s = socket.socket(fileno=3)
for i in range(${ROUNDS}):
  body = b'body %d' % i
  s.sendall(len(body).to_bytes(8, 'little'))
  socket.send_fds(s, [body], [0])
`
    const python = new Running(t, ['python3', '-c', source], {
      stdio: ['ignore', 'inherit', 'inherit', theirs],
    })
    closeSync(theirs)
    await python.exit
    const conn = UnixConn.fromFd(ours)
    t.equal(await readByLength(conn), ROUNDS)
    t.equal(await conn.recvFds(), null)
    conn.close()
  },
  missing('python3'),
)

leakFree('a large maxBytes leaves later calls theirs', async (t) => {
  const [a, b] = socketpair()
  for (let i = 0; i < 20; i++) {
    await a.sendFds('x', [0])
    await a.sendmsg('header')
    await a.sendFds('body', [0])
  }
  const counts = new Set<string>()
  for (let i = 0; i < 20; i++) {
    for (const maxBytes of [65536, 6, 65536]) {
      const { data, fds } = (await b.recvFds({ maxBytes })) ?? { fds: [] }
      counts.add(`${data} ${fds.length}`)
      for (const fd of fds) closeSync(fd)
    }
  }
  t.strictSame([...counts], ['x 1', 'header 0', 'body 1'])
  for (const conn of [a, b]) conn.close()
})

leakFree('for await gives all messages, to the end of file', async (t) => {
  const [a, b] = socketpair()
  const { r, w } = pipe()
  const sends: Promise<void>[] = []
  for (let i = 0; i < 200; i++) sends.push(a.sendFds(`${i};`, [r]))
  const ended = Promise.all(sends).then(() => a.close())
  const seen: string[] = []
  let same = 0
  for await (const { data, fds } of b) {
    seen.push(data.toString())
    for (const fd of fds) {
      if (fstatSync(fd).ino === fstatSync(r).ino) same++
      closeSync(fd)
    }
  }
  await ended
  t.equal(seen.length, 200)
  t.equal(seen.join(''), Array.from(seen, (_, i) => `${i};`).join(''))
  t.equal(same, 200)
  t.equal(await b.recvFds(), null, 'and stays at the end')
  for (const fd of [r, w]) closeSync(fd)
  b.close()
})

leakFree('for await takes the first message alone', async (t) => {
  const [a, b] = socketpair()
  for (let i = 0; i < 9; i++) await a.sendFds(`${i}`, [0])
  const before = openFds().length
  for await (const { fds } of b) {
    t.equal(openFds().length, before + 1, 'the others stay in the kernel')
    for (const fd of fds) closeSync(fd)
    break
  }
  const rest = await b.recvFds({ maxBytes: 1 })
  t.equal(openFds().length, before + 1, 'for a call with a size too')
  for (const fd of rest?.fds ?? []) closeSync(fd)
  for (const conn of [a, b]) conn.close()
})

leakFree(
  'what a loop that is left had read ahead comes next',
  async (t) => {
    const [a, b] = socketpair()
    for (let i = 0; i < 20; i++) await a.sendFds(`message ${i}`, [0])
    const seen: string[] = []
    const take = (message: { data: Buffer; fds: number[] } | null): void => {
      seen.push(`${message?.data} ${message?.fds.length}`)
      for (const fd of message?.fds ?? []) closeSync(fd)
    }
    for await (const message of b) {
      take(message)
      if (seen.length === 4) break
    }
    take(await b.recvFds({ maxBytes: 1 }))
    await t.rejects(b.recvFds({ maxFds: 0 }), {
      code: 'ERR_TOO_MANY_FDS',
      data: Buffer.from('message 5'),
    })
    for await (const message of b.messages({ maxFds: 1 })) {
      take(message)
      if (seen.length === 19) break
    }
    const expected = Array.from({ length: 20 }, (_, i) => `message ${i} 1`)
    expected.splice(5, 1)
    t.strictSame(seen, expected)
    for (const conn of [a, b]) conn.close()
  },
  noBatches,
)

leakFree('messages() refuses, and the connection works on', async (t) => {
  const [a, b] = socketpair()
  await a.sendFds('two', [0, 0])
  await a.sendFds('one', [0])
  const collect = async (): Promise<void> => {
    for await (const _ of b.messages({ maxFds: 1 })) t.fail('delivered')
  }
  await t.rejects(collect(), { code: 'ERR_TOO_MANY_FDS' })
  const { data, fds } = (await b.recvFds()) ?? { fds: [] }
  t.equal(`${data}`, 'one')
  for (const fd of fds) closeSync(fd)
  t.throws(() => b.messages({ maxBytes: 0 }), { name: 'RangeError' })
  for (const conn of [a, b]) conn.close()
})

// A process that may have 1,100 descriptors, and a peer that sent 4,000. What
// is read ahead leaves room for what it opens itself.
const bounded = `
import { closeSync } from 'node:fs'
import { readdirSync } from 'node:fs'
import { socketpair } from './lib/index.ts'
const openFds = () => readdirSync('/proc/self/fd').length
const [a, b] = socketpair()
for (let i = 0; i < 40; i++) await a.sendFds('x', Array(100).fill(0))
a.close()
const before = openFds()
let most = 0
let count = 0
for await (const { fds } of b) {
  most = Math.max(most, openFds() - before)
  count += fds.length
  for (const fd of fds) closeSync(fd)
}
console.log(count, most > 100, most <= 550 + 100)
`

t.test(
  'reading ahead takes at most half of the descriptors',
  { skip: noBatches || missing('prlimit') },
  async (t) => {
    const command = script('--input-type=module', '-e', bounded)
    const limited = ['prlimit', '--nofile=1100:1100', ...command]
    const { stdout, stderr } = await run(t, limited)
    t.equal(stdout, '4000 true true\n', stderr)
  },
)

const aborted = { name: 'AbortError', code: 'ABORT_ERR' }

leakFree(
  'an aborted signal: AbortError, and nothing is received',
  async (t) => {
    const [a, b] = socketpair()
    await a.sendFds('kept', [0])
    const signal = AbortSignal.abort('why')
    await t.rejects(b.recvFds({ signal }), { ...aborted, cause: 'why' })
    await t.rejects(b.recvmsg({ signal }), aborted)
    await t.rejects(b.messages({ signal }).next(), aborted)
    const { data, fds } = (await b.recvFds()) ?? { fds: [] }
    t.equal(`${data}`, 'kept')
    for (const fd of fds) closeSync(fd)
    for (const conn of [a, b]) conn.close()
  },
)

leakFree('an abort while waiting leaves what comes to others', async (t) => {
  const [a, b] = socketpair()
  const controller = new AbortController()
  const { signal } = controller
  const given = [b.recvFds({ signal }), b.recvmsg({ signal })]
  const second = b.recvFds()
  const third = b.recvFds({ signal })
  t.equal(getEventListeners(signal, 'abort').length, 3)
  controller.abort()
  for (const call of [...given, third]) {
    await call.then(
      () => t.fail('delivered'),
      (error) => t.match(error, aborted),
    )
  }
  t.equal(getEventListeners(signal, 'abort').length, 0)
  await a.sendFds('1', [0])
  const { data, fds } = (await second) ?? { fds: [] }
  t.equal(`${data}`, '1')
  for (const fd of fds) closeSync(fd)
  for (const conn of [a, b]) conn.close()
})

leakFree('an abort after the message came changes nothing', async (t) => {
  const [a, b] = socketpair()
  const controller = new AbortController()
  const { signal } = controller
  const early = b.recvFds({ signal })
  await a.sendFds('1', [0])
  const { data, fds } = (await early) ?? { fds: [] }
  t.equal(`${data}`, '1')
  for (const fd of fds) closeSync(fd)
  const refused = b.recvmsg({ signal, maxFds: 0 })
  await a.sendFds('2', [0])
  await t.rejects(refused, { code: 'ERR_TOO_MANY_FDS' })
  const last = b.recvmsg({ signal })
  a.close()
  t.equal(await last, null)
  t.equal(getEventListeners(signal, 'abort').length, 0)
  controller.abort()
  b.close()
})

leakFree('an abort ends a loop', async (t) => {
  const [a, b] = socketpair()
  const controller = new AbortController()
  await a.sendmsg('1')
  const loop = async (): Promise<void> => {
    for await (const _ of b.messages({ signal: controller.signal })) {
      setImmediate(() => controller.abort())
    }
  }
  await t.rejects(loop(), aborted)
  await a.sendmsg('2')
  t.equal((await b.recvmsg())?.data.toString(), '2')
  for (const conn of [a, b]) conn.close()
})

leakFree('an abort ends a loop that has read ahead, too', async (t) => {
  const [a, b] = socketpair()
  const controller = new AbortController()
  for (const text of ['1', '2', '3', '4']) await a.sendFds(text, [0])
  const messages = b.messages({ signal: controller.signal })
  const next = async (): Promise<string> => {
    const { value } = await messages.next()
    for (const fd of value?.fds ?? []) closeSync(fd)
    return `${value?.data}`
  }
  t.equal(await next(), '1')
  t.equal(await next(), '2', 'and with it 3, where there are batches')
  controller.abort()
  await t.rejects(next(), aborted)
  for (const text of ['3', '4']) {
    const message = await b.recvFds()
    t.equal(`${message?.data}`, text, 'nothing is lost')
    for (const fd of message?.fds ?? []) closeSync(fd)
  }
  for (const conn of [a, b]) conn.close()
})

leakFree('a signal that is none is refused at the call', async (t) => {
  const [a, b] = socketpair()
  for (const text of ['{}', '5', 'null']) {
    const signal = JSON.parse(text)
    t.throws(() => b.recvmsg({ signal }), { name: 'TypeError' }, text)
    await t.rejects(b.recvFds({ signal }), { name: 'TypeError' }, text)
  }
  await a.sendmsg('kept')
  t.equal((await b.recvmsg())?.data.toString(), 'kept')
  for (const conn of [a, b]) conn.close()
})

const givesUp = `
import { socketpair } from './lib/index.ts'
const [a, b] = socketpair()
const given = b.recvmsg({ signal: AbortSignal.timeout(10) })
await given.catch((error) => console.log(error.code, error.cause.name))
`

t.test('a call that was given up keeps no process alive', async (t) => {
  const command = script('--input-type=module', '-e', givesUp)
  const { code, stdout, stderr } = await run(t, command)
  t.equal(stdout, 'ABORT_ERR TimeoutError\n', stderr)
  t.equal(code, 0)
})

leakFree('a connection is disposable', async (t) => {
  const [a, b] = socketpair()
  a[Symbol.dispose]()
  t.equal(a.fd, -1)
  t.equal(await b.recvmsg(), null)
  b[Symbol.dispose]()
})

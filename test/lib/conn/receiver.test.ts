// Who gets what of that which arrives: calls with sizes of their own, calls
// that wait in line, and calls that are given up. Loops: ahead.test.ts.

import { getEventListeners } from 'node:events'
import { closeSync } from 'node:fs'
import { t } from 'tap'

import { socketpair, UnixConn } from '../../../lib/index.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { leakFree } from '../../support/descriptors.ts'
import { missing } from '../../support/missing.ts'
import { Running, run, script } from '../../support/processes.ts'

const ROUNDS = 60

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

leakFree('a signal that is none is refused at the call', async (t) => {
  const [a, b] = socketpair()
  for (const text of ['{}', '5', 'null']) {
    const signal = JSON.parse(text)
    await t.rejects(b.recvmsg({ signal }), { name: 'TypeError' }, text)
    await t.rejects(b.recvFds({ signal }), { name: 'TypeError' }, text)
  }
  await a.sendmsg('kept')
  t.equal((await b.recvmsg())?.data.toString(), 'kept')
  for (const conn of [a, b]) conn.close()
})

leakFree('a call behind one that was given up is served at once', async (t) => {
  const [a, b] = socketpair()
  const controller = new AbortController()
  const first = b.recvmsg({ signal: controller.signal })
  const second = b.recvFds({ maxBytes: 2 })
  const third = b.recvFds({ maxBytes: 2 })
  controller.abort()
  await t.rejects(first, aborted)
  await a.sendmsg('1122')
  t.equal(`${(await second)?.data}${(await third)?.data}`, '1122')
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

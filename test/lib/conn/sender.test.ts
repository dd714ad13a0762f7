// What becomes of a send when others fail, the socket is full, the process has
// no descriptor left, or the data is gone before it could be sent.

import { closeSync } from 'node:fs'

import { Sender } from '../../../lib/conn/sender.ts'
import { socketpair, UnixConn } from '../../../lib/index.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { Watcher } from '../../../lib/wait/watcher.ts'
import { leakFree, missing, Running, script, until } from '../../support.ts'

/** More than a socket takes at once. */
const LONG = 4_000_000

const NOTHING = Buffer.alloc(0)

async function readAll(conn: UnixConn): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const { data, fds } of conn) {
    pieces.push(data)
    for (const fd of fds) closeSync(fd)
  }
  return Buffer.concat(pieces)
}

leakFree('sendmsg() that is rejected stands alone', async (t) => {
  const [a, b] = socketpair()
  const sends = [a.sendmsg('1'), a.sendFds('2', [99999]), a.sendFds('3', [0])]
  const [one, two, three] = await Promise.allSettled(sends)
  t.equal(one?.status, 'fulfilled')
  t.match(two, { status: 'rejected', reason: { code: 'EBADF' } })
  t.equal(three?.status, 'fulfilled')
  a.close()
  t.equal(`${await readAll(b)}`, '13')
  b.close()
})

leakFree('sendmsg() behind a message that was cut fails', async (t) => {
  const [a, b] = socketpair()
  await b.sendmsg('last words')
  const cut = a.sendmsg(Buffer.alloc(LONG))
  const queued = a.sendFds('queued', [0])
  await b.recvmsg()
  b.close()
  const gone = { code: /^(EPIPE|ECONNRESET)$/ }
  await t.rejects(cut, gone)
  await t.rejects(queued, gone)
  let settled = 0
  const later = [a.sendmsg(Buffer.alloc(LONG)), a.sendmsg('x')].map((send) =>
    send.catch((error) => {
      t.match(error, gone)
      settled++
    }),
  )
  await until('an end of the sends', () => settled === later.length)
  t.equal((await a.recvmsg())?.data.toString(), 'last words')
  a.close()
})

const failure = new Error('The rest failed')

// Its write alone fails: the peer is there, and reads. From then on the socket
// of Node keeps what it is given, and calls back no more.
function failingWatcher(fd: number, beforeFailure = (): void => {}): Watcher {
  const watcher = new Watcher(fd, () => {})
  let failures = 0
  watcher.write = (_: unknown, done: unknown): boolean => {
    if (typeof done !== 'function' || failures++ > 0) return true
    setImmediate(() => {
      beforeFailure()
      done(failure)
    })
    return true
  }
  return watcher
}

leakFree('a peer that got a part of a message is told', async (t) => {
  const [one, other] = newSocketpair()
  const watcher = failingWatcher(one)
  const sender = new Sender(one, watcher)
  const sends = [Buffer.alloc(LONG), Buffer.from('next')].map((data) =>
    sender.send({ data, control: NOTHING }),
  )
  for (const send of sends) await t.rejects(send, failure)
  const later = sender.send({ data: Buffer.alloc(LONG), control: NOTHING })
  await t.rejects(later, failure)
  const peer = UnixConn.fromFd(other)
  const bytes = await readAll(peer)
  t.ok(bytes.length > 0 && bytes.length < LONG, `${bytes.length} bytes, end`)
  peer.close()
  watcher.close()
})

leakFree('a socket that cannot be shut down fails no less', async (t) => {
  const [one, other] = newSocketpair()
  const [third, fourth] = newSocketpair()
  const watcher = failingWatcher(third, () => closeSync(one))
  const sender = new Sender(one, watcher)
  const sending = sender.send({ data: Buffer.alloc(LONG), control: NOTHING })
  await t.rejects(sending, failure)
  watcher.close()
  for (const fd of [other, fourth]) closeSync(fd)
})

// With its table full, a process sends to a peer that reads nothing.
const noDescriptors = `
import { closeSync, openSync } from 'node:fs'
import { UnixConn } from './lib/index.ts'
const conn = UnixConn.fromFd(3)
const filler = []
try { for (;;) filler.push(openSync('/dev/null')) } catch {}
const sends = Array.from({ length: 2000 }, () => conn.sendFds('x', [0]))
setImmediate(() => console.log('full'))
await Promise.allSettled(sends)
for (const fd of filler) closeSync(fd)
console.log('settled')
conn.close()
`

leakFree(
  'EMFILE while the socket is full ends no process',
  async (t) => {
    const [ours, theirs] = newSocketpair()
    const command = script('--input-type=module', '-e', noDescriptors)
    const child = new Running(t, ['prlimit', '--nofile=64', ...command], {
      stdio: ['ignore', 'pipe', 'pipe', theirs],
    })
    closeSync(theirs)
    await child.printed(/full/)
    const peer = UnixConn.fromFd(ours)
    await readAll(peer)
    peer.close()
    const { code } = await child.exit
    t.equal(child.stdout, 'full\nsettled\n', child.stderr)
    t.equal(code, 0)
  },
  missing('prlimit'),
)

type Resizable = ArrayBuffer & { resize(byteLength: number): void }

leakFree('data that is gone before it is sent is a rejection', async (t) => {
  const [a, b] = socketpair()
  const detached = new Uint8Array(1000).fill(1)
  const options = [8, { maxByteLength: 16 }]
  const memory: Resizable = Reflect.construct(ArrayBuffer, options)
  const sends = [
    a.sendmsg('1'),
    a.sendFds(detached, [0]),
    a.sendmsg('2'),
    a.sendmsg(new Uint8Array(memory)),
    a.sendmsg('3'),
  ]
  structuredClone(detached, { transfer: [detached.buffer] })
  memory.resize(3)
  const results = await Promise.allSettled(sends)
  const reasons = results.map((each) =>
    each.status === 'rejected' ? String(each.reason) : '',
  )
  const text = 'detached or resized before it was sent'
  t.strictSame(reasons, [
    '',
    `TypeError: Expected data of 1000 bytes, as at the call, got 0: ${text}`,
    '',
    `TypeError: Expected data of 8 bytes, as at the call, got 3: ${text}`,
    '',
  ])
  t.throws(() => a.sendmsg(detached), { name: 'TypeError' }, 'at the call')
  await a.sendmsg(new Uint8Array(0))
  a.close()
  t.equal(`${await readAll(b)}`, '123')
  b.close()
})

leakFree('data that is gone while a part is sent comes whole', async (t) => {
  const [a, b] = socketpair()
  const data = new Uint8Array(LONG).fill(7)
  const sending = a.sendmsg(data)
  await new Promise((resolve) => setImmediate(resolve))
  const moved = structuredClone(data, { transfer: [data.buffer] })
  moved.fill(8)
  const reading = readAll(b)
  await sending
  a.close()
  const bytes = await reading
  t.equal(bytes.length, LONG)
  t.equal(bytes.indexOf(8), -1, 'what stands there later is not sent')
  b.close()
})

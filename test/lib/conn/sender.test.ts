// What becomes of a send when others fail, the socket is full, the process has
// no descriptor left, the data is gone before it could be sent, or others have
// changed the flags of the socket.

import { closeSync, fstatSync } from 'node:fs'
import { constants } from 'node:os'
import { type Test, t } from 'tap'

import { LARGE } from '../../../lib/arrivals.ts'
import { buildRights } from '../../../lib/cmsg.ts'
import { Sender } from '../../../lib/conn/sender.ts'
import { socketpair, UnixConn } from '../../../lib/index.ts'
import * as layouts from '../../../lib/layouts.ts'
import * as messages from '../../../lib/message.ts'
import { MAX_BYTES, type Outgoing } from '../../../lib/message.ts'
import * as batches from '../../../lib/socket/batch.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { Watch } from '../../../lib/wait/watch.ts'
import { leakFree } from '../../support/descriptors.ts'
import { missing } from '../../support/missing.ts'
import { Running, script } from '../../support/processes.ts'
import { doneInTurns, turns } from '../../support/waiting.ts'

/** More than a socket takes at once. */
const LONG = 4_000_000

const NOTHING = Buffer.alloc(0)

const { host } = layouts

async function readAll(conn: UnixConn): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const { data, fds } of conn) {
    pieces.push(data)
    for (const fd of fds) closeSync(fd)
  }
  return Buffer.concat(pieces)
}

/** `length` bytes, each unlike its neighbours, at `offset` of `memory`. */
function filled(
  memory: ArrayBufferLike,
  offset: number,
  length: number,
): Uint8Array {
  const bytes = new Uint8Array(memory, offset, length)
  for (let i = 0; i < length; i++) bytes[i] = (i * 7 + offset) % 251
  return bytes
}

leakFree('sendmsg() sends data wherever it lies', async (t) => {
  const memory = new ArrayBuffer(20_000_000)
  const shared = new SharedArrayBuffer(3 * LARGE)
  const chunks = [
    filled(memory, 1, LARGE - 1),
    filled(memory, 3 * LARGE + 3, LARGE),
    filled(shared, 5, LARGE + 1),
    filled(memory, 10 * LARGE, 300_001),
    Uint8Array.of(1, 2, 3),
    filled(shared, 2 * LARGE, LARGE),
    filled(memory, 1_000_001, MAX_BYTES + 1),
    filled(memory, 9_999_999, 2 * MAX_BYTES + 5),
    Buffer.from('the last'),
  ]
  const expected = Buffer.concat(chunks)
  const [a, b] = socketpair()
  // One by one, and several in one call.
  const oneByOne = async (): Promise<void> => {
    for (const chunk of chunks) await a.sendmsg(chunk)
  }
  const together = () => Promise.all(chunks.map((chunk) => a.sendmsg(chunk)))
  const sent = oneByOne()
    .then(together)
    .finally(() => a.close())
  const got = await readAll(b)
  await sent
  t.equal(got.length, 2 * expected.length)
  t.ok(got.subarray(0, expected.length).equals(expected), 'one by one')
  t.ok(got.subarray(expected.length).equals(expected), 'together')
  b.close()
})

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
  const later = [a.sendmsg(Buffer.alloc(LONG)), a.sendmsg('x')]
  for (const result of await Promise.allSettled(later)) {
    t.match(result, { status: 'rejected', reason: gone })
  }
  t.equal((await a.recvmsg())?.data.toString(), 'last words')
  a.close()
})

leakFree('the descriptors of a cut message come once, first', async (t) => {
  const [a, b] = socketpair()
  const data = filled(new ArrayBuffer(LONG), 0, LONG)
  const sends = [1, 2, 3].map(() => a.sendFds(data, [0, 0]))
  const sent = Promise.all(sends).finally(() => a.close())
  const inode = fstatSync(0).ino
  const pieces: Buffer[] = []
  const places: number[] = []
  let size = 0
  for await (const { data, fds } of b) {
    if (fds.length > 0) places.push(size)
    for (const fd of fds) {
      t.equal(fstatSync(fd).ino, inode)
      closeSync(fd)
    }
    pieces.push(data)
    size += data.length
  }
  await sent
  t.ok(Buffer.concat(pieces).equals(Buffer.concat([data, data, data])))
  // A piece may begin with the end of the message before.
  t.equal(places.length, 3)
  for (const [i, place] of places.entries()) {
    t.ok(place <= i * LONG && place > (i - 1) * LONG, `${i} by ${place}`)
  }
  b.close()
})

const failure = new Error('No way to wait')

/** A sender of `fd` that cannot wait for room. */
function failingSender(fd: number, beforeFailure = (): void => {}): Sender {
  const watch = new Watch(fd, 'edge', () => {})
  watch.wait = () => {
    watch.end()
    beforeFailure()
    throw failure
  }
  return new Sender(fd, watch, true)
}

leakFree('the peer of a message that was cut gets the end', async (t) => {
  const [one, other] = newSocketpair()
  const sender = failingSender(one)
  const cut = sender.send({ data: Buffer.alloc(LONG), control: NOTHING })
  const queued = sender.send({ data: Buffer.from('x'), control: NOTHING })
  await t.rejects(cut, failure)
  await t.rejects(queued, failure)
  const later = sender.send({ data: Buffer.from('x'), control: NOTHING })
  await t.rejects(later, failure)
  const peer = UnixConn.fromFd(other)
  const bytes = await readAll(peer)
  t.ok(bytes.length > 0 && bytes.length < LONG, `${bytes.length} bytes, end`)
  peer.close()
  closeSync(one)
})

leakFree('a socket that cannot be shut down fails no less', async (t) => {
  const [one, other] = newSocketpair()
  const sender = failingSender(one, () => closeSync(one))
  const sending = sender.send({ data: Buffer.alloc(LONG), control: NOTHING })
  await t.rejects(sending, failure)
  closeSync(other)
})

leakFree('where no wait is possible, what had room was sent', async (t) => {
  const [one, other] = newSocketpair()
  const sender = failingSender(one)
  const sends = Array.from({ length: 2000 }, () =>
    sender.send({ data: Buffer.from('x'), control: NOTHING }),
  )
  const results = await Promise.allSettled(sends)
  const sent = results.findIndex(({ status }) => status === 'rejected')
  t.ok(sent > 0, `${sent} had room`)
  for (const result of results.slice(sent)) {
    if (result.status === 'fulfilled') t.fail('sent behind one that failed')
  }
  closeSync(one)
  const peer = UnixConn.fromFd(other)
  t.equal((await readAll(peer)).length, sent)
  peer.close()
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

function resizable(byteLength: number, maxByteLength: number): Resizable {
  return Reflect.construct(ArrayBuffer, [byteLength, { maxByteLength }])
}

const changed = 'detached or resized before it was sent'

leakFree('data that is gone before it is sent is a rejection', async (t) => {
  const [a, b] = socketpair()
  const detached = new Uint8Array(1000).fill(1)
  const [less, more] = [resizable(8, 16), resizable(8, 16)]
  const sends = [
    a.sendmsg('1'),
    a.sendFds(detached, [0]),
    a.sendmsg('2'),
    a.sendmsg(new Uint8Array(less)),
    a.sendmsg(new Uint8Array(more)),
    a.sendmsg('3'),
  ]
  structuredClone(detached, { transfer: [detached.buffer] })
  less.resize(3)
  more.resize(16)
  const results = await Promise.allSettled(sends)
  const reasons = results.map((each) =>
    each.status === 'rejected' ? String(each.reason) : '',
  )
  t.strictSame(reasons, [
    '',
    `TypeError: Expected data of 1000 bytes, as at the call, got 0: ${changed}`,
    '',
    `TypeError: Expected data of 8 bytes, as at the call, got 3: ${changed}`,
    `TypeError: Expected data of 8 bytes, as at the call, got 16: ${changed}`,
    '',
  ])
  await t.rejects(a.sendmsg(detached), { name: 'TypeError' }, 'at the call')
  await a.sendmsg(new Uint8Array(0))
  a.close()
  t.equal(`${await readAll(b)}`, '123')
  b.close()
})

leakFree('data that is gone while it waits for room', async (t) => {
  const [a, b] = socketpair()
  const filling = a.sendmsg(Buffer.alloc(LONG, '-'))
  const detached = new Uint8Array(LARGE).fill(1)
  const shrunk = resizable(2 * LARGE, 2 * LARGE)
  const waiting = Promise.allSettled([
    a.sendmsg('1'),
    a.sendFds(detached, [0]),
    a.sendmsg(new Uint8Array(shrunk)),
    a.sendmsg('2'),
  ])
  await turns()
  structuredClone(detached, { transfer: [detached.buffer] })
  shrunk.resize(LARGE)
  const reading = readAll(b)
  await filling
  const statuses = (await waiting).map(({ status }) => status)
  t.strictSame(statuses, ['fulfilled', 'rejected', 'rejected', 'fulfilled'])
  a.close()
  t.equal(`${await reading}`.slice(LONG), '12', 'the others were sent')
  b.close()
})

leakFree(
  'data that is gone is a rejection after many sends, too',
  async (t) => {
    const [a, b] = socketpair()
    const reading = readAll(b)
    // By then V8 has optimized what looks at the data.
    const data = new Uint8Array(1)
    for (let round = 0; round < 100; round++) {
      await Promise.all(Array.from({ length: 640 }, () => a.sendmsg(data)))
    }
    const detached = new Uint8Array(1000)
    const sends = [a.sendmsg(data), a.sendmsg(detached), a.sendmsg(data)]
    structuredClone(detached, { transfer: [detached.buffer] })
    const statuses = (await Promise.allSettled(sends)).map(
      (each) => each.status,
    )
    t.strictSame(statuses, ['fulfilled', 'rejected', 'fulfilled'])
    await t.rejects(a.sendmsg(detached), { name: 'TypeError' }, 'at the call')
    a.close()
    t.equal((await reading).length, 64_002, 'the others were sent')
    b.close()
  },
)

const waysToChange: Record<string, (t: Test) => [Uint8Array, () => void]> = {
  detached: () => {
    const data = new Uint8Array(LONG).fill(7)
    return [data, () => structuredClone(data, { transfer: [data.buffer] })]
  },
  resized: () => {
    const memory = resizable(LONG, 2 * LONG)
    return [new Uint8Array(memory).fill(7), () => memory.resize(LONG - 1)]
  },
}

for (const [how, make] of Object.entries(waysToChange)) {
  leakFree(`data ${how} when a part is sent: the peer is told`, async (t) => {
    const [a, b] = socketpair()
    await b.sendmsg('an answer')
    const [data, change] = make(t)
    const sending = a.sendmsg(data)
    const behind = a.sendFds('behind', [0])
    await turns()
    change()
    const reading = readAll(b)
    const error = { name: 'TypeError', message: new RegExp(changed) }
    await t.rejects(sending, error)
    await t.rejects(behind, error, 'the peer would take it for the rest')
    await t.rejects(a.sendmsg('later'), error)
    const bytes = await reading
    t.ok(bytes.length > 0 && bytes.length < LONG, `${bytes.length} bytes`)
    t.ok(bytes.equals(Buffer.alloc(bytes.length, 7)), 'and the end of file')
    t.equal(`${(await a.recvmsg())?.data}`, 'an answer', 'receiving goes on')
    for (const conn of [a, b]) conn.close()
  })
}

leakFree('close() while sends wait for room rejects them all', async (t) => {
  const [a, b] = socketpair()
  const sends = [Buffer.alloc(LONG), '1', Buffer.alloc(LONG), '2'].map((data) =>
    a.sendFds(data, [0]),
  )
  const results = Promise.allSettled(sends)
  await turns()
  a.close()
  for (const result of await results) {
    const reason = { code: 'ERR_SOCKET_CLOSED', syscall: 'sendmsg' }
    t.match(result, { status: 'rejected', reason })
  }
  const bytes = await readAll(b)
  t.ok(bytes.length > 0 && bytes.length < LONG, 'a part, and the end of file')
  b.close()
})

// Has a child process make the socket blocking, as libuv does with what it gives
// to a child as its standard input. Then the event loop must turn: while 8 MiB
// wait for a peer that reads nothing, and while nothing comes.
const blocking = `
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, readFileSync } from 'node:fs'
import { UnixConn } from './lib/index.ts'
const conn = UnixConn.fromFd(3)
const makeBlocking = async () => {
  const stdio = [conn.fd, conn.fd, 'inherit']
  await once(spawn('true', { stdio }), 'close')
  const info = readFileSync('/proc/self/fdinfo/' + conn.fd, 'utf8')
  const flags = parseInt(/flags:\\s*(\\d+)/.exec(info)[1], 8)
  console.log(flags & 0o4000 ? 'non-blocking' : 'blocking')
}
const ticks = async (what) => {
  for (let i = 0; i < 20; i++) await new Promise((go) => setTimeout(go, 1))
  console.log('ticks while', what)
}
await makeBlocking()
const sending = conn.sendFds(Buffer.alloc(8 * 1024 * 1024, 'abcdefg'), [0])
const behind = conn.sendmsg('behind')
await ticks('sending')
await makeBlocking()
await ticks('sending on')
await Promise.all([sending, behind])
console.log('sent')
const answer = conn.recvFds()
await ticks('receiving')
console.log('got', String((await answer).data))
const messages = conn.messages()
for (const what of ['first', 'second', 'third']) {
  await makeBlocking()
  const next = messages.next()
  await ticks(what)
  for (const { value } of [await next, await messages.next()]) {
    console.log('got', String(value.data))
    for (const fd of value.fds) closeSync(fd)
  }
}
conn.close()
`

leakFree('a socket that others make blocking holds nothing up', async (t) => {
  const [ours, theirs] = newSocketpair()
  const command = script('--input-type=module', '-e', blocking)
  const child = new Running(t, command, {
    stdio: ['ignore', 'pipe', 'pipe', theirs],
  })
  closeSync(theirs)
  const conn = UnixConn.fromFd(ours)
  t.teardown(() => conn.close())
  await child.printed(/ticks while sending on/)
  const expected = Buffer.alloc(8 * 1024 * 1024, 'abcdefg')
  const pieces: Buffer[] = []
  let size = 0
  let count = 0
  while (size < expected.length + 6) {
    const { data, fds } = (await conn.recvFds()) ?? { data: NOTHING, fds: [] }
    if (data.length === 0) break
    size += data.length
    count += fds.length
    pieces.push(data)
    for (const fd of fds) closeSync(fd)
  }
  const bytes = Buffer.concat(pieces)
  t.ok(bytes.subarray(0, -6).equals(expected))
  t.equal(`${bytes.subarray(-6)}`, 'behind')
  t.equal(count, 1)
  await child.printed(/ticks while receiving/)
  await conn.sendmsg('an answer')
  for (const what of ['first', 'second', 'third']) {
    await child.printed(new RegExp(`ticks while ${what}`))
    await Promise.all([1, 2].map(() => conn.sendFds(what, [0])))
  }
  const { code } = await child.exit
  t.equal(code, 0, child.stderr)
  t.notMatch(child.stdout, /non-blocking/)
  const rounds = ['first', 'first', 'second', 'second', 'third', 'third']
  const got = [...child.stdout.matchAll(/^got (.*)$/gm)].map(([, text]) => text)
  t.strictSame(got, ['an answer', ...rounds])
  conn.close()
})

// With a peer that reads as fast as it is sent to, the socket is never full.
t.test(
  'a sender that is never held up lets others have their turn',
  async (t) => {
    const { Sender } = await t.mockImport<
      typeof import('../../../lib/conn/sender.ts')
    >('../../../lib/conn/sender.ts', {
      '../../../lib/message.ts': {
        ...messages,
        sendNow: (_fd: number, { data }: Outgoing) => data.length,
      },
      '../../../lib/socket/batch.ts': { ...batches, canBatch: () => false },
    })
    const [fd, other] = newSocketpair()
    const watch = new Watch(fd, 'edge', () => {})
    const sender = new Sender(fd, watch, true)
    const message = { data: Buffer.from('x'), control: NOTHING }
    let sent = 0
    const sends = Array.from({ length: 500 }, async () => {
      await sender.send(message)
      sent++
    })
    const perTurn = await doneInTurns(sends.length, () => sent)
    t.ok(Math.max(...perTurn) <= 2 * 64, `${perTurn}`)
    t.ok(perTurn.length <= 10, 'and is not held up by that')
    for (const each of [fd, other]) closeSync(each)
  },
)

// xnu says EMSGSIZE while there is no room for the descriptors: see mustWait().
t.test(
  'EMSGSIZE is waited out with descriptors, where it may pass',
  async (t) => {
    let isFull = true
    const { Sender } = await t.mockImport<
      typeof import('../../../lib/conn/sender.ts')
    >('../../../lib/conn/sender.ts', {
      '../../../lib/layouts.ts': {
        ...layouts,
        host: { ...host, emsgsizeMeansFull: true },
      },
      '../../../lib/message.ts': {
        ...messages,
        sendNow: (_fd: number, { data }: Outgoing) =>
          isFull ? -constants.errno.EMSGSIZE : data.length,
      },
    })
    const [fd, other] = newSocketpair()
    let waits = 0
    const watch = new Watch(fd, 'edge', () => {})
    watch.wait = () => waits++
    const sender = new Sender(fd, watch, true)
    const data = Buffer.from('x')
    await t.rejects(sender.send({ data, control: NOTHING }), {
      code: 'EMSGSIZE',
    })
    t.equal(waits, 0, 'plain bytes are too many for good')
    const sending = sender.send({ data, control: buildRights([0], host) })
    await turns()
    t.equal(waits, 1)
    isFull = false
    sender.writable()
    await sending
    for (const each of [fd, other]) closeSync(each)
  },
)

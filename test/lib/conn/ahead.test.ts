// Loops that take whatever comes, which receive several messages at a time:
// who gets what was read ahead, how much that may be, and who closes it.

import { closeSync, fstatSync, readSync } from 'node:fs'
import { t } from 'tap'

import { LARGE } from '../../../lib/arrivals.ts'
import { descriptorsGivenBack } from '../../../lib/conn/receiver.ts'
import {
  parseControlMessages,
  parseUnixRights,
  socketpair,
  type UnixConn,
  waitReadable,
} from '../../../lib/index.ts'
import { host } from '../../../lib/layouts.ts'
import { canBatch, MAX_BATCH } from '../../../lib/socket/batch.ts'
import { descriptorLimit } from '../../../lib/socket/options.ts'
import { shutdownWriting } from '../../../lib/socket/unix.ts'
import { leakFree, openFds } from '../../support/descriptors.ts'
import { missing } from '../../support/missing.ts'
import { pipe } from '../../support/pipes.ts'
import { run, script } from '../../support/processes.ts'
import { turns } from '../../support/waiting.ts'

const noBatches = !canBatch() && 'nothing is read ahead where libc is not glibc'

type Message = { readonly data: Buffer; readonly fds: readonly number[] } | null

/** A message as text, its descriptors closed: `data count`. */
function taken(message: Message): string {
  for (const fd of message?.fds ?? []) closeSync(fd)
  return message === null ? 'end' : `${message.data} ${message.fds.length}`
}

/** What a call of recvFds() gives. */
async function viaCall(conn: UnixConn, options = {}): Promise<string> {
  return taken(await conn.recvFds(options))
}

/** The same of recvmsg(). */
async function viaRecvmsg(conn: UnixConn): Promise<string> {
  const message = await conn.recvmsg()
  if (message === null) return taken(null)
  const items = parseControlMessages(message.control)
  const fds = items.flatMap((item) => parseUnixRights(item))
  return taken({ data: message.data, fds })
}

/** What the next round of a loop gives. */
async function viaLoop(
  loop: AsyncGenerator<NonNullable<Message>, void>,
): Promise<string> {
  return taken((await loop.next()).value ?? null)
}

/** Sends messages `first` to `last`, each with a descriptor. */
async function sendNumbers(
  conn: UnixConn,
  first: number,
  last: number,
): Promise<void> {
  for (let i = first; i <= last; i++) await conn.sendFds(`${i}`, [0])
}

/** `first 1` to `last 1`, as taken() tells them. */
function numbers(first: number, last: number): string[] {
  return Array.from({ length: last - first + 1 }, (_, i) => `${first + i} 1`)
}

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
  await sendNumbers(a, 1, 9)
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

leakFree('for await takes the first after a wait alone, too', async (t) => {
  const [a, b] = socketpair()
  await sendNumbers(a, 1, 8)
  const loop = b.messages()
  for (let i = 1; i <= 8; i++) await viaLoop(loop)
  const waiting = loop.next()
  const before = openFds().length
  await Promise.all([1, 2, 3].map((i) => a.sendFds(`${i}`, [0])))
  const { value } = await waiting
  t.equal(openFds().length, before + 1, 'the others stay in the kernel')
  t.equal(taken(value ?? null), '1 1')
  await loop.return()
  for (const conn of [a, b]) conn.close()
})

leakFree(
  'what a loop that is left had read ahead comes next',
  async (t) => {
    const [a, b] = socketpair()
    for (let i = 0; i < 20; i++) await a.sendFds(`message ${i}`, [0])
    const seen: string[] = []
    for await (const message of b) {
      seen.push(taken(message))
      if (seen.length === 4) break
    }
    t.ok(descriptorsGivenBack() > 0, 'there is some')
    seen.push(await viaCall(b, { maxBytes: 1 }))
    await t.rejects(b.recvFds({ maxFds: 0 }), {
      code: 'ERR_TOO_MANY_FDS',
      data: Buffer.from('message 5'),
    })
    for await (const message of b.messages({ maxFds: 1 })) {
      seen.push(taken(message))
      if (seen.length === 19) break
    }
    const expected = Array.from({ length: 20 }, (_, i) => `message ${i} 1`)
    expected.splice(5, 1)
    t.strictSame(seen, expected)
    for (const conn of [a, b]) conn.close()
  },
  noBatches,
)

leakFree(
  'early and fresh messages come in order to any receiver',
  async (t) => {
    const [a, b] = socketpair()
    const loop = b.messages()
    const seen: string[] = []
    let sent = 0
    const send = async (count: number): Promise<void> => {
      await sendNumbers(a, sent + 1, sent + count)
      sent += count
    }
    await send(12)
    for (const next of 'llclclrllclrcll') {
      if (next === 'l') seen.push(await viaLoop(loop))
      if (next === 'c') seen.push(await viaCall(b))
      if (next === 'r') seen.push(await viaRecvmsg(b))
      if (seen.length % 3 === 0) await send(2)
    }
    // Others have come behind what was read ahead; the loop is gone.
    await loop.return()
    while (seen.length < sent) seen.push(await viaCall(b, { maxBytes: 100 }))
    t.strictSame(seen, numbers(1, sent))
    for (const conn of [a, b]) conn.close()
  },
)

leakFree('receivers that wait are served in the order of calls', async (t) => {
  const [a, b] = socketpair()
  const [one, other] = [b.messages(), b.messages()]
  const received = [
    viaCall(b),
    viaLoop(one),
    viaRecvmsg(b),
    viaLoop(other),
    viaCall(b, { maxBytes: 1 }),
  ]
  await Promise.all([1, 2, 3, 4, 5, 6, 7].map((i) => a.sendFds(`${i}`, [0])))
  t.strictSame(await Promise.all(received), numbers(1, 5))
  t.equal(await viaLoop(other), '6 1')
  t.equal(await viaLoop(one), '7 1')
  const waiting = [viaLoop(one), viaCall(b), viaLoop(other)]
  a.close()
  t.strictSame(await Promise.all(waiting), ['end', 'end', 'end'])
  b.close()
})

leakFree('two loops at a time share the messages', async (t) => {
  const [a, b] = socketpair()
  const count = 500
  const sends = Array.from({ length: count }, (_, i) => a.sendFds(`${i}`, [0]))
  const sent = Promise.all(sends).then(() => a.close())
  const all: number[] = []
  const loop = async (): Promise<number[]> => {
    const own: number[] = []
    for await (const { data, fds } of b) {
      for (const fd of fds) closeSync(fd)
      own.push(Number(data))
      all.push(Number(data))
      if (own.length % 7 === 0) await turns(1)
    }
    return own
  }
  const shares = await Promise.all([loop(), loop()])
  await sent
  const inOrder = Array.from({ length: count }, (_, i) => i)
  t.strictSame(all, inOrder, 'none twice, none lost, in order')
  for (const own of shares) t.ok(own.length > 0, `${own.length} of ${count}`)
  b.close()
})

leakFree('a loop may be left in any way, and entered again', async (t) => {
  const [a, b] = socketpair()
  await sendNumbers(a, 1, 30)
  const seen: string[] = []
  const leave = {
    break: async (): Promise<void> => {
      for await (const message of b) {
        if (seen.push(taken(message)) % 5 === 0) break
      }
    },
    return: async (): Promise<void> => {
      for await (const message of b) {
        if (seen.push(taken(message)) % 5 === 0) return
      }
    },
    throw: async (): Promise<void> => {
      for await (const message of b) {
        if (seen.push(taken(message)) % 5 === 0) throw new Error('enough')
      }
    },
  }
  for (let round = 0; round < 2; round++) {
    await leave.break()
    await leave.return()
    await t.rejects(leave.throw(), { message: 'enough' })
  }
  t.strictSame(seen, numbers(1, 30))
  for (const conn of [a, b]) conn.close()
})

leakFree('close() closes what was read ahead', async (t) => {
  const [a, b] = socketpair()
  const { r, w } = pipe()
  const sends = Array.from({ length: 50 }, () => a.sendFds('x', [w]))
  await Promise.all(sends)
  closeSync(w)
  const loop = b.messages()
  for (let i = 0; i < 4; i++) await viaLoop(loop)
  const waiting = viaLoop(loop)
  b.close()
  t.equal(await waiting, 'x 1', 'what was given out remains')
  t.equal(await viaLoop(loop), 'end')
  a.close()
  // They are closed in the thread pool.
  await waitReadable(r)
  t.equal(readSync(r, Buffer.alloc(1)), 0, 'every copy is closed')
  t.equal(descriptorsGivenBack(), 0, 'nor does it count any more')
  closeSync(r)
})

leakFree('messages() refuses, and the connection works on', async (t) => {
  const [a, b] = socketpair()
  await a.sendFds('two', [0, 0])
  await a.sendFds('one', [0])
  const collect = async (): Promise<void> => {
    for await (const _ of b.messages({ maxFds: 1 })) t.fail('delivered')
  }
  await t.rejects(collect(), { code: 'ERR_TOO_MANY_FDS' })
  t.equal(await viaCall(b), 'one 1')
  t.throws(() => b.messages({ maxBytes: 0 }), { name: 'RangeError' })
  for (const conn of [a, b]) conn.close()
})

leakFree('maxFds is honoured for what was read ahead', async (t) => {
  const [a, b] = socketpair()
  for (const count of [1, 1, 1, 2, 1, 3, 1]) {
    await a.sendFds('x', new Array<number>(count).fill(0))
  }
  const loop = b.messages({ maxFds: 1 })
  for (let i = 0; i < 3; i++) t.equal(await viaLoop(loop), 'x 1')
  const tooMany = (got: number) => ({
    code: 'ERR_TOO_MANY_FDS',
    message: `Expected at most 1 descriptors, got ${got}: closed all`,
    data: Buffer.from('x'),
  })
  await t.rejects(viaLoop(loop), tooMany(2))
  t.equal(await viaLoop(loop), 'end', 'the loop is over')
  const again = b.messages({ maxFds: 1 })
  t.equal(await viaLoop(again), 'x 1')
  await t.rejects(viaCall(b, { maxFds: 1 }), tooMany(3))
  t.equal(await viaCall(b), 'x 1')
  for (const conn of [a, b]) conn.close()
})

leakFree('the end of file ends a loop where it stands', async (t) => {
  for (const count of [1, 2, 3, 4, 7, 64, 65]) {
    const [a, b] = socketpair()
    await sendNumbers(a, 1, count)
    shutdownWriting(a.fd)
    const seen: string[] = []
    for await (const message of b) seen.push(taken(message))
    t.strictSame(seen, numbers(1, count))
    t.equal(await viaCall(b), 'end')
    t.equal(await viaLoop(b.messages()), 'end')
    await b.sendmsg('goes on')
    t.equal(await viaCall(a), 'goes on 0', 'the other way')
    for (const conn of [a, b]) conn.close()
  }
})

leakFree('a peer that leaves our bytes unread ends a loop so', async (t) => {
  for (const count of [0, 1, 2, 3, 10]) {
    const [a, b] = socketpair()
    await b.sendmsg('nobody reads this')
    await sendNumbers(a, 1, count)
    a.close()
    const seen: string[] = []
    const loop = async (): Promise<void> => {
      for await (const message of b) seen.push(taken(message))
    }
    const reset = { code: 'ECONNRESET', syscall: 'recvmsg' }
    await t.rejects(loop(), reset, `behind ${count}`)
    // As recvFds() does, which gives first what has come.
    t.strictSame(seen, numbers(1, count))
    t.equal(await viaCall(b), 'end')
    b.close()
  }
})

leakFree('large and small messages come in order', async (t) => {
  const [a, b] = socketpair()
  const sizes = [1, 2, LARGE, 5, 100_000, 3, 3, 3, LARGE - 1, 200_000, 1, 1]
  const all = Buffer.concat(sizes.map((size, i) => Buffer.alloc(size, i)))
  const sends = sizes.map((size, i) => a.sendFds(Buffer.alloc(size, i), [0]))
  const sent = Promise.all(sends).finally(() => a.close())
  const pieces: Buffer[] = []
  let count = 0
  for await (const { data, fds } of b.messages({ maxBytes: 50_000 })) {
    pieces.push(data)
    count += fds.length
    for (const fd of fds) closeSync(fd)
  }
  await sent
  t.ok(Buffer.concat(pieces).equals(all))
  t.equal(count, sizes.length)
  b.close()
})

/** As many at a time as the descriptor table allows: see messagesOf(). */
const most = Math.min(
  MAX_BATCH,
  Math.floor(descriptorLimit() / 2 / host.maxFds),
)

leakFree(
  'for await takes twice as many in each call, up to a limit',
  async (t) => {
    const [a, b] = socketpair()
    await sendNumbers(a, 1, 160)
    const loop = b.messages()
    const before = openFds().length
    const ahead = async (through: number): Promise<number[]> => {
      const counts = []
      for (let i = 1; i <= through; i++) {
        await viaLoop(loop)
        counts.push(openFds().length - before)
      }
      return counts
    }
    const expected: number[] = [0]
    for (let size = 2; expected.length < 130; size *= 2) {
      const taken = Math.min(size, most)
      for (let left = taken - 1; left >= 0; left--) expected.push(left)
    }
    t.strictSame(await ahead(130), expected.slice(0, 130))
    // Until there is none, which is asked for in vain; then from the beginning.
    await ahead(30)
    const waiting = loop.next()
    await turns()
    await sendNumbers(a, 1, 3)
    taken((await waiting).value ?? null)
    t.strictSame(await ahead(2), [1, 0])
    await loop.return()
    for (const conn of [a, b]) conn.close()
  },
  noBatches || (most < 2 && 'a small descriptor table'),
)

leakFree(
  'for await takes what follows a large message alone',
  async (t) => {
    const [a, b] = socketpair()
    // Taken as 1, 2 and 4 of them: the large one is the last of the four.
    for (const size of [1, 1, 1, 1, 1, 1, LARGE, 1, 1, 1])
      await a.sendFds(Buffer.alloc(size), [0])
    const before = openFds().length
    const counts = []
    for await (const { fds } of b) {
      for (const fd of fds) closeSync(fd)
      counts.push(openFds().length - before)
      if (counts.length === 10) break
    }
    t.strictSame(counts, [0, 1, 0, 3, 2, 1, 0, 0, 1, 0])
    for (const conn of [a, b]) conn.close()
  },
  noBatches || (most < 4 && 'a small descriptor table'),
)

const aborted = { name: 'AbortError', code: 'ABORT_ERR' }

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
  await sendNumbers(a, 1, 5)
  const loop = b.messages({ signal: controller.signal })
  t.equal(await viaLoop(loop), '1 1')
  t.equal(await viaLoop(loop), '2 1', 'and with it 3, where there are batches')
  controller.abort()
  await t.rejects(viaLoop(loop), aborted)
  t.equal(await viaCall(b), '3 1', 'nothing is lost')
  t.equal(await viaCall(b), '4 1')
  t.equal(await viaRecvmsg(b), '5 1')
  for (const conn of [a, b]) conn.close()
})

leakFree('an abort of one loop leaves all to another', async (t) => {
  const [a, b] = socketpair()
  const controller = new AbortController()
  const [one, other] = [b.messages({ signal: controller.signal }), b.messages()]
  const waiting = [viaLoop(one), viaLoop(other), viaCall(b)]
  const settled = Promise.allSettled(waiting)
  controller.abort()
  await Promise.all([1, 2, 3, 4].map((i) => a.sendFds(`${i}`, [0])))
  t.match(await settled, [
    { status: 'rejected', reason: aborted },
    { status: 'fulfilled', value: '1 1' },
    { status: 'fulfilled', value: '2 1' },
  ])
  t.equal(await viaLoop(other), '3 1')
  t.equal(await viaCall(b), '4 1')
  for (const conn of [a, b]) conn.close()
})

// A process that may have few descriptors, and peers that sent more in all. What
// is read ahead leaves room for what it opens itself: if each of the eight loops
// held one message ahead, with 80 descriptors, it would be more than half. The limit
// is lowered when the peers have sent, as a user, other than root, may have no more
// in flight than a process may have open.
const FEW = 1100
const bounded = `
import { execFileSync } from 'node:child_process'
import { closeSync, readdirSync } from 'node:fs'
import { socketpair } from './lib/index.ts'
import { descriptorsGivenBack } from './lib/conn/receiver.ts'
const openFds = () => readdirSync('/proc/self/fd').length
const setLimit = (soft) =>
  execFileSync('prlimit', ['--pid', String(process.pid), '--nofile=' + soft + ':'])
const pairs = Array.from({ length: 8 }, () => socketpair())
const loops = pairs.map(([, conn]) => conn.messages())
for (const [conn] of pairs) {
  for (let i = 0; i < 3; i++) await conn.sendFds('x', Array(80).fill(0))
  conn.close()
}
setLimit(${FEW})
const before = openFds()
let most = 0
let count = 0
const next = async (loop) => {
  const { value } = await loop.next()
  if (!value) return false
  count += value.fds.length
  for (const fd of value.fds) closeSync(fd)
  most = Math.max(most, openFds() - before)
  return true
}
// Each of the loops stops where it has read ahead.
for (let round = 0; round < 2; round++) for (const loop of loops) await next(loop)
const held = openFds() - before
console.log('some', held > 0, descriptorsGivenBack() >= held)
for (const loop of loops) while (await next(loop));
console.log(count, 'at most half', most <= ${FEW / 2})
console.log('none', openFds() - before, descriptorsGivenBack())
for (const [, conn] of pairs) conn.close()
// What was given out counts no more: all of it can be used again.
const [a, b] = socketpair()
for (let i = 0; i < 3; i++) await a.sendFds('x', Array(80).fill(0))
a.close()
const empty = openFds()
for await (const { fds } of b) {
  for (const fd of fds) closeSync(fd)
  if (openFds() - empty > 0) break
}
console.log('ahead again', openFds() - empty > 0)
b.close()
`

t.test(
  'all connections read ahead at most half of the descriptors',
  { skip: noBatches || missing('prlimit') },
  async (t) => {
    const command = script('--input-type=module', '-e', bounded)
    const { stdout, stderr } = await run(t, command)
    const expected = [
      'some true true',
      '1920 at most half true',
      'none 0 0',
      'ahead again true',
      '',
    ]
    t.equal(stdout, expected.join('\n'), stderr)
  },
)

const flooded = `
import { socketpair } from './lib/index.ts'
const [a, b] = socketpair()
let stop = false
let count = 0
const flood = async () => {
  while (!stop) await Promise.all([1, 2, 3].map(() => a.sendmsg('x')))
  a.close()
}
const drain = async () => {
  for await (const _ of b) count++
  console.log('received', count > 0)
}
const both = [flood(), drain()]
for (let i = 0; i < 20; i++) await new Promise((go) => setTimeout(go, 1))
console.log('timers')
stop = true
await Promise.all(both)
`

t.test('a loop under a flood lets others have their turn', async (t) => {
  const command = script('--input-type=module', '-e', flooded)
  const { stdout, stderr } = await run(t, command)
  t.equal(stdout, 'timers\nreceived true\n', stderr)
})

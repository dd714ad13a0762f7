// sendmmsg and recvmmsg: several messages in one call, where they are refused,
// and where they go on after a short send.

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { descriptorsIn, unixRights } from '../../../lib/cmsg.ts'
import { UnixConn } from '../../../lib/conn/conn.ts'
import { host } from '../../../lib/layouts.ts'
import * as libc from '../../../lib/libc.ts'
import { MAX_BYTES, receiveNow } from '../../../lib/message.ts'
import {
  canBatch,
  MAX_BATCH,
  receiveBatch,
  sendBatch,
} from '../../../lib/socket/batch.ts'
import { refuseDescriptors } from '../../../lib/socket/options.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { declaring } from '../../support/c.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { lacksPassRights, missing } from '../../support/missing.ts'
import { Running, run, script } from '../../support/processes.ts'
import { until } from '../../support/waiting.ts'

type Batch = typeof import('../../../lib/socket/batch.ts')
type Conn = typeof import('../../../lib/conn/conn.ts')

const { EAGAIN, ENOSYS, EPERM, EPIPE } = constants.errno

const noBatches = !canBatch() && 'batches are for glibc'

/**
 * lib/conn/conn.ts with other functions of libc. It has a list of epoll of its
 * own, which stays open once it was needed: tests that wait are not leakFree().
 */
function connWith(t: Test, functions: Partial<typeof libc>): Promise<Conn> {
  return t.mockImport<Conn>('../../../lib/conn/conn.ts', {
    '../../../lib/libc.ts': { ...libc, ...functions },
  })
}

leakFree(
  'a batch goes out, and comes in, in order',
  async (t) => {
    const [one, other] = newSocketpair()
    const messages = ['x', 'yy', 'zzz'].map((text, index) => ({
      data: Buffer.from(text),
      control: unixRights(...new Array<number>(index).fill(0)),
    }))
    t.strictSame(sendBatch(one, messages), [1, 2, 3])
    const received = receiveBatch(other, 10, 64)
    if (typeof received === 'number')
      throw libc.systemError('recvmsg', received)
    // Without a control message the first runs together with the second.
    t.strictSame(
      received.map(({ data, flags }) => [data.toString(), flags]),
      [
        ['xyy', 0],
        ['zzz', 0],
      ],
    )
    const fds = received.map(({ control }) => descriptorsIn(control))
    t.strictSame(
      fds.map(({ length }) => length),
      [1, 2],
    )
    for (const fd of fds.flat()) closeSync(fd)
    t.equal(receiveBatch(other, 10, 64), -EAGAIN)
    closeSync(other)
    t.equal(sendBatch(one, messages), -EPIPE)
    closeSync(one)
  },
  noBatches,
)

leakFree(
  'a batch brings as many as were asked for, no more',
  async (t) => {
    const [one, other] = newSocketpair()
    const message = { data: Buffer.from('x'), control: unixRights(0) }
    const messages = new Array(2 * MAX_BATCH).fill(message)
    const expected = new Array(MAX_BATCH).fill(1)
    t.strictSame(sendBatch(one, messages), expected)
    for (const [maxBytes, count, taken] of [
      [100, 3, 3],
      [MAX_BYTES / 2, 60, 2],
      [2 ** 40, 60, 1],
      [1, 1000, MAX_BATCH - 6],
    ] as const) {
      const received = receiveBatch(other, maxBytes, count)
      if (typeof received === 'number')
        throw libc.systemError('recvmsg', received)
      t.equal(received.length, taken, `${count} of ${maxBytes} bytes`)
      for (const { control } of received) {
        for (const fd of descriptorsIn(control)) closeSync(fd)
      }
    }
    for (const fd of [one, other]) closeSync(fd)
  },
  noBatches,
)

const sendmmsgParams = ['int', 'pointer', 'uint', 'int'] as const

/** A function that fails, and how often it was called. */
function refusing(name: string, errno: number) {
  const calls = { count: 0 }
  const call = (): number => {
    calls.count++
    return -errno
  }
  return { calls, functions: declaring(name, call) }
}

async function texts(conn: UnixConn): Promise<string[]> {
  const seen: string[] = []
  for await (const { data, fds } of conn) {
    seen.push(`${data} ${fds.length}`)
    for (const fd of fds) closeSync(fd)
  }
  return seen
}

for (const errno of [EPERM, ENOSYS]) {
  const name = libc.systemError('', -errno).code

  leakFree(
    `sendmmsg that says ${name} is not called again`,
    async (t) => {
      const { calls, functions } = refusing('sendmmsg', errno)
      const { UnixConn } = await connWith(t, functions)
      const [one, other] = newSocketpair()
      const [a, b] = [UnixConn.fromFd(one), UnixConn.fromFd(other)]
      for (const round of [1, 2]) {
        const sends = Array.from({ length: 20 }, (_, i) =>
          a.sendFds(`${round}.${i}`, [0]),
        )
        await Promise.all(sends)
      }
      const failing = [a.sendmsg('end'), a.sendFds('x', [99_999])]
      const results = await Promise.allSettled(failing)
      t.match(results[1], { reason: { code: 'EBADF' } }, 'its own error')
      a.close()
      const expected = [1, 2].flatMap((round) =>
        Array.from({ length: 20 }, (_, i) => `${round}.${i} 1`),
      )
      t.strictSame(await texts(b), [...expected, 'end 0'])
      t.equal(calls.count, 1)
      b.close()
    },
    noBatches,
  )

  t.test(
    `recvmmsg that says ${name} is not called again`,
    { skip: noBatches },
    async (t) => {
      const { calls, functions } = refusing('recvmmsg', errno)
      const { UnixConn } = await connWith(t, functions)
      const [one, other] = newSocketpair()
      const [a, b] = [UnixConn.fromFd(one), UnixConn.fromFd(other)]
      t.teardown(() => b.close())
      let seen: string[] | undefined
      texts(b).then((all) => {
        seen = all
      })
      // It waits before anything has come.
      const sends = Array.from({ length: 20 }, (_, i) => a.sendFds(`${i}`, [0]))
      await Promise.all(sends)
      a.close()
      await until('the end of the loop', () => seen !== undefined, 20)
      const expected = Array.from({ length: 20 }, (_, i) => `${i} 1`)
      t.strictSame(seen, expected)
      t.equal(calls.count, 1)
      b.close()
    },
  )

  leakFree(
    `sendBatch() where sendmmsg says ${name}`,
    async (t) => {
      const { functions } = refusing('sendmmsg', errno)
      const batch = await t.mockImport<Batch>('../../../lib/socket/batch.ts', {
        '../../../lib/libc.ts': { ...libc, ...functions },
      })
      const [one, other] = newSocketpair()
      t.equal(batch.sendBatch(one, []), -errno)
      t.equal(batch.canBatch(), true, 'nothing was tried')
      const messages = ['one', 'two'].map((text) => ({
        data: Buffer.from(text),
        control: Buffer.alloc(0),
      }))
      t.strictSame(batch.sendBatch(one, messages), [3], 'the first alone')
      t.equal(batch.canBatch(), false)
      const { data } = receiveOne(other)
      t.equal(`${data}`, 'one')
      for (const fd of [one, other]) closeSync(fd)
    },
    noBatches,
  )
}

function receiveOne(fd: number) {
  const message = receiveNow(fd, 100)
  if (typeof message === 'number') throw libc.systemError('recvmsg', message)
  return message
}

leakFree(
  'EPERM of a peer that takes no descriptors ends no batches',
  async (t) => {
    const real = libc.declare('sendmmsg', 'int', sendmmsgParams)
    let batches = 0
    const counted = (...values: Parameters<typeof real>): number => {
      batches++
      return real(...values)
    }
    const { UnixConn } = await connWith(t, declaring('sendmmsg', counted))
    const [one, other] = newSocketpair()
    refuseDescriptors(other)
    const [a, b] = [UnixConn.fromFd(one), UnixConn.fromFd(other)]
    for (const round of [1, 2]) {
      const before = batches
      const results = await Promise.allSettled([
        a.sendFds('first', [0]),
        a.sendmsg(`${round}a`),
        a.sendFds('third', [0]),
        a.sendmsg(`${round}b`),
        a.sendmsg(`${round}c`),
      ])
      const isSent = results.map(({ status }) => status === 'fulfilled')
      t.strictSame(isSent, [false, true, false, true, true])
      for (const refused of [results[0], results[2]]) {
        t.match(refused, { reason: { code: 'EPERM', syscall: 'sendmsg' } })
      }
      t.ok(batches > before, `round ${round} went out in batches`)
    }
    a.close()
    t.strictSame(await texts(b), ['1a1b1c2a2b2c 0'])
    b.close()
  },
  noBatches || lacksPassRights(),
)

// Under a filter of system calls: ten messages at a time, all of which have to
// come before the next are sent, to a loop that waits for them.
const filtered = `
import { closeSync } from 'node:fs'
import { socketpair } from './lib/index.ts'
const giveUp = AbortSignal.timeout(30_000)
const turn = () => new Promise((resolve) => setImmediate(resolve))
const [a, b] = socketpair()
const seen = []
const receive = async () => {
  for await (const { data, fds } of b) {
    seen.push(String(data) + ' ' + fds.length)
    for (const fd of fds) closeSync(fd)
  }
}
const received = receive()
await turn()
for (let round = 0; round < 3; round++) {
  const numbers = Array.from({ length: 10 }, (_, i) => 10 * round + i)
  await Promise.all(numbers.map((number) => a.sendFds(String(number), [0])))
  while (seen.length < 10 * (round + 1) && !giveUp.aborted) await turn()
  if (giveUp.aborted) console.log('stuck after', seen.length)
}
a.close()
await received
b.close()
console.log(seen.join())
`

// strace makes the system call fail that a filter would: see seccomp(2).
function mustNotTrace(): string | false {
  const { status, stderr } = spawnSync('strace', ['-o', '/dev/null', 'true'])
  return status !== 0 && `strace may not trace: ${stderr}`
}

for (const call of ['sendmmsg', 'recvmmsg']) {
  for (const errno of ['EPERM', 'ENOSYS']) {
    t.test(
      `all arrive, in order, under a filter that says ${errno} to ${call}`,
      { skip: noBatches || missing('strace') || mustNotTrace() },
      async (t) => {
        const log = join(temporaryFolder(t), 'log')
        const { stdout, stderr } = await run(t, [
          ...['strace', '-f', '-o', log, '-e', `trace=${call}`],
          ...['-e', 'signal=none', '-e', `inject=${call}:error=${errno}`],
          ...script('--input-type=module', '-e'),
          filtered,
        ])
        const expected = Array.from({ length: 30 }, (_, i) => `${i} 1`)
        t.equal(stdout, `${expected}\n`, stderr)
        const lines = readFileSync(log, 'utf8').split('\n')
        const calls = lines.filter((line) => line.includes(` ${call}(`))
        t.equal(calls.length, 1, 'single calls take over for good')
      },
    )
  }
}

const setsockopt = libc.declare('setsockopt', 'int', [
  'int',
  'int',
  'int',
  'pointer',
  'uint',
])

// Whether the kernel takes `bytes` at once, more than a user may ask for.
function hasRoom(fd: number, bytes: number): boolean {
  const SO_SNDBUFFORCE = 32
  const value = libc.allocate(4)
  value.bytes.writeInt32LE(bytes)
  const { SOL_SOCKET } = host.constants
  return setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, value.address, 4) === 0
}

leakFree('nothing comes into a message longer than a call', async (t) => {
  const [one, other] = newSocketpair()
  const [a, b] = [UnixConn.fromFd(one), UnixConn.fromFd(other)]
  if (hasRoom(one, 4 * MAX_BYTES)) {
    const long = Buffer.alloc(2 * MAX_BYTES + 1, 'a')
    const sends = ['x', long, 'next', long, long, 'end'].map((data) =>
      a.sendmsg(data),
    )
    const sent = Promise.allSettled(sends).finally(() => a.close())
    const pieces: Buffer[] = []
    for await (const { data } of b) pieces.push(data)
    for (const { status } of await sent) t.equal(status, 'fulfilled')
    const text = Buffer.concat(pieces).toString('latin1')
    const lengths = text.split(/(x|next|end)/).map((part) => part.length)
    t.equal(text.length, 3 * long.length + 8)
    const { length } = long
    t.strictSame(lengths, [0, 1, length, 4, 2 * length, 3, 0])
  } else {
    t.pass('room', { skip: 'only an administrator has SO_SNDBUFFORCE' })
  }
  for (const conn of [a, b]) conn.close()
})

// What musl's sendmmsg does: it goes on after a short send. The peer reads
// meanwhile, so that there is room for the next message.
function muslLoop(peer: number, received: Buffer[]): Partial<typeof libc> {
  let memory = libc.allocate(0)
  // The largest is that of batch.ts.
  const allocate = (size: number): libc.Memory => {
    const made = libc.allocate(size)
    if (size > memory.bytes.length) memory = made
    return made
  }
  const { size, msg_len } = host.mmsghdr
  const sendmsg = libc.declare('sendmsg', 'size', ['int', 'pointer', 'int'])
  const sendmmsg = (
    fd: number | bigint = -1,
    _address: unknown,
    count: number | bigint = 0,
    flags: number | bigint = 0,
  ): number => {
    for (let slot = 0; slot < Number(count); slot++) {
      const header = libc.toAddress(memory.base + slot * size)
      const sent = sendmsg(Number(fd), header, Number(flags))
      if (sent < 0) return slot || sent
      memory.bytes.writeUInt32LE(sent, slot * size + msg_len)
      received.push(drain(peer))
    }
    return Number(count)
  }
  return { ...declaring('sendmmsg', sendmmsg), allocate }
}

function drain(fd: number): Buffer {
  const chunks: Buffer[] = []
  for (;;) {
    const message = receiveNow(fd, 2 ** 20)
    if (typeof message === 'number') return Buffer.concat(chunks)
    chunks.push(message.data)
  }
}

for (const isGlibc of [false, true]) {
  const what = isGlibc ? 'would be' : 'is not'
  t.test(`a sendmmsg that loops ${what} used without care`, async (t) => {
    const [one, other] = newSocketpair()
    const received: Buffer[] = []
    const functions = {
      ...muslLoop(other, received),
      hasFunction: () => isGlibc,
    }
    const { UnixConn } = await connWith(t, functions)
    const conn = UnixConn.fromFd(one)
    const long = Buffer.alloc(2_000_000, 'a')
    const sends = [conn.sendmsg(long), conn.sendmsg('next')]
    let done = false
    Promise.all(sends).then(() => {
      done = true
    })
    await until('all is sent', () => {
      received.push(drain(other))
      return done
    })
    const text = Buffer.concat([...received, drain(other)]).toString()
    const isWhole = text === `${long}next`
    // That the stand-in does what musl does shows where it is believed.
    t.equal(isWhole, !isGlibc)
    conn.close()
    closeSync(other)
  })
}

leakFree(
  'messages that are cut short arrive in order at a peer that reads meanwhile',
  async (t) => {
    const [one, other] = newSocketpair()
    const source = `
import hashlib, socket
s = socket.socket(fileno=3)
s.setblocking(True)
sum = hashlib.sha256()
while data := s.recv(1 << 20): sum.update(data)
print(sum.hexdigest())`
    const reader = new Running(t, ['python3', '-c', source], {
      stdio: ['ignore', 'pipe', 'pipe', other],
    })
    closeSync(other)
    const conn = UnixConn.fromFd(one)
    const sum = createHash('sha256')
    for (let round = 0; round < 30; round++) {
      const messages = [300_000, 5, 1000, 250_000, 7].map((length, index) =>
        Buffer.alloc(length, 10 * round + index),
      )
      for (const message of messages) sum.update(message)
      await Promise.all(messages.map((message) => conn.sendmsg(message)))
    }
    conn.close()
    await reader.exit
    t.equal(reader.stdout, `${sum.digest('hex')}\n`, reader.stderr)
  },
  missing('python3'),
)

// sendmmsg and recvmmsg, and a sendmmsg that goes on after a short send.

import { createHash } from 'node:crypto'
import { closeSync } from 'node:fs'
import { constants } from 'node:os'

import { descriptorsIn, unixRights } from '../../../lib/cmsg.ts'
import { UnixConn } from '../../../lib/conn/conn.ts'
import { host } from '../../../lib/layouts.ts'
import * as libc from '../../../lib/libc.ts'
import { receiveNow } from '../../../lib/message.ts'
import {
  MAX_BATCH,
  receiveBatch,
  sendBatch,
} from '../../../lib/socket/batch.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { declaring, leakFree, missing, Running, until } from '../../support.ts'

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
    const { EAGAIN } = constants.errno
    t.equal(receiveBatch(other, 10, 64), -EAGAIN)
    closeSync(other)
    t.equal(sendBatch(one, messages), -constants.errno.EPIPE)
    closeSync(one)
  },
  MAX_BATCH === 1 && 'batches are for glibc',
)

leakFree('there are no batches without glibc', async (t) => {
  const path = '../../../lib/socket/batch.ts'
  const { MAX_BATCH } = await t.mockImport<
    typeof import('../../../lib/socket/batch.ts')
  >(path, {
    '../../../lib/libc.ts': { ...libc, hasFunction: () => false },
  })
  t.equal(MAX_BATCH, 1)
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
  leakFree(`a sendmmsg that loops ${what} used without care`, async (t) => {
    const [one, other] = newSocketpair()
    const received: Buffer[] = []
    const functions = {
      ...muslLoop(other, received),
      hasFunction: () => isGlibc,
    }
    type Conn = typeof import('../../../lib/conn/conn.ts')
    const path = '../../../lib/conn/conn.ts'
    const mocked = await t.mockImport<Conn>(path, {
      '../../../lib/libc.ts': { ...libc, ...functions },
    })
    const conn = new mocked.UnixConn(one)
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
    const conn = new UnixConn(one)
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

// sendmsg and recvmsg by themselves, and with the libraries and kernels of
// other platforms, which stand in for what this one has.

import { createHash } from 'node:crypto'
import { closeSync, readFileSync } from 'node:fs'
import { constants } from 'node:os'
import type { Test } from 'tap'

import { descriptorsIn, unixRights } from '../../lib/cmsg.ts'
import { UnixConn } from '../../lib/conn/conn.ts'
import * as layouts from '../../lib/layouts.ts'
import * as libc from '../../lib/libc.ts'
import {
  MAX_BATCH,
  maxFdsPerMessage,
  receiveNow,
  sendNow,
} from '../../lib/message.ts'
import { newSocketpair } from '../../lib/socket/unix.ts'
import { leakFree, missing, Running, until } from '../support.ts'

type Message = typeof import('../../lib/message.ts')
type Call = (...values: (number | bigint)[]) => number

const { host } = layouts

/** lib/message.ts on another layout, with other functions of libc.ts. */
function elsewhere(
  t: Test,
  abi: Partial<layouts.Abi>,
  functions: Partial<typeof libc> = {},
): Promise<Message> {
  return t.mockImport<Message>('../../lib/message.ts', {
    '../../lib/layouts.ts': { ...layouts, host: { ...host, ...abi } },
    '../../lib/libc.ts': { ...libc, ...functions },
  })
}

/** declare(), which gives `call` for the function `name`. */
function declaring(name: string, call: Call): Partial<typeof libc> {
  const declare = (...signature: Parameters<typeof libc.declare>): Call =>
    signature[0] === name ? call : (libc.declare(...signature) as Call)
  return { declare: declare as typeof libc.declare }
}

leakFree('maxFdsPerMessage() asks libc, within the layout', async (t) => {
  t.ok([252, host.maxFds].includes(maxFdsPerMessage()))
  const fewer = await elsewhere(t, { maxFds: 100 })
  t.equal(fewer.maxFdsPerMessage(), 100)
  const oldMusl = declaring('sendmsg', () => -constants.errno.ENOMEM)
  for (const maxFds of [253, 254]) {
    const { maxFdsPerMessage } = await elsewhere(t, { maxFds }, oldMusl)
    t.equal(maxFdsPerMessage(), 252, 'musl before 1.2.4')
  }
})

leakFree('maxFdsPerMessage() asks with a true control message', async (t) => {
  // An emulator looks into it before it passes the call on (qemu-user).
  let memory: libc.Memory | undefined
  let control = ''
  const allocate = (size: number): libc.Memory => {
    memory = libc.allocate(size)
    return memory
  }
  const sendmsg = (): number => {
    const { msg_control, msg_controllen } = host.msghdr
    if (memory === undefined) return 0
    const { bytes, base } = memory
    const at = Number(bytes.readBigUInt64LE(msg_control)) - base
    const length = bytes.readUInt32LE(msg_controllen)
    control = bytes.toString('hex', at, at + length)
    return -constants.errno.EBADF
  }
  const functions = { ...declaring('sendmsg', sendmsg), allocate }
  const { maxFdsPerMessage } = await elsewhere(t, {}, functions)
  t.equal(maxFdsPerMessage(), host.maxFds)
  const expected = unixRights(...new Array<number>(host.maxFds).fill(0))
  t.equal(control, expected.toString('hex'))
})

leakFree(
  'receiveNow() sets close-on-exec where the kernel cannot',
  async (t) => {
    const without = { constants: { ...host.constants, MSG_CMSG_CLOEXEC: 0 } }
    const [one, other] = newSocketpair()
    for (const message of [await elsewhere(t, without), { receiveNow }]) {
      sendNow(one, [{ data: Buffer.from('x'), control: unixRights(0, 1) }])
      const received = message.receiveNow(other, 10, 1)
      if (typeof received === 'number')
        throw libc.systemError('recvmsg', received)
      const fds = received.flatMap(({ control }) => descriptorsIn(control))
      t.equal(fds.length, 2)
      for (const fd of fds) {
        const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')
        t.match(info, /flags:\s+0?2\d{6}\b/)
        closeSync(fd)
      }
      t.equal(received[0]?.flags, 0, 'no echoed flags')
    }
    for (const fd of [one, other]) closeSync(fd)
  },
)

leakFree('sendNow(), receiveNow() go one by one without glibc', async (t) => {
  const single = await elsewhere(t, {}, { hasFunction: () => false })
  t.equal(single.MAX_BATCH, 1)
  const [one, other] = newSocketpair()
  const messages = ['x', 'y', 'z'].map((text) => ({
    data: Buffer.from(text),
    control: unixRights(0),
  }))
  t.strictSame(single.sendNow(one, messages), [1], 'the first of three')
  const others = sendNow(one, messages.slice(1))
  t.strictSame(others, [1, 1].slice(0, MAX_BATCH), 'the others, with glibc')
  if (MAX_BATCH === 1) sendNow(one, messages.slice(2))
  for (const text of ['x', 'y', 'z']) {
    const received = single.receiveNow(other, 10, 3)
    if (typeof received === 'number')
      throw libc.systemError('recvmsg', received)
    t.equal(received.length, 1)
    t.equal(received[0]?.data.toString(), text)
    for (const { control } of received) {
      for (const fd of descriptorsIn(control)) closeSync(fd)
    }
  }
  for (const fd of [one, other]) closeSync(fd)
})

// What musl's sendmmsg does: it goes on after a short send. The peer reads
// meanwhile, so that there is room for the next message.
function muslLoop(peer: number, received: Buffer[]): Partial<typeof libc> {
  let memory = libc.allocate(0)
  // The largest is that of message.ts.
  const allocate = (size: number): libc.Memory => {
    const made = libc.allocate(size)
    if (size > memory.bytes.length) memory = made
    return made
  }
  const { size, msg_len } = host.mmsghdr
  const sendmsg = libc.declare('sendmsg', 'size', ['int', 'pointer', 'int'])
  const sendmmsg: Call = (fd = -1, _address, count = 0, flags = 0) => {
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
    const messages = receiveNow(fd, 2 ** 20, 1)
    if (!Array.isArray(messages)) return Buffer.concat(chunks)
    for (const { data } of messages) chunks.push(data)
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
    type Conn = typeof import('../../lib/conn/conn.ts')
    const path = '../../lib/conn/conn.ts'
    const mocked = await t.mockImport<Conn>(path, {
      '../../lib/libc.ts': { ...libc, ...functions },
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

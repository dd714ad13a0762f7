// sendmsg and recvmsg by themselves, one message a call, and with the kernel of
// another platform, which its layout stands in for.

import { closeSync, readFileSync } from 'node:fs'
import { constants } from 'node:os'
import type { Test } from 'tap'

import { LARGE } from '../../lib/arrivals.ts'
import { descriptorsIn, unixRights } from '../../lib/cmsg.ts'
import * as layouts from '../../lib/layouts.ts'
import { systemError } from '../../lib/libc.ts'
import {
  MAX_BYTES,
  type Received,
  receiveNow,
  sendNow,
} from '../../lib/message.ts'
import { newSocketpair } from '../../lib/socket/unix.ts'
import { leakFree } from '../support/descriptors.ts'

type Message = typeof import('../../lib/message.ts')

const { host } = layouts
const { EAGAIN, EBADF, EPIPE } = constants.errno

const NOTHING = Buffer.alloc(0)

function orThrow(message: Received | number): Received {
  if (typeof message !== 'number') return message
  throw systemError('recvmsg', message)
}

/** Sends `data`, however often it takes, to a peer that reads meanwhile. */
function exchange(one: number, other: number, data: Uint8Array): Buffer {
  const pieces: Buffer[] = []
  let rest = data
  while (rest.length > 0) {
    const sent = sendNow(one, { data: rest, control: NOTHING })
    if (sent < 0 && sent !== -EAGAIN) throw systemError('sendmsg', sent)
    if (sent > 0) rest = rest.subarray(sent)
    pieces.push(orThrow(receiveNow(other, MAX_BYTES)).data)
  }
  for (;;) {
    const message = receiveNow(other, MAX_BYTES)
    if (typeof message === 'number') return Buffer.concat(pieces)
    pieces.push(message.data)
  }
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

leakFree('sendNow() sends from every kind of memory', async (t) => {
  const [one, other] = newSocketpair()
  const size = 4 * LARGE
  const resizable = [size, { maxByteLength: 2 * size }]
  const kinds: Record<string, ArrayBufferLike> = {
    ArrayBuffer: new ArrayBuffer(size),
    'one of 100 MB': new ArrayBuffer(100_000_000),
    'a resizable one': Reflect.construct(ArrayBuffer, resizable),
    SharedArrayBuffer: new SharedArrayBuffer(size),
    'a growable one': Reflect.construct(SharedArrayBuffer, resizable),
  }
  for (const [name, memory] of Object.entries(kinds)) {
    for (const length of [1, LARGE - 1, LARGE, LARGE + 1]) {
      for (const offset of [0, 1, 4097, memory.byteLength - length]) {
        const data = filled(memory, offset, length)
        const isSame = exchange(one, other, data).equals(Buffer.from(data))
        t.ok(isSame, `${length} bytes at ${offset} of ${name}`)
      }
    }
  }
  for (const fd of [one, other]) closeSync(fd)
})

leakFree('sendNow() sends small arrays of their own', async (t) => {
  const [one, other] = newSocketpair()
  // V8 keeps these inside the object.
  for (let length = 1; length < 100; length++) {
    const data = Uint8Array.from({ length }, (_, i) => i + length)
    t.ok(exchange(one, other, data).equals(data), `${length} bytes`)
  }
  for (const fd of [one, other]) closeSync(fd)
})

leakFree('sendNow() sends more than MAX_BYTES in parts', async (t) => {
  const [one, other] = newSocketpair()
  const data = filled(new ArrayBuffer(2 * MAX_BYTES), 3, MAX_BYTES + LARGE + 1)
  t.ok(exchange(one, other, data).equals(data))
  for (const fd of [one, other]) closeSync(fd)
})

leakFree('sendNow() tells what was taken, or why nothing', async (t) => {
  const [one, other] = newSocketpair()
  const control = unixRights(0)
  t.equal(sendNow(one, { data: Buffer.from('four'), control }), 4)
  const { data, ...rest } = orThrow(receiveNow(other, 100))
  t.equal(`${data}`, 'four')
  const fds = descriptorsIn(rest.control)
  t.equal(fds.length, 1)
  for (const fd of fds) closeSync(fd)
  const much = { data: Buffer.alloc(MAX_BYTES), control: NOTHING }
  const sent = sendNow(one, much)
  t.ok(sent > 0 && sent < MAX_BYTES, 'as far as there is room')
  t.equal(sendNow(one, much), -EAGAIN, 'and it does not wait')
  closeSync(other)
  t.equal(sendNow(one, much), -EPIPE, 'and no SIGPIPE')
  closeSync(one)
  t.equal(sendNow(one, much), -EBADF)
})

leakFree('receiveNow() gives what is there, to the end', async (t) => {
  const [one, other] = newSocketpair()
  t.equal(receiveNow(other, 100), -EAGAIN, 'and it does not wait')
  for (const text of ['message', 'and more']) {
    sendNow(one, { data: Buffer.from(text), control: NOTHING })
  }
  const texts = [3, 2 ** 40].map((maxBytes) =>
    String(orThrow(receiveNow(other, maxBytes)).data),
  )
  t.strictSame(texts, ['mes', 'sageand more'])
  closeSync(one)
  const end = { data: NOTHING, control: NOTHING, flags: 0 }
  t.strictSame(receiveNow(other, 100), end)
  closeSync(other)
  t.equal(receiveNow(other, 100), -EBADF)
})

/** lib/message.ts on another layout. */
function elsewhere(t: Test, abi: Partial<layouts.Abi>): Promise<Message> {
  return t.mockImport<Message>('../../lib/message.ts', {
    '../../lib/layouts.ts': { ...layouts, host: { ...host, ...abi } },
  })
}

leakFree(
  'receiveNow() sets close-on-exec where the kernel cannot',
  async (t) => {
    const without = { constants: { ...host.constants, MSG_CMSG_CLOEXEC: 0 } }
    const [one, other] = newSocketpair()
    for (const message of [await elsewhere(t, without), { receiveNow }]) {
      sendNow(one, { data: Buffer.from('x'), control: unixRights(0, 1) })
      const received = orThrow(message.receiveNow(other, 10))
      const fds = descriptorsIn(received.control)
      t.equal(fds.length, 2)
      for (const fd of fds) {
        const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')
        t.match(info, /flags:\s+0?2\d{6}\b/)
        closeSync(fd)
      }
      t.equal(received.flags, 0, 'no echoed flags')
    }
    for (const fd of [one, other]) closeSync(fd)
  },
)

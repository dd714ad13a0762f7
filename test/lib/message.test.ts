// sendmsg and recvmsg by themselves, and with the libraries and kernels of
// other platforms, which stand in for what this one has.

import { closeSync, readFileSync } from 'node:fs'
import { constants } from 'node:os'
import type { Test } from 'tap'

import { descriptorsIn, unixRights } from '../../lib/cmsg.ts'
import * as layouts from '../../lib/layouts.ts'
import * as libc from '../../lib/libc.ts'
import {
  LARGE,
  maxFdsPerMessage,
  receiveNow,
  sendNow,
} from '../../lib/message.ts'
import { newSocketpair } from '../../lib/socket/unix.ts'
import { declaring, leakFree } from '../support.ts'

type Message = typeof import('../../lib/message.ts')

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
  // The first is that of the headers.
  const allocate = (size: number): libc.Memory => {
    const made = libc.allocate(size)
    memory ??= made
    return made
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
      sendNow(one, { data: Buffer.from('x'), control: unixRights(0, 1) })
      const received = message.receiveNow(other, 10)
      if (typeof received === 'number')
        throw libc.systemError('recvmsg', received)
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

leakFree(
  'large data stays where it was received, small is copied',
  async (t) => {
    const [one, other] = newSocketpair()
    const exchange = (length: number, maxBytes: number): Buffer => {
      const data = Buffer.alloc(length, length)
      sendNow(one, { data, control: Buffer.alloc(0) })
      const received = receiveNow(other, maxBytes)
      if (typeof received === 'number')
        throw libc.systemError('recvmsg', received)
      t.ok(received.data.equals(data), `${length} bytes, of ${maxBytes}`)
      return received.data
    }
    let last = exchange(LARGE, 65536)
    let stayed = 0
    for (let i = 0; i < 10; i++) {
      const next = exchange(LARGE, 65536)
      const isBehind = next.byteOffset === last.byteOffset + LARGE
      if (next.buffer === last.buffer && isBehind) stayed++
      last = next
    }
    t.ok(stayed >= 8, 'one behind the other, but where new memory begins')
    const small = exchange(LARGE - 1, 65536)
    t.not(small.buffer, last.buffer, 'too small to stay')
    const rare = exchange(LARGE, 1024 * 1024)
    t.ok(rare.buffer.byteLength < 1024 * 1024, 'a small part of the room')
    const { port1, port2 } = new MessageChannel()
    try {
      port1.postMessage(last, [last.buffer as ArrayBuffer])
    } catch (error) {
      t.match(error, { name: 'DataCloneError' }, 'Node 22 and later')
    }
    t.equal(last.length, LARGE, 'still there: others are in the same memory')
    for (const port of [port1, port2]) port.close()
    // None is written over.
    const kept = Array.from({ length: 20 }, (_, i) =>
      exchange(60_000 + i, 65536),
    )
    for (const data of kept) {
      t.ok(data.equals(Buffer.alloc(data.length, data.length)))
    }
    for (const fd of [one, other]) closeSync(fd)
  },
)

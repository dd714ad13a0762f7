// Datagrams: to whom a call sends them, and from whom they have come.

import { closeSync, fstatSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { descriptorsIn, unixRights } from '../../../lib/cmsg.ts'
import { host } from '../../../lib/layouts.ts'
import * as message from '../../../lib/message.ts'
import {
  type ReceivedFrom,
  receiveFrom,
  sendTo,
} from '../../../lib/socket/datagram.ts'
import { parseUnixAddress, unixAddress } from '../../../lib/socket/sockaddr.ts'
import { bindTo, newSocket, newSocketpair } from '../../../lib/socket/unix.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'

const { EAGAIN, EBADF, ECONNREFUSED, ENOTCONN } = constants.errno
const { MSG_TRUNC } = host.constants
const isLinux = process.platform === 'linux'

const NOTHING = Buffer.alloc(0)

/** A socket of datagrams, which has a name if there is a path. */
function newDatagram(path?: string): number {
  const fd = newSocket('datagram')
  if (path !== undefined) t.equal(bindTo(fd, path), 0)
  return fd
}

function receive(fd: number, maxBytes = 100): ReceivedFrom {
  const received = receiveFrom(fd, maxBytes)
  if (typeof received === 'number') throw new Error(`got ${received}`)
  return received
}

leakFree('each datagram goes to a name, and comes from one', async (t) => {
  const folder = temporaryFolder(t)
  // Of different lengths, the shorter of which comes after the longer.
  const names = ['long-name', 's', ''].map((name) => name && join(folder, name))
  const fds = names.map((name) => newDatagram(name || undefined))
  const [first = -1, second = -1, nameless = -1] = fds
  const to = unixAddress(names[1] ?? '')
  t.equal(receiveFrom(second, 10), -EAGAIN)
  const control = unixRights(first)
  t.equal(sendTo(first, { data: Buffer.from('hello'), control }, to), 5)
  t.equal(sendTo(second, { data: Buffer.from('me'), control: NOTHING }, to), 2)
  t.equal(sendTo(nameless, { data: NOTHING, control: NOTHING }, to), 0)

  const { from, control: rights, ...rest } = receive(second)
  t.equal(parseUnixAddress(from), names[0])
  t.strictSame(rest, { data: Buffer.from('hello'), flags: 0, length: 5 })
  const [fd = -1] = descriptorsIn(rights)
  t.equal(fstatSync(fd).ino, fstatSync(first).ino)
  closeSync(fd)

  const own = receive(second)
  t.equal(parseUnixAddress(own.from), names[1])
  t.strictSame(own.data, Buffer.from('me'))
  t.strictSame(own.control, NOTHING)
  const empty = receive(second)
  t.equal(parseUnixAddress(empty.from), '')
  t.strictSame([empty.data, empty.length], [NOTHING, 0])

  for (const each of fds) closeSync(each)
  const lost = { data: Buffer.from('x'), control: NOTHING }
  t.equal(sendTo(first, lost, to), -EBADF)
  const late = newDatagram()
  t.equal(sendTo(late, lost, to), -ECONNREFUSED, 'nobody has the name')
  t.equal(sendTo(late, lost), -ENOTCONN, 'not the name of the last call')
  closeSync(late)
})

leakFree('in a pair nobody needs a name', async (t) => {
  const [one, other] = newSocketpair({ type: 'datagram' })
  const data = Buffer.from('hello')
  t.equal(sendTo(one, { data, control: NOTHING }), 5)
  const { from, ...rest } = receive(other)
  t.equal(parseUnixAddress(from), '')
  t.strictSame(rest, { data, control: NOTHING, flags: 0, length: 5 })
  for (const fd of [one, other]) closeSync(fd)
})

leakFree('what is cut short is told, with the whole length', async (t) => {
  const [one, other] = newSocketpair({ type: 'datagram' })
  for (const [sent, maxBytes] of [
    [5, 3],
    [40_000, 30_000],
  ] as const) {
    const data = Buffer.alloc(sent, 'x')
    t.equal(sendTo(one, { data, control: NOTHING }), sent)
    const { data: received, flags, length } = receive(other, maxBytes)
    t.strictSame(received, data.subarray(0, maxBytes))
    t.equal(flags, MSG_TRUNC)
    t.equal(length, isLinux ? sent : maxBytes)
  }
  for (const fd of [one, other]) closeSync(fd)
})

function mocked(t: Test, mocks: Partial<typeof message>) {
  return t.mockImport<typeof import('../../../lib/socket/datagram.ts')>(
    '../../../lib/socket/datagram.ts',
    { '../../../lib/message.ts': { ...message, ...mocks } },
  )
}

leakFree('the whole length is asked for on Linux alone', async (t) => {
  const asked: number[] = []
  const recvmsg: typeof message.recvmsg = (_fd, _header, flags) => {
    asked.push(Number(flags) & MSG_TRUNC)
    return -EAGAIN
  }
  const { receiveFrom } = await mocked(t, { recvmsg })
  const { restore } = t.intercept(process, 'platform', { value: 'linux' })
  t.equal(receiveFrom(-1, 10), -EAGAIN)
  restore()
  t.intercept(process, 'platform', { value: 'darwin' })
  t.equal(receiveFrom(-1, 10), -EAGAIN)
  t.strictSame(asked, [MSG_TRUNC, 0])
})

leakFree('what comes is made close-on-exec where it has to be', async (t) => {
  const made: number[][] = []
  const { receiveFrom, sendTo } = await mocked(t, {
    closeOnExec: (control) => void made.push(descriptorsIn(control)),
  })
  const [one, other] = newSocketpair({ type: 'datagram' })
  sendTo(one, { data: Buffer.from('x'), control: unixRights(one) })
  const received = receiveFrom(other, 10)
  if (typeof received === 'number') throw new Error(`got ${received}`)
  const fds = descriptorsIn(received.control)
  t.equal(fds.length, 1)
  t.strictSame(made, [fds])
  for (const fd of [one, other, ...fds]) closeSync(fd)
})

// Reads and writes that never wait.

import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { constants } from 'node:os'
import { type Test, t } from 'tap'

import { unixRights } from '../../../lib/cmsg.ts'
import { pipe } from '../../../lib/index.ts'
import * as layouts from '../../../lib/layouts.ts'
import * as libc from '../../../lib/libc.ts'
import { sendNow } from '../../../lib/message.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { nowaitCalls, socketCalls } from '../../../lib/stream/calls.ts'
import { leakFree } from '../../support/descriptors.ts'
import { missingCall } from '../../support/missing.ts'

const { EAGAIN, EBADF, EIO, ENOSYS, EOPNOTSUPP, EPERM } = constants.errno

const skip =
  process.platform === 'linux' ? missingCall('preadv2') : 'only on Linux'

leakFree(
  'a pipe is read and written as far as it goes',
  async (t) => {
    const { read, write } = pipe()
    t.equal(nowaitCalls.read(read, 10), -EAGAIN, 'nothing is there')
    t.equal(nowaitCalls.write(write, Buffer.from('hello')), 5)
    t.strictSame(nowaitCalls.read(read, 3), Buffer.from('hel'))
    t.strictSame(nowaitCalls.read(read, 10), Buffer.from('lo'))

    // 64 KiB at a time, which is what a pipe has room for.
    const much = Buffer.alloc(100_000, 'x')
    t.equal(nowaitCalls.write(write, much), 65_536)
    t.equal(nowaitCalls.write(write, much), -EAGAIN)
    t.strictSame(nowaitCalls.read(read, 65_536), much.subarray(0, 65_536))

    closeSync(write)
    t.strictSame(nowaitCalls.read(read, 10), Buffer.alloc(0), 'the end')
    closeSync(read)
    t.equal(nowaitCalls.read(read, 10), -EBADF)
    t.equal(nowaitCalls.write(write, much), -EBADF)
  },
  skip,
)

leakFree(
  'a file is read from where it is',
  async (t) => {
    const fd = openSync('package.json', 'r')
    const start = Buffer.alloc(20)
    readSync(fd, start, 0, 20, 0)
    readSync(fd, Buffer.alloc(5))
    // What is in memory is there at once.
    t.strictSame(nowaitCalls.read(fd, 15), start.subarray(5))
    closeSync(fd)
  },
  skip,
)

leakFree('a socket is read, and what rides on the bytes closed', async (t) => {
  const [one, other] = newSocketpair()
  t.equal(socketCalls.read(one, 10), -EAGAIN)
  const data = Buffer.from('hello')
  const rights = [one, other]
  t.equal(sendNow(other, { data, control: unixRights(...rights) }), 5)
  t.strictSame(socketCalls.read(one, 10), data)
  t.equal(socketCalls.write(one, data), 5)
  t.strictSame(socketCalls.read(other, 3), Buffer.from('hel'))
  t.ok(fstatSync(one).isSocket())
  for (const fd of [one, other]) closeSync(fd)
  t.equal(socketCalls.write(one, data), -EBADF)
})

/** lib/stream/calls.ts where the calls of C give `result`. */
function giving(t: Test, result: number, host = layouts.host) {
  return t.mockImport<typeof import('../../../lib/stream/calls.ts')>(
    '../../../lib/stream/calls.ts',
    {
      '../../../lib/libc.ts': { ...libc, declareOptional: () => () => result },
      '../../../lib/layouts.ts': { ...layouts, host },
    },
  )
}

t.test('where the calls are missing, the pool has to do', async (t) => {
  for (const errno of [ENOSYS, EPERM, EOPNOTSUPP]) {
    const { nowaitCalls } = await giving(t, -errno)
    t.equal(nowaitCalls.read(0, 1), -EOPNOTSUPP)
    t.equal(nowaitCalls.write(0, Buffer.from('x')), -EOPNOTSUPP)
  }
  const { nowaitCalls } = await giving(t, -EIO)
  t.equal(nowaitCalls.read(0, 1), -EIO, 'another error is its own')
  t.equal(nowaitCalls.write(0, Buffer.from('x')), -EIO)
})

t.test('with 32 bits the calls are not made', async (t) => {
  const arm = layouts.selectAbi('linux', 'arm', 'LE')
  const { nowaitCalls } = await giving(t, 1, arm)
  t.equal(nowaitCalls.read(0, 1), -EOPNOTSUPP)
  t.equal(nowaitCalls.write(0, Buffer.from('x')), -EOPNOTSUPP)
})

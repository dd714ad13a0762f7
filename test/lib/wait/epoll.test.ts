// epoll.ts by itself: what is ready is told once, and who listens may change
// the list meanwhile. watchset.test.ts and writable.test.ts use it in earnest.

import { closeSync, writeSync } from 'node:fs'
import { constants } from 'node:os'
import { t } from 'tap'
import * as libc from '../../../lib/libc.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { EPOLLIN, EPOLLOUT, Epoll } from '../../../lib/wait/epoll.ts'
import { leakFree, until } from '../../support.ts'

if (process.platform !== 'linux') t.bailout('only Linux has epoll(7)')

leakFree('add() reports once what it was asked for', async (t) => {
  const ready: number[] = []
  const epoll = new Epoll((fd) => ready.push(fd))
  const [one, other] = newSocketpair()
  epoll.add(one, EPOLLIN)
  epoll.add(other, EPOLLOUT)
  await until('room in the other', () => ready.length > 0)
  t.strictSame(ready, [other], 'which can be written, and one not read')
  writeSync(other, 'x')
  await until('bytes in the one', () => ready.length > 1)
  t.strictSame(ready, [other, one])
  t.equal(epoll.delete(one), true)
  t.equal(epoll.delete(one), false, 'it is not there any more')
  epoll.close()
  for (const fd of [one, other]) closeSync(fd)
})

leakFree('add() refuses a number that is not open', async (t) => {
  const epoll = new Epoll(() => {})
  t.throws(() => epoll.add(99999, EPOLLIN), { code: 'EBADF' })
  epoll.close()
})

for (const name of ['epoll_create1', 'socketpair', 'dup3']) {
  leakFree(`new Epoll() leaves nothing open where ${name} fails`, async (t) => {
    const fail = (): number => -constants.errno.EMFILE
    const declare = (...signature: Parameters<typeof libc.declare>) =>
      signature[0] === name ? fail : libc.declare(...signature)
    const mocks = { '../../../lib/libc.ts': { ...libc, declare } }
    type Module = typeof import('../../../lib/wait/epoll.ts')
    const path = '../../../lib/wait/epoll.ts'
    const { Epoll } = await t.mockImport<Module>(path, mocks)
    const failure = { code: 'EMFILE', syscall: name }
    t.throws(() => new Epoll(() => {}), failure)
  })
}

leakFree('an owner that throws does not silence the others', async (t) => {
  const listeners = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException')
  const errors: string[] = []
  process.on('uncaughtException', (error) => errors.push(error.message))
  t.teardown(() => {
    process.removeAllListeners('uncaughtException')
    for (const each of listeners) process.on('uncaughtException', each)
  })
  const ready: number[] = []
  const epoll = new Epoll((fd) => {
    ready.push(fd)
    throw new Error(`of ${fd}`)
  })
  const pairs = Array.from({ length: 3 }, newSocketpair)
  for (const [fd] of pairs) epoll.add(fd, EPOLLOUT)
  await until('all three', () => errors.length === 3)
  const expected = pairs.map(([fd]) => fd)
  t.strictSame(ready, expected)
  t.strictSame(
    errors,
    expected.map((fd) => `of ${fd}`),
  )
  epoll.close()
  for (const fd of pairs.flat()) closeSync(fd)
})

leakFree('unref() lets the process end while descriptors wait', async (t) => {
  const held = (): number => process.getActiveResourcesInfo().length
  const epoll = new Epoll(() => t.fail('nothing was sent'))
  const [one, other] = newSocketpair()
  const before = held()
  epoll.add(one, EPOLLIN)
  t.equal(held(), before + 1)
  epoll.unref()
  t.equal(held(), before)
  epoll.close()
  for (const fd of [one, other]) closeSync(fd)
})

// epoll.ts by itself: what is ready is told once, and who listens may change
// the list meanwhile. watchset.test.ts and room.test.ts use it in earnest.

import { closeSync, writeSync } from 'node:fs'
import { t } from 'tap'
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

// A descriptor that keeps its own connection open, recognised.

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fstatSync, openSync } from 'node:fs'

import {
  FdStream,
  framesOf,
  isOtherEnd,
  socketpair,
} from '../../../lib/index.ts'
import { descriptorLimit } from '../../../lib/socket/options.ts'
import { peerInode } from '../../../lib/socket/peer.ts'
import {
  duplicate,
  newSocket,
  newSocketpair,
} from '../../../lib/socket/unix.ts'
import { leakFree, missing, openFds, pipe } from '../../support.ts'

// Whether this kernel tells which sockets belong together.
const [one, other] = newSocketpair()
const tells = isOtherEnd(one, other)
for (const fd of [one, other]) closeSync(fd)
const skip = tells ? false : 'the kernel has no sock_diag for Unix sockets'

leakFree(
  'isOtherEnd() knows the other end, by whatever number',
  async (t) => {
    const [a, b] = newSocketpair()
    const [c, d] = newSocketpair()
    const copy = duplicate(a)
    const single = newSocket()
    const file = openSync('package.json', 'r')
    const { r, w } = pipe()
    t.equal(isOtherEnd(a, b), true)
    t.equal(isOtherEnd(copy, b), true)
    t.equal(isOtherEnd(b, b), false, 'itself')
    for (const fd of [c, single, file, r]) t.equal(isOtherEnd(fd, b), false)
    t.equal(isOtherEnd(a, single), false, 'not connected')
    t.equal(isOtherEnd(a, -1), false, 'closed')
    t.throws(() => isOtherEnd(99999, b), { code: 'EBADF' })
    closeSync(a)
    t.equal(isOtherEnd(copy, b), true)
    for (const fd of [b, c, d, copy, single, file, r, w]) closeSync(fd)
  },
  skip,
)

leakFree(
  'isOtherEnd() is false where the kernel does not tell',
  async (t) => {
    t.equal(peerInode(1), undefined, 'no such socket')
    const [a, b] = newSocketpair()
    const highest = Math.max(...openFds().map((fd) => Number.parseInt(fd, 10)))
    const limit = descriptorLimit()
    const prlimit = (soft: number): unknown =>
      execFileSync('prlimit', [`--pid=${process.pid}`, `--nofile=${soft}:`])
    const filler: number[] = []
    prlimit(highest + 20)
    t.throws(() => {
      for (;;) filler.push(openSync('/dev/null', 'r'))
    })
    const found = isOtherEnd(a, b)
    for (const fd of filler) closeSync(fd)
    prlimit(limit)
    t.equal(found, false, 'no descriptor left to ask with')
    t.equal(isOtherEnd(a, b), true)
    for (const fd of [a, b]) closeSync(fd)
  },
  skip || missing('prlimit'),
)

const refused = { code: 'ERR_OTHER_END' }

leakFree(
  'FdStream holds no other end of its own connection',
  async (t) => {
    const [a, b] = socketpair()
    const stream = new FdStream(b)
    await a.sendFds('x', [0, a.fd])
    a.close()
    const failed = once(stream, 'error')
    stream.resume()
    t.match(await failed, [refused])
    if (!stream.closed) await once(stream, 'close')
  },
  skip,
)

leakFree(
  'framesOf() holds no other end of its own connection',
  async (t) => {
    const [a, b] = socketpair()
    await a.sendFds('{"half', [0, a.fd])
    a.close()
    await t.rejects(framesOf(b, { maxFds: 2 }).next(), refused)
    b.close()
  },
  skip,
)

leakFree('a listener gets what it may, and the connection ends', async (t) => {
  const [a, b] = socketpair()
  const stream = new FdStream(b)
  stream.on('fds', (fds: number[]) => {
    for (const fd of fds) if (fstatSync(fd).isSocket()) stream.closeFds([fd])
  })
  await a.sendFds('x', [a.fd])
  a.close()
  stream.resume()
  await once(stream, 'close')
  t.pass('closed')
})

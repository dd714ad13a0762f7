// watchset.ts: many descriptors watched, none read. Both ways of doing it.

import { execFileSync } from 'node:child_process'
import {
  closeSync,
  openSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { type Test, t } from 'tap'
import { host } from '../../../lib/layouts.ts'
import { duplicate, newSocketpair } from '../../../lib/socket/unix.ts'
import { SocketWatcher, Watcher } from '../../../lib/wait/watcher.ts'
import {
  chooseSet,
  EpollSet,
  WatcherSet,
  type WatchSet,
  watchSet,
} from '../../../lib/wait/watchset.ts'
import {
  compileC,
  leakFree,
  missing,
  openFds,
  run,
  temporaryFolder,
  until,
} from '../../support.ts'

const skip = process.platform !== 'linux' && 'only Linux has epoll(7)'

function both(
  name: string,
  body: (t: Test, useEpoll: boolean) => Promise<void>,
): void {
  leakFree(`with epoll: ${name}`, (t) => body(t, true), skip)
  leakFree(`with a watcher each: ${name}`, (t) => body(t, false))
}

function newSet(useEpoll: boolean, onReadable: (fd: number) => void): WatchSet {
  return useEpoll ? new EpollSet(onReadable) : new WatcherSet(onReadable)
}

t.test('watchSet() takes epoll(7) where there is no uv_poll', async (t) => {
  t.equal(chooseSet('linux', true), EpollSet)
  t.equal(chooseSet('linux', false), WatcherSet)
  t.equal(chooseSet('darwin', true), WatcherSet)
  const set = watchSet(() => {})
  const expected = !skip && Watcher === SocketWatcher
  t.equal(set instanceof EpollSet, expected)
  set.close()
})

both('reports what can be read, once, and reads nothing', async (t, epoll) => {
  const reported: number[] = []
  const set = newSet(epoll, (fd) => reported.push(fd))
  const pairs = Array.from({ length: 200 }, newSocketpair)
  for (const [fd] of pairs) set.add(fd)
  t.equal(set.size, 200)

  const chosen = pairs.filter((_, index) => index % 2 === 1)
  for (const [, peer] of chosen) writeSync(peer, 'hello')
  await until('all are reported', () => reported.length >= chosen.length)
  // The next report has to come through the same queue, behind any repeats.
  const [[last = -1, lastPeer = -1] = []] = pairs
  writeSync(lastPeer, 'x')
  await until('the last one is reported', () => reported.includes(last))
  const expected = [...chosen.map(([fd]) => fd), last]
  t.strictSame(
    reported.sort((a, b) => a - b),
    expected.sort((a, b) => a - b),
    'those that have bytes, once each',
  )
  const bytes = Buffer.alloc(9)
  for (const [fd] of chosen) {
    if (readSync(fd, bytes) !== 5) t.fail(`descriptor ${fd} was read`)
  }
  set.close()
  t.equal(set.size, 0)
  for (const [, peer] of pairs) closeSync(peer)
})

both('reports the end of file', async (t, epoll) => {
  const reported: number[] = []
  const set = newSet(epoll, (fd) => reported.push(fd))
  const [fd, peer] = newSocketpair()
  set.add(fd)
  closeSync(peer)
  await until('it is reported', () => reported.length > 0)
  t.strictSame(reported, [fd])
  t.equal(readSync(fd, Buffer.alloc(1)), 0)
  set.close()
})

both('delete() closes, and nothing more is heard', async (t, epoll) => {
  const reported: number[] = []
  const set = newSet(epoll, (fd) => reported.push(fd))
  const [fd, peer] = newSocketpair()
  const [other, otherPeer] = newSocketpair()
  // A copy keeps the open file description, and its news, alive.
  const copy = duplicate(fd)
  set.add(fd)
  set.add(other)
  set.delete(fd)
  t.throws(() => readSync(fd, Buffer.alloc(1)), { code: 'EBADF' })
  set.delete(fd)
  t.equal(set.size, 1, 'deleting again does nothing')

  writeSync(peer, 'x')
  writeSync(otherPeer, 'x')
  await until('the other is reported', () => reported.length > 0)
  t.strictSame(reported, [other])
  set.delete(other)
  t.equal(set.size, 0)
  for (const each of [copy, peer, otherPeer]) closeSync(each)
  set.close()
})

both('a callback may delete the next to be reported', async (t, epoll) => {
  const pairs = [newSocketpair(), newSocketpair()]
  const reported: number[] = []
  const set = newSet(epoll, (fd) => {
    reported.push(fd)
    for (const [each] of pairs) if (each !== fd) set.delete(each)
  })
  for (const [fd, peer] of pairs) {
    set.add(fd)
    writeSync(peer, 'x')
  }
  await until('one is reported', () => reported.length > 0)
  const [third, thirdPeer] = newSocketpair()
  set.add(third)
  writeSync(thirdPeer, 'x')
  await until('the third is reported', () => reported.includes(third))
  t.equal(reported.length, 2, 'one of the two, and the third')
  for (const [, peer] of [...pairs, [third, thirdPeer]]) {
    closeSync(peer ?? -1)
  }
  set.close()
})

both('add() refuses a file, which remains the caller’s', async (t, epoll) => {
  const set = newSet(epoll, () => {})
  const file = openSync('package.json', 'r')
  const isRead = !epoll && Watcher === SocketWatcher
  t.throws(() => set.add(file), {
    code: isRead ? 'ERR_INVALID_FD_TYPE' : 'EPERM',
  })
  t.equal(set.size, 0)
  closeSync(file)
  t.throws(() => set.add(file), Error)
  set.close()
})

leakFree(
  'with epoll: each costs one descriptor, and the set one more',
  async (t) => {
    const before = openFds().length
    const set = new EpollSet(() => {})
    t.equal(openFds().length, before + 1)
    const pairs = Array.from({ length: 50 }, newSocketpair)
    for (const [fd] of pairs) set.add(fd)
    t.equal(openFds().length, before + 1 + 2 * pairs.length)
    set.close()
    for (const [, peer] of pairs) closeSync(peer)
  },
  skip,
)

leakFree(
  'with epoll: a child inherits nothing of it',
  async (t) => {
    const set = new EpollSet(() => {})
    const command = 'readlink /proc/self/fd/* || true'
    const listed = execFileSync('sh', ['-c', command], { encoding: 'utf8' })
    t.notMatch(listed, /eventpoll/)
    t.ok(openFds().some((fd) => fd.endsWith('[eventpoll]')))
    set.close()
  },
  skip,
)

t.test(
  'epoll_event is what the C header says',
  { skip: skip || missing('cc') },
  async (t) => {
    const folder = temporaryFolder(t)
    const source = join(folder, 'event.c')
    writeFileSync(
      source,
      `#include <stddef.h>
    #include <stdio.h>
    #include <sys/epoll.h>
    int main(void) {
      printf("%zu %zu", sizeof(struct epoll_event),
             offsetof(struct epoll_event, data));
      return 0;
    }`,
    )
    const { stdout } = await run(t, [compileC(folder, source)])
    const { size, data } = host.epoll_event
    t.equal(stdout, `${size} ${data}`)
  },
)

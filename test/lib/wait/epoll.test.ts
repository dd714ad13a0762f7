// The list of epoll(7): what it costs, what it tells of, and what happens where
// the kernel refuses. What every watch does is in watch.test.ts.

import { execFileSync } from 'node:child_process'
import { closeSync, readFileSync, writeSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import * as libc from '../../../lib/libc.ts'
import { receiveNow, sendNow } from '../../../lib/message.ts'
import * as unix from '../../../lib/socket/unix.ts'
import { EpollWatch } from '../../../lib/wait/epoll.ts'
import { READABLE, WRITABLE } from '../../../lib/wait/types.ts'
import { hasEpoll } from '../../../lib/wait/watch.ts'
import { declaring } from '../../support/c.ts'
import { leakFree, openFds } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing } from '../../support/missing.ts'
import { plainEnv, run, script } from '../../support/processes.ts'
import { fill } from '../../support/sockets.ts'
import { turns, until } from '../../support/waiting.ts'

if (process.platform !== 'linux') t.bailout('only Linux has epoll(7)')

const { errno } = constants
const { duplicate, newSocketpair } = unix

// The list of a thread is made when it is first needed, and stays: not what
// the tests here would call a leak.
makeList(EpollWatch)

function makeList(Watch: typeof EpollWatch): void {
  const [one, other] = newSocketpair()
  const watch = new Watch(one, 'edge', () => {})
  watch.wait(READABLE)
  watch.end()
  closeAll(one, other)
}

function closeAll(...fds: number[]): void {
  for (const fd of fds) closeSync(fd)
}

/** How many lists of ours and of the event loop are open. */
function countLists(): number {
  return openFds().filter((fd) => fd.endsWith('[eventpoll]')).length
}

function drain(fd: number): void {
  while (typeof receiveNow(fd, 2 ** 20) !== 'number');
}

// Marks the part of the trace that counts, in which each receive has to wait.
const ROUNDS = 100
const ping = (pair: string, receive: string, send: string): string => `
import { writeSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { socketpair, UnixDatagram } from './lib/index.ts'
const [a, b] = ${pair}
async function rounds(count) {
  for (let round = 0; round < count; round++) {
    const received = b.${receive}()
    await turn()
    await a.${send}('ping')
    await received
  }
}
await rounds(2)
writeSync(1, 'begin')
await rounds(${ROUNDS})
writeSync(1, 'end')
a.close()
b.close()
`

for (const [kind, source] of [
  ['connection', ping('socketpair()', 'recvmsg', 'sendmsg')],
  ['socket of datagrams', ping('UnixDatagram.pair()', 'receive', 'send')],
] as const) {
  leakFree(
    `to wait once more for a ${kind} costs no system call`,
    async (t) => {
      const log = join(temporaryFolder(t), 'trace')
      const { code, stderr } = await run(
        t,
        [
          ...['strace', '-f', '-q', '-o', log],
          ...['-e', 'trace=epoll_ctl,recvmsg,write', '-e', 'signal=none'],
          ...script('--input-type=module', '-e'),
          source,
        ],
        { env: plainEnv() },
      )
      t.equal(code, 0, stderr)
      const trace = readFileSync(log, 'utf8')
      const marked =
        /^(\d+) +write\(1, "begin".*\n([\s\S]*)^\1 +write\(1, "end"/m
      const [, pid, part = ''] = marked.exec(trace) ?? []
      const calls = part
        .split('\n')
        .filter((line) => line.startsWith(`${pid} `))
      const count = (pattern: RegExp): number =>
        calls.filter((call) => pattern.test(call)).length
      // A call that strace writes in two lines ends in the second one.
      const waits = /recvmsg(\(| resumed>).* EAGAIN/
      t.equal(count(waits), ROUNDS, 'each has to wait')
      t.equal(count(/epoll_ctl/), 0)
    },
    hasEpoll ? missing('strace') : 'not what is in use here',
  )
}

const COLLECTED = `
import { setImmediate as turn } from 'node:timers/promises'
import { socketpair } from './lib/index.ts'
async function waitAndClose() {
  const [a, b] = socketpair()
  const received = b.recvmsg()
  await turn()
  await a.sendmsg('ping')
  await received
  a.close()
  b.close()
  return new WeakRef(b)
}
const closed = await waitAndClose()
for (let i = 0; i < 100 && closed.deref(); i++) {
  await turn()
  gc()
}
console.log(closed.deref() === undefined ? 'collected' : 'kept')
`

t.test('what has waited and is closed can be collected', async (t) => {
  const command = script('--expose-gc', '--input-type=module', '-e')
  const { stdout, stderr } = await run(t, [...command, COLLECTED])
  t.equal(stdout, 'collected\n', stderr)
})

leakFree('by level, what was left is told again', async (t) => {
  const [one, other] = newSocketpair()
  let calls = 0
  const watch = new EpollWatch(one, 'level', () => calls++)
  writeSync(other, 'left')
  for (let round = 1; round <= 3; round++) {
    watch.wait(READABLE)
    await until('the call', () => calls === round)
    await turns()
    t.equal(calls, round)
  }
  drain(one)
  watch.wait(READABLE)
  await turns()
  t.equal(calls, 3, 'and not once it is read')
  watch.end()
  closeAll(one, other)
})

leakFree(
  'by level, one event is told while the other is awaited',
  async (t) => {
    const [one, other] = newSocketpair()
    const told: number[] = []
    const watch = new EpollWatch(one, 'level', (events) => told.push(events))
    watch.wait(READABLE | WRITABLE)
    await until('room', () => told.length > 0)
    await turns()
    t.strictSame(told, [WRITABLE])
    writeSync(other, 'x')
    await until('bytes', () => told.length > 1)
    t.strictSame(told, [WRITABLE, READABLE])
    watch.end()
    closeAll(one, other)
  },
)

leakFree('more are told than one call fetches', async (t) => {
  const pairs = Array.from({ length: 200 }, () => newSocketpair())
  const told = pairs.map(() => 0)
  const watches = pairs.map(([fd], index) => {
    return new EpollWatch(fd, index % 2 ? 'edge' : 'level', () => {
      told[index] = (told[index] ?? 0) + 1
    })
  })
  for (const watch of watches) watch.wait(READABLE)
  for (const [, peer] of pairs) writeSync(peer, 'x')
  await until('all', () => told.every((calls) => calls > 0))
  await turns()
  t.strictSame(
    told,
    pairs.map(() => 1),
  )
  for (const watch of watches) watch.end()
  closeAll(...pairs.flat())
})

leakFree('an owner may end most of those that are ready', async (t) => {
  const pairs = Array.from({ length: 200 }, () => newSocketpair())
  let told = 0
  const watches = pairs.map(([fd]) => {
    return new EpollWatch(fd, 'edge', () => {
      told++
      for (const watch of watches.slice(1)) watch.end()
    })
  })
  for (const watch of watches) watch.wait(READABLE)
  for (const [, peer] of pairs) writeSync(peer, 'x')
  await until('one', () => told > 0)
  await turns()
  t.ok(told <= 2, 'that one, and the first, which is not ended')
  watches[0]?.end()
  closeAll(...pairs.flat())
})

leakFree('a newcomer with the number of one that was ready', async (t) => {
  const ready = [newSocketpair(), newSocketpair()]
  const told: string[] = []
  const opened: number[] = []
  const watches = ready.map(([fd], index) => {
    return new EpollWatch(fd, 'edge', () => {
      told.push('ready')
      const [other = -1] = ready[1 - index] ?? []
      watches[1 - index]?.end()
      closeSync(other)
      const [again, peer] = newSocketpair()
      t.equal(again, other, 'it has the same number')
      opened.push(again, peer)
      watches.push(new EpollWatch(again, 'edge', () => told.push('newcomer')))
      watches.at(-1)?.wait(READABLE)
    })
  })
  for (const watch of watches) watch.wait(READABLE)
  for (const [, peer] of ready) writeSync(peer, 'x')
  await until('one of the two', () => told.length > 0)
  await turns()
  t.strictSame(told, ['ready'], 'nothing was sent to the newcomer')
  for (const watch of watches) watch.end()
  closeAll(...ready.map(([, peer]) => peer))
  for (const fd of new Set([...opened, ...ready.map(([fd]) => fd)])) {
    closeSync(fd)
  }
})

/** How many descriptors are on all the lists of this process. */
function countListed(): number {
  let count = 0
  for (const fd of openFds()) {
    if (!fd.endsWith('[eventpoll]')) continue
    const number = Number.parseInt(fd, 10)
    const info = readFileSync(`/proc/self/fdinfo/${number}`, 'utf8')
    count += info.match(/^tfd:/gm)?.length ?? 0
  }
  return count
}

leakFree('end() takes all off the list', async (t) => {
  const [one, other] = newSocketpair()
  const before = countListed()
  const watches = (['edge', 'level', 'edge'] as const).map((trigger) => {
    return new EpollWatch(one, trigger, () => {})
  })
  for (const watch of watches) watch.wait(READABLE | WRITABLE)
  t.equal(countListed(), before + 3)
  await turns()
  for (const watch of watches) watch.end()
  t.equal(countListed(), before)
  closeAll(one, other)
})

leakFree('a descriptor that was closed before end()', async (t) => {
  const [one, other] = newSocketpair()
  const told: string[] = []
  const gone = new EpollWatch(one, 'edge', () => told.push('gone'))
  gone.wait(READABLE)
  // The list names the open file description, which lives on.
  const kept = duplicate(one)
  closeSync(one)
  const [again, peer] = newSocketpair()
  t.equal(again, one)
  gone.end()
  const newcomer = new EpollWatch(again, 'edge', () => told.push('newcomer'))
  newcomer.wait(READABLE)
  writeSync(other, 'x')
  await turns()
  t.strictSame(told, [], 'nobody takes the one for the other')
  writeSync(peer, 'x')
  await until('the newcomer', () => told.length > 0)
  t.strictSame(told, ['newcomer'])
  newcomer.end()
  closeAll(kept, other, again, peer)
})

leakFree('a descriptor that was closed while both are awaited', async (t) => {
  const [one, other] = newSocketpair()
  const told: number[] = []
  const watch = new EpollWatch(one, 'level', (events) => told.push(events))
  watch.wait(READABLE | WRITABLE)
  const kept = duplicate(one)
  closeSync(one)
  await until('the call', () => told.length > 0)
  t.strictSame(told, [READABLE | WRITABLE], 'the next call meets the error')
  t.throws(() => watch.wait(READABLE), {
    code: 'EBADF',
    syscall: 'epoll_ctl',
    message: new RegExp(`descriptor ${one}$`),
  })
  watch.end()
  closeAll(kept, other)
})

leakFree(
  'the end of a watch that never waited leaves another its own',
  async (t) => {
    const [one, other] = newSocketpair()
    const told: number[] = []
    const watch = new EpollWatch(one, 'edge', (events) => told.push(events))
    watch.wait(READABLE)
    new EpollWatch(one, 'edge', () => {}).end()
    writeSync(other, 'x')
    await until('the call', () => told.length > 0)
    t.strictSame(told, [READABLE])
    watch.end()
    closeAll(one, other)
  },
)

leakFree('one list does for all, and no child inherits it', async (t) => {
  const before = openFds()
  const pairs = Array.from({ length: 50 }, () => newSocketpair())
  const watches = pairs.map(([fd]) => new EpollWatch(fd, 'level', () => {}))
  for (const watch of watches) watch.wait(READABLE)
  t.equal(openFds().length, before.length + 2 * pairs.length)
  const list = ['-c', 'readlink /proc/self/fd/* || true']
  t.notMatch(execFileSync('sh', list, { encoding: 'utf8' }), /eventpoll/)
  t.ok(countLists() > 0)

  const [[one = -1] = []] = pairs
  const second = new EpollWatch(one, 'level', () => {})
  second.wait(READABLE)
  t.equal(openFds().length, before.length + 2 * pairs.length + 1, 'a duplicate')
  second.end()
  for (const watch of watches) watch.end()
  closeAll(...pairs.flat())
})

type Epoll = typeof import('../../../lib/wait/epoll.ts')
type Mocks = {
  readonly libc?: Partial<typeof libc>
  readonly unix?: Partial<typeof unix>
  readonly uvPoll?: object
  readonly emptyRead?: object
}

/** An EpollWatch with a list of its own, and other calls. */
async function otherEpoll(t: Test, mocks: Mocks): Promise<typeof EpollWatch> {
  const others: Record<string, unknown> = {
    '../../../lib/libc.ts': { ...libc, ...mocks.libc },
  }
  if (mocks.uvPoll) others['../../../lib/wait/uv-poll.ts'] = mocks.uvPoll
  if (mocks.emptyRead) {
    others['../../../lib/wait/empty-read.ts'] = mocks.emptyRead
  }
  if (mocks.unix) {
    others['../../../lib/socket/unix.ts'] = { ...unix, ...mocks.unix }
  }
  const path = '../../../lib/wait/epoll.ts'
  return (await t.mockImport<Epoll>(path, others)).EpollWatch
}

for (const name of ['epoll_create1', 'socketpair', 'dup3']) {
  leakFree(`where ${name} fails, nothing waits or stays open`, async (t) => {
    const fail = (): number => -errno.EMFILE
    // The way that is the only one without node:ffi.
    const mock = { ...declaring(name, fail), engineName: 'ffi-rs' } as const
    const Watch = await otherEpoll(t, { libc: mock })
    const [one, other] = newSocketpair()
    const open = openFds()
    const watch = new Watch(one, 'edge', () => t.fail('told'))
    for (let attempt = 0; attempt < 2; attempt++) {
      const failure = { code: 'EMFILE', syscall: name }
      t.throws(() => watch.wait(READABLE), failure)
      t.strictSame(openFds(), open)
    }
    watch.end()
    writeSync(other, 'x')
    await turns()
    closeAll(one, other)
  })
}

leakFree('where the event loop refuses the list, it is closed', async (t) => {
  class UvPoll {
    constructor() {
      throw libc.systemError('uv_poll_init', -errno.ENOMEM)
    }
  }
  const mocks = {
    libc: { engineName: 'node:ffi' },
    uvPoll: { UvPoll },
  } as const
  const Watch = await otherEpoll(t, mocks)
  const [one, other] = newSocketpair()
  const watch = new Watch(one, 'edge', () => t.fail('told'))
  const failure = { code: 'ENOMEM', syscall: 'uv_poll_init' }
  t.throws(() => watch.wait(READABLE), failure)
  watch.end()
  closeAll(one, other)
})

// The tests below leave a list open, each its own: they are not leakFree().

t.test('everyone who waits is told that nobody can wait', async (t) => {
  // As a Node would that reads into an empty buffer otherwise.
  let fail = (_reason: Error): void => {}
  const loop = { fd: -1, ref() {}, unref() {} }
  const emptyReadOf = (
    fd: number,
    _told: () => void,
    onFailure: typeof fail,
  ) => {
    fail = onFailure
    return { ...loop, fd: duplicate(fd) }
  }
  const Watch = await otherEpoll(t, {
    libc: { engineName: 'ffi-rs' },
    emptyRead: { emptyReadOf },
  })
  const pairs = [newSocketpair(), newSocketpair(), newSocketpair()]
  const told: string[] = []
  const [edge, level, idle] = pairs.map(([fd], index) => {
    const trigger = index === 0 ? 'edge' : 'level'
    const watch: EpollWatch = new Watch(fd, trigger, (events) => {
      told.push(`${index} ${events} ${watch.failure?.message}`)
    })
    return watch
  })
  edge?.wait(READABLE)
  level?.wait(READABLE | WRITABLE)
  t.equal(edge?.failure, undefined)
  const reason = new Error('cannot wait')
  fail(reason)
  t.strictSame(told, [
    `0 ${READABLE} cannot wait`,
    `1 ${READABLE | WRITABLE} cannot wait`,
  ])
  for (const watch of [edge, level, idle]) {
    t.throws(() => watch?.wait(READABLE), reason)
    watch?.end()
  }
  closeAll(...pairs.flat())
})

const signature = ['int', 'int', 'int', 'pointer'] as const
const epoll_ctl = libc.declare('epoll_ctl', 'int', signature)
const EPOLL_CTL_ADD = 1

t.test('to wait for room once more costs no system call', async (t) => {
  let calls = 0
  const count = (...values: Parameters<typeof epoll_ctl>): number => {
    calls++
    return epoll_ctl(...values)
  }
  const Watch = await otherEpoll(t, { libc: declaring('epoll_ctl', count) })
  makeList(Watch)
  calls = 0
  const [one, other] = newSocketpair()
  let told = 0
  const watch = new Watch(one, 'edge', () => told++)
  for (let round = 1; round <= 20; round++) {
    fill(one)
    watch.wait(WRITABLE)
    drain(other)
    await until('room', () => told === round)
  }
  t.equal(calls, 1, 'of the first wait')
  watch.end()
  closeAll(one, other)
})

for (const trigger of ['edge', 'level'] as const) {
  t.test(
    `${trigger}: at the limit of watches wait() throws ENOSPC`,
    async (t) => {
      let isFull = false
      const mock = declaring(
        'epoll_ctl',
        (...values: Parameters<typeof epoll_ctl>) =>
          isFull && values[1] === EPOLL_CTL_ADD
            ? -errno.ENOSPC
            : epoll_ctl(...values),
      )
      const Watch = await otherEpoll(t, { libc: mock })
      makeList(Watch)
      const [one, other] = newSocketpair()
      const open = openFds()
      let calls = 0
      const watch = new Watch(one, trigger, () => calls++)
      isFull = true
      const failure = { code: 'ENOSPC', syscall: 'epoll_ctl' }
      t.throws(() => watch.wait(READABLE), failure)
      t.throws(() => watch.wait(READABLE), failure)
      writeSync(other, 'x')
      await turns()
      t.equal(calls, 0)
      isFull = false
      watch.wait(READABLE)
      await until('the call', () => calls > 0)
      t.equal(calls, 1, 'it waits once there is room')
      watch.end()
      t.strictSame(openFds(), open)
      closeAll(one, other)
    },
  )
}

t.test('a second watch at the limit leaves no duplicate open', async (t) => {
  let isFull = false
  const mock = declaring(
    'epoll_ctl',
    (...values: Parameters<typeof epoll_ctl>) => {
      const result = epoll_ctl(...values)
      // The kernel looks at the limit after it has looked for the number.
      if (!isFull || values[1] !== EPOLL_CTL_ADD || result < 0) return result
      epoll_ctl(values[0], 2, values[2], values[3])
      return -errno.ENOSPC
    },
  )
  const Watch = await otherEpoll(t, { libc: mock })
  makeList(Watch)
  const [one, other] = newSocketpair()
  const first = new Watch(one, 'level', () => {})
  first.wait(READABLE)
  const open = openFds()
  const second = new Watch(one, 'level', () => {})
  isFull = true
  t.throws(() => second.wait(READABLE), { code: 'ENOSPC' })
  second.end()
  t.strictSame(openFds(), open)
  first.end()
  closeAll(one, other)
})

t.test('a second watch without a free descriptor waits later', async (t) => {
  let isFull = true
  const scarce = (fd: number): number => {
    if (isFull) throw libc.systemError('dup', -errno.EMFILE)
    return duplicate(fd)
  }
  const Watch = await otherEpoll(t, { unix: { duplicate: scarce } })
  makeList(Watch)
  const [one, other] = newSocketpair()
  const open = openFds()
  const told: string[] = []
  const first = new Watch(one, 'edge', () => told.push('first'))
  first.wait(READABLE)
  const second = new Watch(one, 'edge', () => told.push('second'))
  t.throws(() => second.wait(READABLE), { code: 'EMFILE', syscall: 'dup' })
  isFull = false
  second.wait(READABLE)
  writeSync(other, 'x')
  await until('both', () => told.length === 2)
  t.strictSame(told.sort(), ['first', 'second'])
  second.end()
  first.end()
  t.strictSame(openFds(), open)
  closeAll(one, other)
})

t.test('room that nobody waits for does not wake the event loop', async (t) => {
  const params = ['int', 'pointer', 'int', 'int'] as const
  const epoll_wait = libc.declare('epoll_wait', 'int', params)
  let calls = 0
  const mock = declaring(
    'epoll_wait',
    (...values: Parameters<typeof epoll_wait>) => {
      calls++
      return epoll_wait(...values)
    },
  )
  const Watch = await otherEpoll(t, { libc: mock })
  const [one, other] = newSocketpair()
  const message = { data: Buffer.alloc(60_000), control: Buffer.alloc(0) }
  fill(one)
  let told = 0
  const watch = new Watch(one, 'edge', () => told++)
  watch.wait(WRITABLE)
  drain(other)
  await until('room', () => told === 1)
  const sendAndRead = async (): Promise<void> => {
    sendNow(one, message)
    drain(other)
    await turns(3)
  }
  // The first time, it is taken off the list.
  await sendAndRead()
  calls = 0
  for (let round = 0; round < 20; round++) await sendAndRead()
  t.equal(calls, 0)
  t.equal(told, 1)
  watch.end()
  closeAll(one, other)
})

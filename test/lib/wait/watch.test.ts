// Waiting for one descriptor: what every kind of watch does, each in both of
// its ways to tell, and waitReadable() and waitWritable(). What the list of
// epoll(7) does besides is in epoll.test.ts.

import { getEventListeners } from 'node:events'
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { UnixConn } from '../../../lib/index.ts'
import * as layouts from '../../../lib/layouts.ts'
import { check, declare, declareOptional } from '../../../lib/libc.ts'
import { receiveNow, sendNow } from '../../../lib/message.ts'
import { descriptorLimit } from '../../../lib/socket/options.ts'
import {
  connectTo,
  duplicate,
  newSocket,
  newSocketpair,
  shutdownWriting,
} from '../../../lib/socket/unix.ts'
import { EpollWatch } from '../../../lib/wait/epoll.ts'
import { listenAt } from '../../../lib/wait/listen-at.ts'
import { SocketWatch } from '../../../lib/wait/socket-watch.ts'
import type { Trigger } from '../../../lib/wait/types.ts'
import {
  hasEpoll,
  READABLE,
  Watch,
  WRITABLE,
  waitReadable,
  waitWritable,
} from '../../../lib/wait/watch.ts'
import { leakFree, openFds } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing, missingCall } from '../../support/missing.ts'
import { anonymousPipe, pipe } from '../../support/pipes.ts'
import { plainEnv, Running, run, script } from '../../support/processes.ts'
import { fill } from '../../support/sockets.ts'
import { turns, until } from '../../support/waiting.ts'
import { newTerminal } from '../stream/support.ts'

// Without an effect of FDPASS_WAIT, the tests that without-epoll.test.ts runs
// would pass with epoll.
t.test('epoll where there is one, unless FDPASS_WAIT is sockets', async (t) => {
  const choose = async (size: number, wait: string): Promise<string> => {
    const host = { ...layouts.host, epoll_event: { size, data: 4 } }
    t.intercept(process, 'env', {
      value: { ...process.env, FDPASS_WAIT: wait },
    })
    const { hasEpoll, Watch } = await t.mockImport<
      typeof import('../../../lib/wait/watch.ts')
    >('../../../lib/wait/watch.ts', {
      '../../../lib/layouts.ts': { ...layouts, host },
    })
    return `${hasEpoll} ${Watch.name}`
  }
  t.equal(await choose(12, ''), 'true EpollWatch')
  t.equal(await choose(12, 'sockets'), 'false SocketWatch')
  t.equal(await choose(0, ''), 'false SocketWatch')
  t.equal(await choose(0, 'sockets'), 'false SocketWatch')
})

const isLinux = process.platform === 'linux'
const kinds = { ...(isLinux ? { EpollWatch } : {}), SocketWatch }
const triggers: readonly Trigger[] = ['edge', 'level']

type Kind = typeof EpollWatch | typeof SocketWatch

// The list of a thread is made when it is first needed, and stays: not what
// the tests here would call a leak.
if (isLinux) {
  const [one, other] = newSocketpair()
  const watch = new EpollWatch(one, 'edge', () => {})
  watch.wait(WRITABLE)
  watch.end()
  for (const fd of [one, other]) closeSync(fd)
}

/** A test for each kind of watch, and for each way in which it tells. */
function everyWatch(
  name: string,
  body: (t: Test, kind: Kind, trigger: Trigger) => Promise<void>,
): void {
  for (const [kindName, kind] of Object.entries(kinds)) {
    for (const trigger of triggers) {
      leakFree(`${kindName}, ${trigger}: ${name}`, (t) => {
        return body(t, kind, trigger)
      })
    }
  }
}

/** A watch that notes what it is told. */
function noting(kind: Kind, fd: number, trigger: Trigger) {
  const told: number[] = []
  const watch = new kind(fd, trigger, (events) => told.push(events))
  return { watch, told }
}

/** A pair whose first end can send no more. */
function fullPair(): [number, number] {
  const [one, other] = newSocketpair()
  fill(one)
  return [one, other]
}

/** Reads until there is nothing left; what there was, as text. */
function drain(fd: number): string {
  let text = ''
  for (;;) {
    const received = receiveNow(fd, 2 ** 20)
    if (typeof received === 'number' || received.data.length === 0) return text
    text += received.data
  }
}

function closeAll(...fds: number[]): void {
  for (const fd of fds) closeSync(fd)
}

function union(told: readonly number[]): number {
  return told.reduce((all, events) => all | events, 0)
}

/**
 * How often the event loop goes round until some timers have ended, one after
 * the other. What calls back without end makes that thousands.
 */
async function turnsOfTimers(): Promise<number> {
  let count = 0
  // Without a reference the event loop does not go round for it.
  const countTurn = (): void => {
    count++
    next = setImmediate(countTurn).unref()
  }
  let next = setImmediate(countTurn).unref()
  for (let timer = 0; timer < 10; timer++) {
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  clearImmediate(next)
  return count
}

t.test('Watch is the one that the platform has', async (t) => {
  const isOff = process.env.FDPASS_WAIT === 'sockets'
  t.equal(hasEpoll, isLinux && !isOff)
  t.equal(Watch, hasEpoll ? EpollWatch : SocketWatch)
})

everyWatch(
  'tells once for each wait(), and reads nothing',
  async (t, kind, trigger) => {
    const [one, other] = newSocketpair()
    const { watch, told } = noting(kind, one, trigger)
    writeSync(other, 'unheard')
    await turns()
    t.strictSame(told, [], 'not before wait()')
    t.equal(drain(one), 'unheard')

    for (const text of ['first', 'second', 'third']) {
      told.length = 0
      watch.wait(READABLE)
      watch.wait(READABLE)
      t.strictSame(told, [], 'not within wait()')
      await turns()
      writeSync(other, text)
      await until('the call', () => told.length > 0)
      writeSync(other, ' and more')
      await turns()
      t.strictSame(told, [READABLE], 'once, and for that alone')
      t.equal(drain(one), `${text} and more`)
    }
    watch.end()
    closeAll(one, other)
  },
)

everyWatch(
  'tells the first wait() of what was there before',
  async (t, kind, trigger) => {
    const [one, other] = newSocketpair()
    writeSync(other, 'early')
    const { watch, told } = noting(kind, one, trigger)
    await turns()
    watch.wait(READABLE | WRITABLE)
    await until('both', () => union(told) === (READABLE | WRITABLE))
    await turns()
    t.equal(
      told.reduce((sum, events) => sum + events, 0),
      READABLE + WRITABLE,
    )
    watch.end()
    closeAll(one, other)
  },
)

everyWatch(
  'may be called in vain, but never without end',
  async (t, kind, trigger) => {
    const [one, other] = newSocketpair()
    const { watch, told } = noting(kind, one, trigger)
    watch.wait(READABLE)
    writeSync(other, 'left unread')
    await until('the call', () => told.length > 0)
    t.ok((await turnsOfTimers()) < 100, 'readable, and nobody waits')
    watch.wait(WRITABLE)
    await until('there is room', () => told.includes(WRITABLE))
    t.ok((await turnsOfTimers()) < 100, 'writable too')
    closeSync(other)
    t.ok((await turnsOfTimers()) < 100, 'nor when the peer is gone')
    watch.end()
    closeAll(one)
  },
)

everyWatch(
  'tells that a full socket has room, each time',
  async (t, kind, trigger) => {
    const [one, other] = fullPair()
    const { watch, told } = noting(kind, one, trigger)
    for (let round = 1; round <= 3; round++) {
      watch.wait(WRITABLE)
      watch.wait(WRITABLE)
      await turns()
      t.strictSame(told, [], 'not while it is full')
      drain(other)
      await until('room', () => told.length > 0)
      await turnsOfTimers()
      t.strictSame(told.splice(0), [WRITABLE])
      // There is room again, and nobody waits for it.
      sendNow(one, { data: Buffer.from('x'), control: Buffer.alloc(0) })
      drain(other)
      await turns()
      t.strictSame(told, [], 'once')
      fill(one)
    }
    watch.end()
    closeAll(one, other)
  },
)

everyWatch(
  'takes a while for room, and does not lose it',
  async (t, kind, trigger) => {
    const [one, other] = fullPair()
    const { watch, told } = noting(kind, one, trigger)
    watch.wait(WRITABLE)
    await turnsOfTimers()
    await turnsOfTimers()
    t.strictSame(told, [])
    drain(other)
    await until('room', () => told.length > 0)
    t.strictSame(told, [WRITABLE])
    watch.end()
    closeAll(one, other)
  },
)

everyWatch('a peer that hangs up is both', async (t, kind, trigger) => {
  const [one, other] = fullPair()
  const { watch, told } = noting(kind, one, trigger)
  watch.wait(READABLE)
  watch.wait(WRITABLE)
  await turns()
  t.strictSame(told, [])
  closeSync(other)
  await until('both', () => union(told) === (READABLE | WRITABLE))
  await turns()
  t.ok(told.length <= 2, 'each of them once')
  watch.end()
  closeAll(one)
})

everyWatch(
  'a peer that sends no more is to be read',
  async (t, kind, trigger) => {
    const [one, other] = fullPair()
    const { watch, told } = noting(kind, one, trigger)
    watch.wait(READABLE | WRITABLE)
    shutdownWriting(other)
    await until('the end of file', () => told.length > 0)
    await turns()
    t.strictSame(told, [READABLE], 'and there is no room yet')
    drain(other)
    await until('room', () => told.length > 1)
    t.strictSame(told, [READABLE, WRITABLE])
    watch.end()
    closeAll(one, other)
  },
)

everyWatch(
  'cancel() takes back one event, or both',
  async (t, kind, trigger) => {
    const [one, other] = fullPair()
    const { watch, told } = noting(kind, one, trigger)
    watch.wait(READABLE | WRITABLE)
    watch.cancel(READABLE)
    writeSync(other, 'x')
    await turns()
    t.strictSame(told, [], 'nobody waits for that any more')
    drain(other)
    await until('room', () => told.length > 0)
    t.strictSame(told.splice(0), [WRITABLE])

    drain(one)
    fill(one)
    watch.wait(READABLE | WRITABLE)
    watch.cancel(READABLE | WRITABLE)
    writeSync(other, 'y')
    drain(other)
    await turnsOfTimers()
    t.strictSame(told, [])

    drain(one)
    watch.wait(READABLE)
    writeSync(other, 'z')
    await until('another wait() after that', () => told.length > 0)
    t.strictSame(told, [READABLE])
    watch.end()
    closeAll(one, other)
  },
)

everyWatch('cancel() after the kernel has told', async (t, kind, trigger) => {
  const [one, other] = newSocketpair()
  const { watch, told } = noting(kind, one, trigger)
  watch.wait(READABLE)
  writeSync(other, 'x')
  watch.cancel(READABLE)
  await turns()
  t.strictSame(told, [])
  t.equal(drain(one), 'x')
  watch.wait(READABLE)
  writeSync(other, 'y')
  await until('the call', () => told.length > 0)
  t.strictSame(told, [READABLE])
  watch.end()
  closeAll(one, other)
})

everyWatch('wait() may be called when told', async (t, kind, trigger) => {
  const [one, other] = newSocketpair()
  const texts: string[] = []
  const watch = new kind(one, trigger, () => {
    texts.push(drain(one))
    watch.wait(READABLE)
  })
  watch.wait(READABLE)
  for (const text of ['first', 'second', 'third']) {
    writeSync(other, text)
    await until(text, () => texts.join('').endsWith(text))
  }
  t.equal(texts.join(''), 'firstsecondthird')
  watch.end()
  closeAll(one, other)
})

everyWatch('tells with and without a reference', async (t, kind, trigger) => {
  const [one, other] = newSocketpair()
  const { watch, told } = noting(kind, one, trigger)
  watch.unref()
  for (const change of [watch.ref, watch.unref, watch.ref] as const) {
    told.length = 0
    watch.wait(READABLE | WRITABLE)
    change.call(watch)
    writeSync(other, 'x')
    await until('both', () => union(told) === (READABLE | WRITABLE))
    t.equal(drain(one), 'x')
    fill(one)
    drain(other)
  }
  watch.end()
  closeAll(one, other)
})

everyWatch(
  'after end() nothing comes, whoever has the socket too',
  async (t, kind, trigger) => {
    const [one, other] = newSocketpair()
    const { watch, told } = noting(kind, one, trigger)
    watch.wait(READABLE)
    // As another process would: it keeps the open file description alive.
    const kept = duplicate(one)
    watch.end()
    closeSync(one)
    const [again, peer] = newSocketpair()
    t.equal(again, one, 'a newcomer has the number')
    const newcomer = noting(kind, again, trigger)
    newcomer.watch.wait(READABLE)
    writeSync(other, 'to the one that is gone')
    await turns()
    t.strictSame(told, [])
    t.strictSame(newcomer.told, [], 'which is not told of it')

    writeSync(peer, 'x')
    await until('the call', () => newcomer.told.length > 0)
    t.strictSame(newcomer.told, [READABLE])
    newcomer.watch.end()
    t.equal(drain(kept), 'to the one that is gone')
    closeAll(kept, other, again, peer)
  },
)

everyWatch(
  'end() before wait(), while full, and again',
  async (t, kind, trigger) => {
    const [one, other] = fullPair()
    const idle = noting(kind, one, trigger)
    idle.watch.end()
    idle.watch.end()
    const { watch, told } = noting(kind, one, trigger)
    watch.wait(READABLE | WRITABLE)
    watch.end()
    watch.end()
    watch.cancel(READABLE | WRITABLE)
    closeSync(other)
    await turnsOfTimers()
    t.strictSame([...idle.told, ...told], [])
    closeAll(one)
  },
)

everyWatch(
  'an owner may end another that is ready too',
  async (t, kind, trigger) => {
    const pairs = [newSocketpair(), newSocketpair()]
    const told: number[] = []
    const watches = pairs.map(([fd], index) => {
      return new kind(fd, trigger, () => {
        told.push(index)
        for (const each of watches) each.end()
      })
    })
    for (const watch of watches) watch.wait(READABLE)
    for (const [, peer] of pairs) writeSync(peer, 'x')
    await until('one of them', () => told.length > 0)
    await turns()
    t.equal(told.length, 1, 'the other is not told after its end')
    closeAll(...pairs.flat())
  },
)

everyWatch(
  'an owner that throws does not silence the others',
  async (t, kind, trigger) => {
    const listeners = process.listeners('uncaughtException')
    process.removeAllListeners('uncaughtException')
    const errors: string[] = []
    process.on('uncaughtException', ({ message }) => errors.push(message))
    t.teardown(() => {
      process.removeAllListeners('uncaughtException')
      for (const each of listeners) process.on('uncaughtException', each)
    })
    const pairs = [newSocketpair(), newSocketpair(), newSocketpair()]
    const expected = ['of 0', 'of 1', 'of 2']
    const watches = pairs.map(([fd], index) => {
      return new kind(fd, trigger, () => {
        drain(fd)
        throw new Error(`of ${index}`)
      })
    })
    for (let round = 0; round < 2; round++) {
      for (const watch of watches) watch.wait(READABLE)
      for (const [, peer] of pairs) writeSync(peer, 'x')
      await until('all three', () => errors.length === 3)
      t.strictSame(errors.splice(0).sort(), expected, `round ${round}`)
    }
    for (const watch of watches) watch.end()
    closeAll(...pairs.flat())
  },
)

everyWatch('two watches of one descriptor', async (t, kind, trigger) => {
  const [one, other] = newSocketpair()
  const first = noting(kind, one, trigger)
  const second = noting(kind, one, trigger)
  for (const { watch } of [first, second]) watch.wait(READABLE)
  writeSync(other, 'x')
  await until('both', () => first.told.length + second.told.length === 2)
  t.strictSame([first.told, second.told], [[READABLE], [READABLE]])
  t.equal(drain(one), 'x')

  for (const { watch } of [first, second]) watch.wait(READABLE)
  first.watch.end()
  writeSync(other, 'y')
  await until('the one that is left', () => second.told.length === 2)
  t.equal(first.told.length, 1)
  t.equal(drain(one), 'y')

  // A third takes the place of the first.
  const third = noting(kind, one, trigger)
  third.watch.wait(READABLE)
  second.watch.end()
  writeSync(other, 'z')
  await until('the third', () => third.told.length === 1)
  t.equal(second.told.length, 2)
  third.watch.end()
  closeAll(one, other)
})

everyWatch(
  'a listening socket is readable for a connection',
  async (t, kind, trigger) => {
    const path = join(temporaryFolder(t), 's')
    const { fd } = await listenAt(path, 'stream')
    const { watch, told } = noting(kind, fd, trigger)
    watch.wait(READABLE)
    await turns()
    t.strictSame(told, [])
    const client = newSocket()
    check('connect', connectTo(client, path))
    await until('the call', () => told.length > 0)
    t.strictSame(told, [READABLE])
    watch.end()
    closeAll(client, fd)
  },
)

everyWatch('what cannot be waited for is refused', async (t, kind, trigger) => {
  const wait = (fd: number, events: number) => {
    const { watch } = noting(kind, fd, trigger)
    try {
      watch.wait(events)
    } finally {
      watch.end()
    }
  }
  const file = openSync('package.json', 'r')
  for (const events of [READABLE, WRITABLE, READABLE | WRITABLE]) {
    const refusal = { code: /^(EPERM|ERR_INVALID_FD_TYPE)$/ }
    t.throws(() => wait(file, events), refusal)
  }
  t.ok(fstatSync(file).isFile(), 'it stays open, and the caller’s')
  closeSync(file)
  for (const fd of [file, -1]) {
    t.throws(() => wait(fd, READABLE), { code: 'EBADF' })
  }
})

// In a process of its own, as what runs the tests keeps this one alive. Each
// case begins when nothing is left that would. What it prepares has to keep the
// process alive until the peer sends or reads, for which a timer without a
// reference sees; or has to let it end before that. What a case returns is called
// each time that the watch tells.
const HOLDS = `
import { once } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import { receiveNow, sendNow } from './lib/message.ts'
import { closeFd, newSocketpair } from './lib/socket/unix.ts'
import { EpollWatch } from './lib/wait/epoll.ts'
import { SocketWatch } from './lib/wait/socket-watch.ts'
import { READABLE, WRITABLE } from './lib/wait/types.ts'

const [, kind, trigger] = process.argv
const Watch = { EpollWatch, SocketWatch }[kind]
const none = Buffer.alloc(0)
const cases = {
  'wait()': (watch) => watch.wait(READABLE),
  'wait(), unref()': (watch) => { watch.wait(READABLE); watch.unref() },
  'unref(), wait()': (watch) => { watch.unref(); watch.wait(READABLE) },
  'unref(), wait(), ref()': (watch) => {
    watch.unref()
    watch.wait(READABLE)
    watch.ref()
  },
  'ref() alone': (watch) => watch.ref(),
  'unref(), ref(), wait()': (watch) => {
    watch.unref()
    watch.ref()
    watch.wait(READABLE)
  },
  'wait() again when told': (watch, fd, send) => {
    watch.wait(READABLE)
    let calls = 0
    return () => {
      if (++calls > 1) return
      receiveNow(fd, 10)
      watch.wait(READABLE)
      setTimeout(send, 50).unref()
      return 'is told once'
    }
  },
  'wait(), cancel()': (watch) => {
    watch.wait(READABLE)
    watch.cancel(READABLE)
  },
  'wait(), cancel(), ref()': (watch) => {
    watch.wait(READABLE)
    watch.cancel(READABLE)
    watch.unref()
    watch.ref()
  },
  'wait(), cancel(), wait()': (watch) => {
    watch.wait(READABLE)
    watch.cancel(READABLE)
    watch.wait(READABLE)
  },
  'wait(), end()': (watch) => { watch.wait(READABLE); watch.end() },
  'wait() for room, unref()': (watch) => {
    watch.wait(WRITABLE)
    watch.unref()
  },
  'wait() for room, cancel()': (watch) => {
    watch.wait(WRITABLE)
    watch.cancel(WRITABLE)
  },
  'wait() for both, cancel() for room': (watch) => {
    watch.wait(READABLE | WRITABLE)
    watch.cancel(WRITABLE)
  },
  'wait() for both, cancel() for room, unref()': (watch) => {
    watch.wait(READABLE | WRITABLE)
    watch.cancel(WRITABLE)
    watch.unref()
  },
  'wait() for both, end()': (watch) => {
    watch.wait(READABLE | WRITABLE)
    watch.end()
  },
}
await once(process, 'beforeExit')
for (const [name, prepare] of Object.entries(cases)) {
  // One turn, so that the event loop ends again if nothing keeps it alive.
  await turn()
  const [one, other] = newSocketpair()
  while (sendNow(one, { data: Buffer.alloc(60_000), control: none }) > 0);
  let outcome = 'ends'
  const send = () => sendNow(other, { data: Buffer.from('x'), control: none })
  const watch = new Watch(one, trigger, (events) => {
    outcome = whenTold?.() ?? 'waits, is told ' + events
  })
  const whenTold = prepare(watch, one, send)
  const timer = setTimeout(() => {
    outcome = 'waits for nothing'
    while (typeof receiveNow(other, 2 ** 20) !== 'number');
    send()
  }, 200)
  timer.unref()
  await once(process, 'beforeExit')
  console.log(name + ': ' + outcome)
  clearTimeout(timer)
  watch.end()
  closeFd(one)
  closeFd(other)
}
`
const expectedHolds = `wait(): waits, is told ${READABLE}
wait(), unref(): ends
unref(), wait(): ends
unref(), wait(), ref(): waits, is told ${READABLE}
ref() alone: ends
unref(), ref(), wait(): waits, is told ${READABLE}
wait() again when told: waits, is told ${READABLE}
wait(), cancel(): ends
wait(), cancel(), ref(): ends
wait(), cancel(), wait(): waits, is told ${READABLE}
wait(), end(): ends
wait() for room, unref(): waits, is told ${WRITABLE}
wait() for room, cancel(): ends
wait() for both, cancel() for room: waits, is told ${READABLE}
wait() for both, cancel() for room, unref(): ends
wait() for both, end(): ends
`

/** The command that runs a module which follows it. */
const module = script('--input-type=module', '-e')
const env = plainEnv()

everyWatch(
  'keeps the process alive while it waits',
  async (t, kind, trigger) => {
    const command = [...module, HOLDS, kind.name, trigger]
    const result = await run(t, command, { env })
    t.equal(result.stdout, expectedHolds, result.stderr)
    t.strictSame([result.code, result.signal], [0, null])
  },
)

// An owner that throws, whose process goes on: it has not waited again.
const THROWS = `
import { writeSync } from 'node:fs'
import { newSocketpair } from './lib/socket/unix.ts'
import { EpollWatch } from './lib/wait/epoll.ts'
import { SocketWatch } from './lib/wait/socket-watch.ts'
import { READABLE } from './lib/wait/types.ts'
import { receiveNow } from './lib/message.ts'

const [, kind, trigger] = process.argv
const Watch = { EpollWatch, SocketWatch }[kind]
process.on('uncaughtException', ({ message }) => console.log(message))
const [one, other] = newSocketpair()
const watch = new Watch(one, trigger, () => {
  receiveNow(one, 10)
  throw new Error('of the owner')
})
watch.wait(READABLE)
writeSync(other, 'x')
setTimeout(() => console.log('does not end'), 10_000).unref()
`

everyWatch(
  'an owner that has thrown lets the process end',
  async (t, kind, trigger) => {
    const command = [...module, THROWS, kind.name, trigger]
    const child = new Running(t, command, { env })
    const { code } = await Promise.race([
      child.exit,
      child.printed(/does not end/).then(() => ({ code: 'none' })),
    ])
    child.child.kill()
    t.equal(code, 0, 'it ends by itself')
    t.equal(child.stdout, 'of the owner\n', child.stderr)
  },
)

// There is one free descriptor more each time, until there are enough.
const EMFILE = `
import { closeSync, openSync } from 'node:fs'
import { waitWritable } from './lib/index.ts'
import { newSocketpair } from './lib/socket/unix.ts'
import { openFds } from './test/support/descriptors.ts'

const [one] = newSocketpair()
const before = openFds()
const fillers = []
try {
  for (;;) fillers.push(openSync('/dev/null'))
} catch {}
const codes = []
for (;;) {
  try {
    await waitWritable(one)
    break
  } catch ({ code }) {
    codes.push(code)
  }
  closeSync(fillers.pop())
}
for (const fd of fillers) closeSync(fd)
console.log(codes.join())
for (const fd of openFds()) if (!before.includes(fd)) console.log(fd)
`

leakFree(
  'without a free descriptor nothing waits, and nothing stays open',
  async (t) => {
    const command = ['prlimit', '--nofile=100:100', ...module, EMFILE]
    const { code, stdout, stderr } = await run(t, command, { env })
    const list = hasEpoll ? '\\d+ -> anon_inode:\\[eventpoll\\]\n' : ''
    t.match(stdout, new RegExp(`^EMFILE(,EMFILE)*\n${list}$`), stderr)
    t.equal(code, 0)
  },
  missing('prlimit'),
)

const withoutEpoll = hasEpoll ? false : 'only epoll(7) takes it'

type Wait = typeof waitReadable

/** Whether it can be read, or written: if not, the wait is given up. */
async function isReady(wait: Wait, fd: number): Promise<boolean> {
  const stop = new AbortController()
  const waited = wait(fd, { signal: stop.signal })
  const ready = waited.then(
    () => true,
    (error: Error) => {
      if (error.name !== 'AbortError') throw error
      return false
    },
  )
  await turnsOfTimers()
  stop.abort()
  return ready
}

/** The status flags of an open file description, as in proc_pid_fdinfo(5). */
function flagsOf(fd: number): number {
  const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')
  return Number.parseInt(/flags:\s+(\d+)/.exec(info)?.[1] ?? '', 8)
}

/** Fills a pipe, through an open file description that does not block. */
function fillPipe(w: number): void {
  const { O_NONBLOCK, O_WRONLY } = constants
  const fd = openSync(`/proc/self/fd/${w}`, O_WRONLY | O_NONBLOCK)
  try {
    for (;;) writeSync(fd, Buffer.alloc(4096))
  } catch {
    closeSync(fd)
  }
}

const ends = {
  'a socket': async () => newSocketpair(),
  'a FIFO': async () => {
    const { r, w } = pipe()
    return [r, w] as const
  },
  'a pipe': async (t: Test) => {
    const { r, w, shared } = await anonymousPipe(t)
    closeSync(shared)
    return [r, w] as const
  },
}

for (const [name, make] of Object.entries(ends)) {
  const skip = name === 'a pipe' && missing('python3')

  leakFree(
    `waitReadable() waits for bytes of ${name}, and reads none`,
    async (t) => {
      const [reader, writer] = await make(t)
      t.equal(await isReady(waitReadable, reader), false)
      const wait = waitReadable(reader)
      writeSync(writer, 'hello')
      t.equal(await wait, undefined)
      await waitReadable(reader)
      const bytes = Buffer.alloc(9)
      t.equal(readSync(reader, bytes), 5, 'which are all there')
      t.equal(await isReady(waitReadable, reader), false)
      closeSync(writer)
      await waitReadable(reader)
      t.equal(readSync(reader, bytes), 0, 'the end of file')
      closeSync(reader)
    },
    skip,
  )

  leakFree(
    `waitWritable() waits for room in ${name}`,
    async (t) => {
      const [reader, writer] = await make(t)
      t.equal(await waitWritable(writer), undefined, 'which there is at first')
      if (name === 'a socket') fill(writer)
      else fillPipe(writer)
      t.equal(await isReady(waitWritable, writer), false)
      const wait = waitWritable(writer)
      if (name === 'a socket') drain(reader)
      else readSync(reader, Buffer.alloc(65536))
      t.equal(await wait, undefined)
      if (name === 'a socket') fill(writer)
      else fillPipe(writer)
      const last = waitWritable(writer)
      closeSync(reader)
      t.equal(await last, undefined, 'nobody reads any more')
      t.throws(() => writeSync(writer, 'x'), { code: 'EPIPE' })
      closeSync(writer)
    },
    skip,
  )
}

// int eventfd(unsigned int initval, int flags)
const eventfd = declare('eventfd', 'int', ['uint', 'int'])
const EFD_CLOEXEC = 0x80000 // on every platform but MIPS and SPARC
// int pidfd_open(pid_t pid, unsigned int flags)
const pidfd_open = declareOptional('pidfd_open', 'int', ['int', 'uint'])
const noPidfd = withoutEpoll || missingCall('pidfd_open')

leakFree(
  'waitReadable() waits for an eventfd',
  async (t) => {
    const fd = check('eventfd', eventfd(0, EFD_CLOEXEC))
    t.equal(await isReady(waitReadable, fd), false)
    await waitWritable(fd)
    const count = Buffer.alloc(8)
    for (let round = 1n; round <= 3n; round++) {
      const wait = waitReadable(fd)
      count.writeBigUInt64LE(round)
      writeSync(fd, count)
      await wait
      readSync(fd, count.fill(0))
      t.equal(count.readBigUInt64LE(), round)
    }
    closeSync(fd)
  },
  withoutEpoll,
)

leakFree(
  'waitReadable() waits for the end of a process',
  async (t) => {
    const child = new Running(t, ['cat'])
    const fd = check('pidfd_open', pidfd_open(child.pid, 0))
    t.equal(await isReady(waitReadable, fd), false)
    const wait = waitReadable(fd)
    child.child.stdin?.end()
    t.equal(await wait, undefined)
    closeSync(fd)
    await child.exit
  },
  noPidfd,
)

leakFree(
  'waitReadable() waits for what is typed',
  async (t) => {
    const { master, slave } = await newTerminal(t)
    if (hasEpoll) {
      await waitWritable(slave)
      t.equal(await isReady(waitReadable, slave), false)
      const wait = waitReadable(slave)
      writeSync(master, 'typed')
      t.equal(await isReady(waitReadable, slave), false, 'the line goes on')
      writeSync(master, '\n')
      await wait
      const bytes = Buffer.alloc(99)
      t.equal(readSync(slave, bytes), 'typed\n'.length)
      const last = waitReadable(slave)
      closeSync(master)
      t.equal(await last, undefined, 'the terminal is gone')
    } else {
      closeSync(master)
      const refusal = { code: 'ERR_INVALID_FD_TYPE' }
      await t.rejects(waitReadable(slave), refusal)
    }
    closeSync(slave)
  },
  missing('python3'),
)

leakFree(
  'waitReadable() sets nothing on what it waits for',
  async (t) => {
    const { O_NONBLOCK } = constants
    const [one, other] = newSocketpair({ isBlocking: true })
    const { r, w, shared } = await anonymousPipe(t)
    for (const fd of [one, other, r, w]) {
      const before = flagsOf(fd)
      t.equal(before & O_NONBLOCK, 0, 'it blocks')
      await isReady(waitReadable, fd)
      await isReady(waitWritable, fd)
      t.equal(flagsOf(fd), before)
    }
    closeAll(one, other, r, w, shared)
  },
  withoutEpoll || missing('python3'),
)

leakFree('an abort ends one wait, for the reason given', async (t) => {
  const [one, other] = newSocketpair()
  const open = openFds()
  const cause = new Error('enough')
  const expected = { name: 'AbortError', code: 'ABORT_ERR', cause }
  const aborted = AbortSignal.abort(cause)
  await t.rejects(waitReadable(one, { signal: aborted }), expected)
  await t.rejects(waitWritable(one, { signal: aborted }), expected)

  const stop = new AbortController()
  const { signal } = stop
  const waits = [waitReadable(one, { signal }), waitReadable(one)]
  await turns()
  stop.abort(cause)
  await t.rejects(waits[0] ?? Promise.resolve(), expected)
  t.equal(await isReady(waitReadable, one), false)
  writeSync(other, 'x')
  t.equal(await waits[1], undefined, 'the other goes on')
  t.strictSame(openFds(), open)
  closeAll(one, other)
})

leakFree('a wait that is over has left its signal', async (t) => {
  const [one, other] = newSocketpair()
  const { signal } = new AbortController()
  const count = () => getEventListeners(signal, 'abort').length
  const wait = waitReadable(one, { signal })
  t.equal(count(), 1)
  writeSync(other, 'x')
  await wait
  t.equal(count(), 0)
  await t.rejects(waitReadable(-1, { signal }), { code: 'EBADF' })
  t.equal(count(), 0, 'one that failed too')
  closeAll(one, other)
})

leakFree('several wait for one descriptor', async (t) => {
  const [one, other] = fullPair()
  const order: string[] = []
  const note = (name: string) => () => order.push(name)
  const waits = [
    waitReadable(one).then(note('r')),
    waitWritable(one).then(note('w')),
    waitReadable(one).then(note('r')),
    waitWritable(one).then(note('w')),
  ]
  await turns()
  writeSync(other, 'x')
  await until('both readers', () => order.length === 2)
  t.strictSame(order, ['r', 'r'])
  drain(other)
  await Promise.all(waits)
  t.strictSame(order, ['r', 'r', 'w', 'w'])
  closeAll(one, other)
})

leakFree('a connection receives beside those who wait', async (t) => {
  const [one, other] = newSocketpair()
  const conn = UnixConn.fromFd(one)
  const received = conn.recvmsg()
  const wait = waitReadable(conn.fd)
  writeSync(other, 'for the connection')
  t.equal(String((await received)?.data), 'for the connection')
  await wait.catch(() => {})
  const next = conn.recvmsg()
  writeSync(other, 'more')
  t.equal(String((await next)?.data), 'more')
  conn.close()
  closeSync(other)
})

const MANY = 2000

leakFree(
  `${MANY} waits at once`,
  async (t) => {
    const pairs = Array.from({ length: MANY / 2 }, () => newSocketpair())
    const waits = pairs.flat().map((fd) => waitReadable(fd))
    await turns()
    for (const fd of pairs.flat()) writeSync(fd, 'x')
    t.equal((await Promise.all(waits)).length, MANY)
    closeAll(...pairs.flat())

    // Not so many for one: epoll(7) takes an open file description 500 times.
    const [one, other] = newSocketpair()
    const same = Array.from({ length: 400 }, () => waitReadable(one))
    await turns()
    writeSync(other, 'x')
    t.equal((await Promise.all(same)).length, 400)
    closeAll(one, other)
  },
  descriptorLimit() < 3 * MANY && `a process may have ${descriptorLimit()}`,
)

leakFree('what is given remains the caller’s', async (t) => {
  const [one, other] = newSocketpair()
  const open = openFds()
  await waitWritable(one)
  await isReady(waitReadable, one)
  t.strictSame(openFds(), open)
  writeSync(one, 'x')
  t.equal(readSync(other, Buffer.alloc(9)), 1, 'which still works')
  closeAll(one, other)
})

leakFree('where this Node cannot wait, a promise says why', async (t) => {
  const reason = new Error('of this Node')
  class FailingWatch {
    failure: Error | undefined
    readonly #onReady: () => void
    constructor(_fd: number, _trigger: Trigger, onReady: () => void) {
      this.#onReady = onReady
    }
    wait(): void {
      setImmediate(() => {
        this.failure = reason
        this.#onReady()
      })
    }
    end(): void {}
  }
  const { waitReadable } = await t.mockImport<
    typeof import('../../../lib/wait/watch.ts')
  >('../../../lib/wait/watch.ts', {
    '../../../lib/wait/epoll.ts': { EpollWatch: FailingWatch },
    '../../../lib/wait/socket-watch.ts': { SocketWatch: FailingWatch },
  })
  const [one, other] = newSocketpair()
  await t.rejects(waitReadable(one), reason)
  closeAll(one, other)
})

leakFree('bad input is an error of the promise', async (t) => {
  // The type says no more than `number`, and JavaScript not even that.
  for (const fd of [Number.NaN, 1.5, 2 ** 32, '0', undefined, null]) {
    for (const wait of [waitReadable, waitWritable]) {
      const message = `Expected a file descriptor, got ${fd}`
      const refused = wait(fd as number)
      await t.rejects(refused, { name: 'RangeError', message })
    }
  }
  for (const fd of [-1, 99999]) {
    await t.rejects(waitReadable(fd), { code: 'EBADF' })
    await t.rejects(waitWritable(fd), { code: 'EBADF' })
  }
  const file = openSync('package.json', 'r')
  for (const wait of [waitReadable, waitWritable]) {
    await t.rejects(wait(file), {
      code: 'EPERM',
      syscall: 'epoll_ctl',
      message: /it is a file, which never blocks/,
    })
  }
  closeSync(file)
  const device = openSync('/dev/null', 'r+')
  const refusal = { code: hasEpoll ? 'EPERM' : 'ERR_INVALID_FD_TYPE' }
  for (const wait of [waitReadable, waitWritable]) {
    await t.rejects(wait(device), refusal)
  }
  closeSync(device)

  const [one, other] = newSocketpair()
  const open = openFds()
  const signal = {} as AbortSignal
  await t.rejects(waitReadable(one, { signal }), { name: 'TypeError' })
  t.strictSame(openFds(), open, 'nothing is left of the wait')
  closeAll(one, other)
})

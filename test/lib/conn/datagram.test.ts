// UnixDatagram: whole messages, addresses, descriptors, credentials, and what is
// said of what cannot be sent or received.

import { getEventListeners } from 'node:events'
import { closeSync, existsSync, fstatSync, openSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { t } from 'tap'

import { UnixDatagram } from '../../../lib/index.ts'
import { host } from '../../../lib/layouts.ts'
import * as calls from '../../../lib/socket/datagram.ts'
import * as unix from '../../../lib/socket/unix.ts'
import * as watching from '../../../lib/wait/watch.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing } from '../../support/missing.ts'
import { Running, run, script } from '../../support/processes.ts'
import { doneInTurns, turns, until } from '../../support/waiting.ts'
import { warningsOf } from '../../support/warnings.ts'

const EMPTY = { data: Buffer.alloc(0), control: Buffer.alloc(0), flags: 0 }

const linux = host.name.startsWith('linux') ? false : 'for Linux'

leakFree(
  'a datagram comes whole, with descriptors and its sender',
  async (t) => {
    const folder = temporaryFolder(t)
    const [path, back] = [join(folder, 'a'), join(folder, 'b')]
    const one = await UnixDatagram.open({ path })
    const other = await UnixDatagram.open({ path: back })
    t.equal(one.path, path)
    t.equal(statSync(path).mode & 0o777, 0o600)
    const file = openSync('package.json', 'r')
    await other.send('hello', { to: path, fds: [file] })
    await other.send('', { to: path })
    const first = await one.receive()
    t.match(first, { data: Buffer.from('hello'), from: back })
    const [fd = -1] = first?.fds ?? []
    t.equal(fstatSync(fd).ino, fstatSync(file).ino)
    for (const each of [fd, file]) closeSync(each)
    t.match(await one.receive(), { data: Buffer.alloc(0), fds: [], from: back })
    await one.send('answer', { to: first?.from ?? '' })
    t.equal(String((await other.receive())?.data), 'answer')
    one.close()
    one.close()
    other[Symbol.dispose]()
    t.equal(one.fd, -1)
    t.notOk(existsSync(path), 'the file is removed')
  },
)

leakFree('descriptors need no byte', async (t) => {
  const [one, other] = UnixDatagram.pair()
  await one.send('', { fds: [0] })
  const { fds: [fd = -1] = [] } = (await other.receive()) ?? {}
  t.ok(fd > 2)
  closeSync(fd)
  for (const socket of [one, other]) socket.close()
})

leakFree(
  'abstract names, and credentials',
  async (t) => {
    const name = `\0fd-${process.pid}-datagram`
    const one = await UnixDatagram.open({ path: name, passCredentials: true })
    await t.rejects(UnixDatagram.open({ path: name }), { code: 'EADDRINUSE' })
    const other = await UnixDatagram.open({ peer: name })
    const { pid } = process
    const [uid = 0, gid = 0] = [process.getuid?.(), process.getgid?.()]
    await other.send('x', { credentials: { pid, uid, gid } })
    t.match(await one.receive(), { credentials: { pid, uid, gid }, from: '' })
    t.equal(one.path, name)
    for (const socket of [one, other]) socket.close()
    const [a, b] = UnixDatagram.pair({ passCredentials: true })
    await a.send('y')
    t.match(await b.receive(), { credentials: { pid, uid, gid } })
    for (const socket of [a, b]) socket.close()
  },
  linux,
)

leakFree('a receiver that is full is waited for', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const receiver = await UnixDatagram.open({ path })
  const connected = await UnixDatagram.open({ peer: path })
  // One that is adopted is not known to be connected, and here is not.
  const free = UnixDatagram.fromFd(unix.newSocket('datagram'))
  const sends: Promise<void>[] = []
  for (let i = 0; i < 300; i++) {
    sends.push(connected.send(`c${i}`), free.send(`f${i}`, { to: path }))
  }
  await turns()
  const got: string[] = []
  for await (const { data } of receiver) {
    if (got.push(String(data)) === sends.length) break
  }
  await Promise.all(sends)
  for (const kind of ['c', 'f']) {
    const ofKind = got.filter((text) => text.startsWith(kind))
    t.strictSame(
      ofKind,
      Array.from({ length: 300 }, (_, i) => `${kind}${i}`),
      'in order',
    )
  }
  for (const socket of [receiver, connected, free]) socket.close()
})

leakFree('the pauses while a receiver is full have a bound', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const receiver = await UnixDatagram.open({ path })
  const sender = await UnixDatagram.open()
  const pauses: unknown[] = []
  const { setTimeout } = globalThis
  const capture = t.capture(globalThis, 'setTimeout', ((
    ...args: Parameters<typeof setTimeout>
  ) => {
    pauses.push(args[1])
    return setTimeout(...args)
  }) as typeof setTimeout)
  for (const round of ['first', 'second']) {
    pauses.length = 0
    const sends = Array.from({ length: 600 }, () =>
      sender.send('x', { to: path }),
    )
    t.equal(pauses.length, 1, 'one pause for all of them')
    while (pauses.length < 8)
      await new Promise((resolve) => setImmediate(resolve))
    t.strictSame(pauses.slice(0, 8), [1, 2, 4, 8, 16, 32, 32, 32], round)
    for (const _ of sends) await receiver.receive()
    await Promise.all(sends)
  }
  capture.restore()
  for (const socket of [receiver, sender]) socket.close()
})

t.test('where no wait for room is possible, what waits fails', async (t) => {
  const failure = new Error('no way to wait')
  class CannotWait extends watching.Watch {
    override wait(events: number): void {
      if (events & watching.WRITABLE) throw failure
      super.wait(events)
    }
  }
  const { UnixDatagram } = await t.mockImport<
    typeof import('../../../lib/conn/datagram.ts')
  >('../../../lib/conn/datagram.ts', {
    '../../../lib/wait/watch.ts': { ...watching, Watch: CannotWait },
  })
  const [one, other] = UnixDatagram.pair()
  const sends = Array.from({ length: 2000 }, () => one.send('x'))
  const results = await Promise.allSettled(sends)
  const sent = results.findIndex(({ status }) => status === 'rejected')
  t.ok(sent > 0, `${sent} had room`)
  for (const result of results.slice(sent)) {
    if (result.status === 'fulfilled') t.fail('sent though there was no room')
    else if (result.reason !== failure) t.fail(`${result.reason}`)
  }
  for (let i = 0; i < sent; i++) await other.receive()
  await one.send('again')
  t.equal(String((await other.receive())?.data), 'again', 'it works on')
  for (const socket of [one, other]) socket.close()
})

// With a sender that is as fast as the receiver, the queue is never empty.
t.test('a receiver that always finds something lets others run', async (t) => {
  const { UnixDatagram } = await t.mockImport<
    typeof import('../../../lib/conn/datagram.ts')
  >('../../../lib/conn/datagram.ts', {
    '../../../lib/socket/datagram.ts': {
      ...calls,
      receiveFrom: () => ({ ...EMPTY, from: Buffer.alloc(2) }),
    },
  })
  const [one, other] = UnixDatagram.pair()
  let received = 0
  const all = Array.from({ length: 500 }, async () => {
    await one.receive()
    received++
  })
  const perTurn = await doneInTurns(all.length, () => received)
  t.ok(Math.max(...perTurn) <= 2 * 64, `${perTurn}`)
  t.ok(perTurn.length <= 10, 'and is not held up by that')
  for (const socket of [one, other]) socket.close()
})

leakFree('what does not fit is an error that says so', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const receiver = await UnixDatagram.open({ path })
  const sender = await UnixDatagram.open()
  await t.rejects(sender.send(Buffer.alloc(100 * 1024 * 1024), { to: path }), {
    code: 'EMSGSIZE',
    message: /^sendmsg EMSGSIZE 104857600 bytes, of at most \d+ \(SO_SNDBUF\)$/,
  })
  const file = openSync('package.json', 'r')
  await sender.send('12345678', { to: path, fds: [file] })
  closeSync(file)
  await t.rejects(receiver.receive({ maxBytes: 3 }), {
    code: 'ERR_MESSAGE_TRUNCATED',
    data: Buffer.from('123'),
  })
  await sender.send('x', { to: path, fds: [0, 1] })
  await t.rejects(receiver.receive({ maxFds: 1 }), { code: 'ERR_TOO_MANY_FDS' })
  await sender.send('next', { to: path })
  t.equal(String((await receiver.receive())?.data), 'next', 'it works on')
  for (const socket of [receiver, sender]) socket.close()
})

leakFree('what is wrong with an address is told apart', async (t) => {
  const folder = temporaryFolder(t)
  const sender = await UnixDatagram.open()
  const to = join(folder, 'none')
  await t.rejects(sender.send('x', { to }), { code: 'ENOENT' })
  await t.rejects(sender.send('x'), { code: 'ENOTCONN' })
  await t.rejects(sender.send('x', { fds: [9999], to }), {
    message: /ENOENT|9999/,
  })
  const dead = await UnixDatagram.open({ path: to })
  closeSync(openSync(to.replace('none', 'file'), 'w'))
  await t.rejects(UnixDatagram.open({ path: to }), {
    code: 'EADDRINUSE',
    message: /a server is listening there/,
  })
  await t.rejects(UnixDatagram.open({ peer: join(folder, 'file') }), {
    code: 'ECONNREFUSED',
  })
  for (const socket of [sender, dead]) socket.close()
  await t.rejects(sender.send('x', { to }), { code: 'ERR_SOCKET_CLOSED' })
  t.equal(await sender.receive(), null)
})

leakFree('open() that fails leaves no file', async (t) => {
  const folder = temporaryFolder(t)
  const path = join(folder, 's')
  const peer = join(folder, 'nobody')
  await t.rejects(UnixDatagram.open({ path, peer }), {
    code: 'ENOENT',
    syscall: 'connect',
    message: `connect ENOENT ${peer}`,
  })
  t.notOk(existsSync(path))
})

leakFree('a pair that cannot be set up leaves nothing open', async (t) => {
  const failing = {
    ...unix,
    applyOptions: (): never => {
      throw new Error('no such option')
    },
  }
  let watched = 0
  class SecondFails extends watching.Watch {
    constructor(...args: ConstructorParameters<typeof watching.Watch>) {
      if (++watched === 2) throw new Error('no way to wait')
      super(...args)
    }
  }
  for (const [mocks, message] of [
    [{ '../../../lib/socket/unix.ts': failing }, 'no such option'],
    [
      { '../../../lib/wait/watch.ts': { ...watching, Watch: SecondFails } },
      'no way to wait',
    ],
  ] as const) {
    const { UnixDatagram } = await t.mockImport<
      typeof import('../../../lib/conn/datagram.ts')
    >('../../../lib/conn/datagram.ts', mocks)
    t.throws(() => UnixDatagram.pair(), { message })
  }
  t.equal(watched, 2)
})

t.test('a file that has to stay is a warning, and no more', async (t) => {
  const warnings = warningsOf(t)
  const { UnixDatagram } = await t.mockImport<
    typeof import('../../../lib/conn/datagram.ts')
  >('../../../lib/conn/datagram.ts', {
    '../../../lib/wait/listen-at.ts': {
      listenAt: async () => ({
        fd: unix.newSocket('datagram'),
        file: { remove: () => new Error('it has to stay') },
      }),
    },
  })
  const socket = await UnixDatagram.open({ path: '/run/s' })
  const waiting = socket.receive()
  socket.close()
  t.equal(await waiting, null, 'all else is done')
  await until('a warning', () => warnings.length > 0)
  t.match(warnings, [{ message: 'it has to stay' }])
})

leakFree('close() settles all that waits; an abort settles one', async (t) => {
  const [one, other] = UnixDatagram.pair()
  const stop = new AbortController()
  const aborted = one.receive({ signal: stop.signal })
  const waiting = one.receive()
  stop.abort()
  await t.rejects(aborted, { name: 'AbortError' })
  const sends = Array.from({ length: 2000 }, () => one.send('x'))
  const settled = Promise.allSettled(sends)
  await turns()
  one.unref().ref()
  one.close()
  t.equal(await waiting, null)
  const last = (await settled).at(-1)
  t.match(last, { status: 'rejected', reason: { code: 'ERR_SOCKET_CLOSED' } })
  other.close()
})

// Another server may take the path as soon as the socket is closed.
t.test('the file is removed before the socket is closed', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const wasThere: boolean[] = []
  const closeFd = (fd: number): void => {
    wasThere.push(existsSync(path))
    unix.closeFd(fd)
  }
  const { UnixDatagram } = await t.mockImport<
    typeof import('../../../lib/conn/datagram.ts')
  >('../../../lib/conn/datagram.ts', {
    '../../../lib/socket/unix.ts': { ...unix, closeFd },
  })
  const socket = await UnixDatagram.open({ path })
  wasThere.length = 0
  t.ok(existsSync(path))
  socket.close()
  t.strictSame(wasThere, [false])
})

leakFree(
  'fromFd() adopts what is a socket of datagrams, and no other',
  async (t) => {
    const [fd, theirs] = unix.newSocketpair({ type: 'datagram' })
    const [one, other] = [UnixDatagram.fromFd(fd), UnixDatagram.fromFd(theirs)]
    await one.send('x')
    t.equal(String((await other.receive())?.data), 'x')
    for (const socket of [one, other]) socket.close()
    const pair = unix.newSocketpair()
    t.throws(() => UnixDatagram.fromFd(pair[0]), {
      code: 'EPROTOTYPE',
      syscall: 'getsockopt',
      message: /expected a socket of datagrams, got type \d+$/,
    })
    for (const each of pair) closeSync(each)
  },
)

// Whether it ends before something comes, for which a timer without a reference
// sees.
const HOLDS = `
  import { UnixDatagram } from './lib/index.ts'
  const [one, other] = UnixDatagram.pair()
  const stop = new AbortController()
  const receive = async () => {
    try {
      const message = await one.receive({ signal: stop.signal })
      console.log(message ? String(message.data) : 'closed')
    } catch ({ name }) {
      console.log(name)
    }
  }
  for (const call of process.argv.slice(1)) {
    if (call === 'receive') receive()
    else if (call === 'abort') stop.abort()
    else one[call]()
  }
  setTimeout(() => {
    console.log('sending')
    other.send('received')
  }, 200).unref()`

const received = 'sending\nreceived\n'

for (const [calls, expected] of Object.entries({
  ref: '',
  receive: received,
  'receive unref': '',
  'unref receive': '',
  'unref receive ref': received,
  'receive abort': 'AbortError\n',
  'receive close': 'closed\n',
})) {
  leakFree(`a process ends after: ${calls}`, async (t) => {
    const command = [...script('--input-type=module', '-e'), HOLDS]
    const result = await run(t, [...command, ...calls.split(' ')])
    t.equal(result.stdout, expected, result.stderr)
    t.strictSame([result.code, result.signal], [0, null])
  })
}

leakFree(
  'a receive that is given up leaves what comes to others',
  async (t) => {
    const [one, other] = UnixDatagram.pair()
    const stop = new AbortController()
    const { signal } = stop
    const all = [
      one.receive({ signal }),
      one.receive(),
      one.receive({ signal }),
    ]
    const settled = Promise.allSettled(all)
    stop.abort()
    await other.send('x')
    const [first, second, third] = await settled
    t.match(first, { status: 'rejected', reason: { name: 'AbortError' } })
    t.match(second, { status: 'fulfilled', value: { data: Buffer.from('x') } })
    t.match(third, { status: 'rejected' })
    t.equal(getEventListeners(signal, 'abort').length, 0)
    for (const socket of [one, other]) socket.close()
  },
)

leakFree(
  'Python sends, and gets an answer',
  async (t) => {
    const folder = temporaryFolder(t)
    const [path, theirs] = [join(folder, 'a'), join(folder, 'b')]
    const socket = await UnixDatagram.open({ path })
    const source = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[2])
s.connect(sys.argv[1])
socket.send_fds(s, [b'from Python'], [0])
print(s.recv(100).decode())`
    const python = new Running(t, ['python3', '-c', source, path, theirs])
    const got = await socket.receive()
    t.match(got, { from: theirs, data: Buffer.from('from Python') })
    for (const fd of got?.fds ?? []) closeSync(fd)
    await socket.send('from Node', { to: theirs })
    t.match(await python.exit, { code: 0 })
    t.equal(python.stdout, 'from Node\n')
    socket.close()
  },
  missing('python3'),
)

leakFree('data that is gone while it waits is its own rejection', async (t) => {
  const [one, other] = UnixDatagram.pair()
  // More than the other's queue holds.
  const sends = Array.from({ length: 1000 }, (_, i) => one.send(`${i}`))
  const detached = new Uint8Array(100_000).fill(1)
  const gone = one.send(detached)
  const last = one.send('last')
  await turns()
  structuredClone(detached, { transfer: [detached.buffer] })
  const refused = t.rejects(gone, {
    name: 'TypeError',
    message: /^Expected data of 100000 bytes, as at the call, got 0: detached/,
  })
  const texts = []
  while (texts.length <= sends.length) {
    texts.push(String((await other.receive())?.data))
  }
  t.strictSame(texts, [...sends.map((_, i) => `${i}`), 'last'])
  await Promise.all([...sends, refused, last])
  one.close()
  other.close()
})

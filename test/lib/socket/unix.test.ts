// Calls on Unix sockets, and the ways to close a descriptor.

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
import { t } from 'tap'

import { connect, readableFrom, UnixConn } from '../../../lib/index.ts'
import { host } from '../../../lib/layouts.ts'
import * as libc from '../../../lib/libc.ts'
import * as calls from '../../../lib/socket/calls.ts'
import { unixType } from '../../../lib/socket/options.ts'
import {
  acceptFrom,
  applyOptions,
  bindTo,
  closeFd,
  closeLater,
  closeReceived,
  connectTo,
  duplicate,
  listenOn,
  newSocket,
  newSocketpair,
  pathOf,
  putInPlace,
  setCloseOnExec,
  setNonBlocking,
  shutdownWriting,
  tiePairToThread,
  tieToThread,
  typeNumber,
} from '../../../lib/socket/unix.ts'
import { listenAt } from '../../../lib/wait/listen-at.ts'
import { leakFree, openFds } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { lacksPassRights, missing } from '../../support/missing.ts'
import { run, script } from '../../support/processes.ts'
import { until } from '../../support/waiting.ts'

type Unix = typeof import('../../../lib/socket/unix.ts')

/** A platform that has to make sockets close-on-exec by a second call. */
const layouts = {
  host: {
    ...host,
    constants: { ...host.constants, SOCK_CLOEXEC: 0, SOCK_NONBLOCK: 0 },
  },
}

/** A libc in which nothing becomes close-on-exec by a second call. */
const withoutCloseOnExec = {
  ...libc,
  declare: (name: string, ...rest: ['int', []]) =>
    ['fcntl', 'ioctl'].includes(name) ? () => -12 : libc.declare(name, ...rest),
}

const files = {
  unix: '../../../lib/socket/unix.ts',
  layouts: '../../../lib/layouts.ts',
  libc: '../../../lib/libc.ts',
}

const CLOSE_ON_EXEC = /flags:\s+0?2\d{6}\b/

function flagsOf(fd: number): string {
  return readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')
}

leakFree('sockets are close-on-exec without SOCK_CLOEXEC, too', async (t) => {
  const unix = await t.mockImport<Unix>(files.unix, {
    [files.layouts]: layouts,
  })
  const fds = [unix.newSocket(), ...unix.newSocketpair()]
  for (const fd of fds) t.match(flagsOf(fd), CLOSE_ON_EXEC)

  const path = join(temporaryFolder(t), 's')
  const { fd: listening } = await listenAt(path, 'stream')
  t.equal(unix.acceptFrom(listening), -11, 'EAGAIN')
  const client = await connect(path)
  t.teardown(() => client.close())
  const accepted = unix.acceptFrom(listening)
  t.match(flagsOf(accepted), CLOSE_ON_EXEC)
  for (const fd of [...fds, accepted, listening]) closeReceived(fd)
  client.close()
})

leakFree('what cannot be made close-on-exec is closed', async (t) => {
  const mocks = { [files.layouts]: layouts, [files.libc]: withoutCloseOnExec }
  const unix = await t.mockImport<Unix>(files.unix, mocks)
  const failure = { code: 'ENOMEM', syscall: 'fcntl' }
  t.throws(() => unix.newSocket(), failure)
  t.throws(() => unix.newSocketpair(), failure)
  t.throws(() => unix.duplicate(0), failure)

  const path = join(temporaryFolder(t), 's')
  const { fd: listening } = await listenAt(path, 'stream')
  const client = await connect(path)
  t.teardown(() => client.close())
  t.equal(unix.acceptFrom(listening), -12, 'ENOMEM')
  t.equal(await client.recvmsg(), null, 'the connection is closed')
  closeReceived(listening)
  client.close()
})

leakFree('duplicate() makes a copy that is close-on-exec', async (t) => {
  const fd = duplicate(0)
  t.match(flagsOf(fd), CLOSE_ON_EXEC)
  t.throws(() => duplicate(-1), { code: 'EBADF', syscall: 'fcntl' })
  closeSync(fd)
})

leakFree('where fcntl(2) is not called, all is done without it', async (t) => {
  const { restore } = t.intercept(process, 'platform', { value: 'freebsd' })
  const [unix, failing] = await Promise.all([
    t.mockImport<Unix>(files.unix, {
      [files.layouts]: layouts,
      [files.libc]: libc,
    }),
    t.mockImport<Unix>(files.unix, {
      [files.layouts]: layouts,
      [files.libc]: withoutCloseOnExec,
    }),
  ])
  restore()
  const fds = [unix.duplicate(0), unix.newSocket(), ...unix.newSocketpair()]
  const [one = -1, place = -1] = fds
  unix.putInPlace(one, place)
  t.equal(fstatSync(place).ino, fstatSync(one).ino)
  for (const fd of fds) {
    const before = flagsOf(fd)
    t.match(before, CLOSE_ON_EXEC)
    unix.setNonBlocking(fd)
    t.equal(flagsOf(fd), before, 'nor is ioctl(2) with an argument')
    closeSync(fd)
  }
  t.throws(() => unix.duplicate(-1), { code: 'EBADF', syscall: 'dup' })
  t.throws(() => unix.putInPlace(-1, 0), { code: 'EBADF', syscall: 'dup2' })
  t.throws(() => failing.duplicate(0), { code: 'ENOMEM', syscall: 'ioctl' })
})

leakFree('closeReceived() closes files, and what is not open', async (t) => {
  const fd = duplicate(0)
  closeReceived(fd)
  // It is done in the thread pool.
  const isOpen = (): boolean =>
    openFds().some((line) => line.startsWith(`${fd} `))
  await until('it is closed', () => !isOpen())
  t.throws(() => fstatSync(fd), { code: 'EBADF' })
  // No process has this one. A smaller number could be another descriptor's by
  // the time that the thread pool closes it.
  closeReceived(2 ** 31 - 1)
})

leakFree('what is no descriptor is never taken for 0, 1 or 2', async (t) => {
  const error = { name: 'RangeError' }
  for (const fd of [Number.NaN, 1.5, 2 ** 32, 2 ** 32 + 1, -(2 ** 32)]) {
    t.throws(() => duplicate(fd), error, `duplicate(${fd})`)
    t.throws(() => setCloseOnExec(fd), error, `setCloseOnExec(${fd})`)
    t.throws(() => UnixConn.fromFd(fd), error, `fromFd(${fd})`)
    t.throws(() => readableFrom(fd), error, `readableFrom(${fd})`)
    // The end of leakFree() sees what this has closed.
    closeReceived(fd)
  }
})

leakFree('acceptFrom() tells the errors of accept(2)', async (t) => {
  const [one, other] = newSocketpair()
  t.equal(acceptFrom(one), -22, 'EINVAL: it does not listen')
  writeSync(other, 'x')
  for (const fd of [one, other]) closeReceived(fd)
})

// The descriptor of a TCP connection that lingers for 30 s, with bytes that
// nobody has read and others that nobody takes, is sent to us, and closed by
// whoever sent it: ours is the last.
t.test(
  'closeReceived() does not wait for SO_LINGER',
  { skip: missing('python3') },
  async (t) => {
    const source = `
      import { UnixConn } from './lib/index.ts'
      import { closeReceived } from './lib/socket/unix.ts'
      const conn = UnixConn.fromFd(3)
      const { fds } = await conn.recvFds()
      await conn.recvmsg()
      const before = performance.now()
      closeReceived(fds[0])
      console.log(performance.now() - before < 10_000 ? 'at once' : 'blocked')
      conn.close()
    `
    const python = `
import os, socket, struct, subprocess, sys
server = socket.create_server(('127.0.0.1', 0))
one = socket.create_connection(server.getsockname())
other, _ = server.accept()
one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 30))
one.setblocking(False)
try:
    while True: one.send(bytes(65536))
except BlockingIOError: pass
ours, theirs = socket.socketpair()
os.dup2(theirs.fileno(), 3)
theirs.close()
child = subprocess.Popen(sys.argv[1:], pass_fds=[3])
os.close(3)
socket.send_fds(ours, [b'x'], [one.fileno()])
one.setblocking(False)
os.close(one.detach())
ours.send(b'closed here')
child.wait()
`
    const { stdout, stderr } = await run(t, [
      ...['python3', '-c', python],
      ...script('--input-type=module', '-e'),
      source,
    ])
    t.equal(stdout, 'at once\n', stderr)
  },
)

leakFree('newSocketpair() makes ends that block, where asked to', async (t) => {
  const isBlocking = (fd: number): boolean => {
    const [, flags = ''] =
      /^flags:\t(\d+)$/m.exec(
        readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'),
      ) ?? []
    return (Number.parseInt(flags, 8) & constants.O_NONBLOCK) === 0
  }
  for (const [pair, expected] of [
    [newSocketpair({ isBlocking: true }), true],
    [newSocketpair({ isBlocking: false }), false],
    [newSocketpair(), false],
  ] as const) {
    for (const fd of pair) {
      t.equal(isBlocking(fd), expected)
      closeSync(fd)
    }
  }
})

leakFree('a socket has the type that was asked for', async (t) => {
  const { SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM } = host.constants
  for (const [type, number] of [
    ['stream', SOCK_STREAM],
    ['seqpacket', SOCK_SEQPACKET],
    ['datagram', SOCK_DGRAM],
  ] as const) {
    const fd = newSocket(type)
    const pair = newSocketpair({ type })
    for (const each of [fd, ...pair]) {
      t.equal(unixType(each), number)
      closeSync(each)
    }
    t.equal(typeNumber(type), number)
  }
  const unasked = [newSocket(), ...newSocketpair()]
  for (const fd of unasked) {
    t.equal(unixType(fd), SOCK_STREAM)
    closeSync(fd)
  }
  const type = JSON.parse('"packets"')
  const error = {
    name: 'RangeError',
    message: 'Expected type as one of stream, seqpacket, datagram, got packets',
  }
  t.throws(() => newSocket(type), error)
  t.throws(() => newSocketpair({ type }), error)
})

const isLinux = process.platform === 'linux'
const forLinux = isLinux ? false : 'there is no such option'

/** A socket option of SOL_SOCKET that is on or off. */
function isOn(fd: number, option: number): boolean {
  const { SOL_SOCKET } = host.constants
  const { value, valueLength, getsockopt } = calls
  valueLength.bytes.writeUInt32LE(4)
  const to = valueLength.address
  t.equal(getsockopt(fd, SOL_SOCKET, option, value.address, to), 0)
  return value.bytes.readInt32LE() !== 0
}

leakFree(
  'a socket has the options that were asked for',
  async (t) => {
    const SO_PASSCRED = 16
    const SO_PASSRIGHTS = 83
    const hasRights = !lacksPassRights()
    const plain = newSocket()
    const other = newSocket('stream', {
      passCredentials: true,
      refuseFds: true,
    })
    for (const [fd, isOther] of [
      [plain, false],
      [other, true],
    ] as const) {
      t.equal(isOn(fd, SO_PASSCRED), isOther)
      if (hasRights) t.equal(isOn(fd, SO_PASSRIGHTS), !isOther)
    }
    applyOptions(plain, { passCredentials: true })
    t.equal(isOn(plain, SO_PASSCRED), true)
    if (hasRights) t.equal(isOn(plain, SO_PASSRIGHTS), true)
    for (const fd of [plain, other]) closeSync(fd)
  },
  forLinux,
)

leakFree('a socket that cannot have its options is closed', async (t) => {
  const { newSocket } = await t.mockImport<Unix>(files.unix, {
    [files.layouts]: {
      host: { ...host, constants: { ...host.constants, SO_PASSCRED: 0 } },
    },
  })
  const refusal = { message: /^Expected Linux for passCredentials/ }
  t.throws(() => newSocket('stream', { passCredentials: true }), refusal)
})

leakFree('bind, listen, connect and accept by path', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const listening = newSocket()
  const client = newSocket()
  t.equal(pathOf(listening), '')
  t.equal(bindTo(listening, path), 0)
  t.equal(pathOf(listening), path)
  t.equal(connectTo(client, path), -111, 'ECONNREFUSED: it does not listen')
  t.equal(listenOn(listening, 1), 0)
  t.equal(connectTo(client, path), 0)
  const accepted = acceptFrom(listening)
  t.match(flagsOf(accepted), /flags:\s+02004002\n/, 'and O_NONBLOCK')
  writeSync(accepted, 'hello')
  const bytes = Buffer.alloc(9)
  t.equal(readSync(client, bytes), 5)
  shutdownWriting(accepted)
  t.equal(readSync(client, bytes), 0, 'the end')
  writeSync(client, 'goes')
  t.equal(readSync(accepted, bytes), 4, 'the other direction goes on')
  for (const fd of [listening, client, accepted]) closeSync(fd)

  t.equal(bindTo(listening, path), -9, 'EBADF')
  t.throws(() => pathOf(listening), { code: 'EBADF', syscall: 'getsockname' })
  const failure = { code: 'EBADF', syscall: 'shutdown' }
  t.throws(() => shutdownWriting(listening), failure)
})

leakFree(
  'putInPlace() leaves the number, and not what was there',
  async (t) => {
    const [one, other] = newSocketpair()
    const place = openSync('package.json', 'r')
    putInPlace(one, place)
    t.equal(fstatSync(place).ino, fstatSync(one).ino)
    t.match(flagsOf(place), CLOSE_ON_EXEC)
    for (const fd of [one, other, place]) closeSync(fd)
    t.throws(() => putInPlace(one, 0), { code: 'EBADF' })
  },
)

leakFree(
  'setNonBlocking() is for whoever has the same description',
  async (t) => {
    const [one, other] = newSocketpair({ isBlocking: true })
    const copy = duplicate(one)
    calls.value.bytes.fill(0)
    setNonBlocking(one)
    t.match(flagsOf(copy), /flags:\s+02004002\n/, 'O_NONBLOCK')
    for (const fd of [one, other, copy]) closeSync(fd)
    t.doesNotThrow(() => setNonBlocking(one))
  },
  forLinux,
)

leakFree('in the main thread a descriptor keeps its number', async (t) => {
  const pair = newSocketpair()
  t.equal(tieToThread(pair[0]), pair[0])
  t.strictSame(tiePairToThread(pair), pair)
  for (const fd of pair) closeSync(fd)
})

leakFree('closing is at once, or soon', async (t) => {
  const isOpen = (fd: number): boolean =>
    openFds().some((line) => line.startsWith(`${fd} `))
  const closed = (fd: number): Promise<void> =>
    until('it is closed', () => !isOpen(fd))

  const [one, other] = newSocketpair()
  closeFd(one)
  t.equal(isOpen(one), false)
  t.doesNotThrow(() => closeFd(one), 'though it is not open')
  closeLater(other)
  await closed(other)
  t.doesNotThrow(() => closeLater(-1))
})

leakFree('what may hold descriptors is closed in the pool', async (t) => {
  let inPool = 0
  const beginPoolCall = () => {
    inPool++
    return () => {}
  }
  const unix = await t.mockImport<Unix>(files.unix, {
    '../../../lib/socket/pool-calls.ts': { beginPoolCall },
  })
  const poolCalls = (close: () => void): number => {
    inPool = 0
    close()
    return inPool
  }
  for (const type of ['stream', 'seqpacket', 'datagram'] as const) {
    const [empty, full] = newSocketpair({ type })
    writeSync(empty, 'unread')
    t.equal(
      poolCalls(() => unix.closeConnection(full, type)),
      1,
    )
    t.equal(
      poolCalls(() => unix.closeConnection(empty, type)),
      type === 'stream' && isLinux ? 0 : 1,
    )
  }
  const [one, other] = newSocketpair()
  t.equal(
    poolCalls(() => unix.closeLater(one)),
    1,
  )
  t.equal(
    poolCalls(() => unix.closeReceived(other)),
    1,
  )
  t.equal(
    poolCalls(() => unix.closeLater(-1)),
    0,
  )
})

t.test('a call that fails is named', async (t) => {
  const fail = (): number => -24
  const failing = { socket: fail, socketpair: fail, shutdown: fail }
  const unix = await t.mockImport<Unix>(files.unix, {
    '../../../lib/socket/calls.ts': { ...calls, ...failing },
  })
  const failure = (syscall: string) => ({ code: 'EMFILE', syscall })
  t.throws(() => unix.newSocket(), failure('socket'))
  t.throws(() => unix.newSocketpair(), failure('socketpair'))
  t.throws(() => unix.shutdownWriting(1), failure('shutdown'))
})

// Calls on Unix sockets, and the ways to close a descriptor.

import {
  closeSync,
  constants,
  fstatSync,
  readFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { t } from 'tap'

import { connect, readableFrom, UnixConn } from '../../../lib/index.ts'
import { host } from '../../../lib/layouts.ts'
import * as libc from '../../../lib/libc.ts'
import {
  acceptFrom,
  closeReceived,
  duplicate,
  newSocketpair,
  setCloseOnExec,
} from '../../../lib/socket/unix.ts'
import { listenAt } from '../../../lib/wait/listen-at.ts'
import { leakFree, openFds } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing } from '../../support/missing.ts'
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
  for (const fd of fds) {
    t.match(flagsOf(fd), CLOSE_ON_EXEC)
    closeSync(fd)
  }
  t.throws(() => unix.duplicate(-1), { code: 'EBADF', syscall: 'dup' })
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
  closeReceived(fd)
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
  for (const expected of [true, false]) {
    for (const fd of newSocketpair({ isBlocking: expected })) {
      t.equal(isBlocking(fd), expected)
      closeSync(fd)
    }
  }
})

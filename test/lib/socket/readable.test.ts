// What descriptors are, and the streams that read them.

import { once } from 'node:events'
import * as fs from 'node:fs'
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { ReadStream } from 'node:tty'
import * as threads from 'node:worker_threads'
import { type Test, t } from 'tap'

import { describeFd, readableFrom, UnixConn } from '../../../lib/index.ts'
import { host } from '../../../lib/layouts.ts'
import * as libc from '../../../lib/libc.ts'
import { linesOf } from '../../../lib/script/lines.ts'
import { duplicate, newSocketpair } from '../../../lib/socket/unix.ts'
import {
  anonymousPipe,
  leakFree,
  missing,
  onWarning,
  openFds,
  pipe,
  Running,
  run,
  runInWorker,
  script,
  temporaryFolder,
} from '../../support.ts'

/** The status flags of an open file description, as in proc_pid_fdinfo(5). */
function flagsOf(fd: number): number {
  const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')
  return Number.parseInt(/flags:\s+(\d+)/.exec(info)?.[1] ?? '', 8)
}
const O_NONBLOCK = 0o4000

leakFree('describeFd() names the kind and the access', async (t) => {
  const folder = temporaryFolder(t)
  const file = join(folder, 'file')
  writeFileSync(file, '')
  const { r, w } = pipe()
  const [one, other] = newSocketpair()
  const fds = {
    'file read': openSync(file, 'r'),
    'file write': openSync(file, 'w'),
    'file read-write': openSync(file, 'r+'),
    'directory read': openSync(folder, 'r'),
    'character device read': openSync('/dev/null', 'r'),
    'character device write': openSync('/dev/full', 'w'),
    'pipe read': r,
    'pipe write': w,
    'socket read-write': one,
  }
  for (const [expected, fd] of Object.entries(fds)) {
    const { kind, access } = describeFd(fd)
    t.equal(`${kind} ${access}`, expected)
    closeSync(fd)
  }
  closeSync(other)
  t.throws(() => describeFd(99999), { code: 'EBADF' })
  t.throws(() => readableFrom(99999), { code: 'EBADF' })
})

leakFree('an epoll descriptor has no kind, and no bytes', async (t) => {
  const epoll = openFds().find((fd) => fd.endsWith('anon_inode:[eventpoll]'))
  const fd = duplicate(Number.parseInt(epoll ?? '', 10))
  t.equal(describeFd(fd).kind, 'other')
  t.throws(() => readableFrom(fd), {
    code: 'EINVAL',
    message: 'read EINVAL cannot read this: it is no stream of bytes',
  })
})

leakFree('readableFrom() reads a file from the shared offset', async (t) => {
  const fd = openSync('package.json', 'r')
  t.equal(await text(readableFrom(fd)), readFileSync('package.json', 'utf8'))
})

leakFree('readableFrom() reads devices', async (t) => {
  t.equal(await text(readableFrom(openSync('/dev/null', 'r'))), '')
  const zeros = readableFrom(openSync('/dev/zero', 'r'))
  const [chunk] = await once(zeros, 'data')
  t.ok(chunk.length > 0 && chunk.every((byte: number) => byte === 0))
  zeros.destroy()
  await once(zeros, 'close')
})

leakFree(
  'readableFrom() opens a device anew, and leaves the shared one blocking',
  async (t) => {
    const fd = openSync('/dev/zero', 'r')
    const shared = duplicate(fd)
    const stream = readableFrom(fd)
    const { fd: own } = stream as fs.ReadStream & { fd: number }
    t.equal(flagsOf(own) & O_NONBLOCK, O_NONBLOCK, 'it holds no pool thread')
    t.equal(flagsOf(shared) & O_NONBLOCK, 0, 'as it was')
    await once(stream, 'data')
    await once(stream.destroy(), 'close')
    closeSync(shared)
  },
  process.platform !== 'linux' && 'needs /proc',
)

leakFree(
  'readableFrom() reads a pipe, and leaves the shared one blocking',
  async (t) => {
    const { r, w, shared } = await anonymousPipe(t)
    const stream = readableFrom(r)
    writeSync(w, 'through the pipe')
    const [chunk] = await once(stream, 'data')
    t.equal(String(chunk), 'through the pipe')
    t.equal(flagsOf(shared) & O_NONBLOCK, 0, 'as it was')
    closeSync(w)
    await once(stream.resume(), 'close')
    closeSync(shared)
  },
)

// Whether two numbers of this process refer to one open file description.
async function isSameDescription(t: Test, a: number, b: number) {
  const source = `import ctypes, sys
pid, a, b = map(int, sys.argv[1:])
print(ctypes.CDLL(None).syscall(312, pid, pid, 0, a, b))`
  const numbers = [process.pid, a, b].map(String)
  const { stdout } = await run(t, ['python3', '-c', source, ...numbers])
  t.match(stdout, /^[0-3]\n$/, 'kcmp(2) may be called')
  return stdout === '0\n'
}

leakFree(
  'readableFrom() shares the description of a file, as kcmp(2) says, not of a pipe',
  async (t) => {
    const { r, w, shared } = await anonymousPipe(t)
    const ofPipe = readableFrom(r)
    const { fd } = Reflect.get(ofPipe, '_handle') as { fd: number }
    t.notOk(await isSameDescription(t, fd, shared))
    t.ok(await isSameDescription(t, shared, shared))
    closeSync(w)
    await once(ofPipe.resume(), 'close')

    const file = openSync('LICENSE', 'r')
    const other = duplicate(file)
    const ofFile = readableFrom(file) as fs.ReadStream & { fd: number }
    t.ok(await isSameDescription(t, ofFile.fd, other))
    await once(ofFile.resume(), 'close')
    for (const fd of [shared, other]) closeSync(fd)
  },
  process.arch === 'x64' && process.platform === 'linux'
    ? missing('python3')
    : 'kcmp(2) has another number here, or is missing',
)

leakFree(
  'readableFrom() ends on a pipe whose writer is long gone',
  async (t) => {
    const { r, w, shared } = await anonymousPipe(t)
    writeSync(w, 'last words')
    closeSync(w)
    t.equal(await text(readableFrom(r)), 'last words')
    closeSync(shared)
  },
)

leakFree(
  'readableFrom() ends on a named FIFO whose writer is gone',
  async (t) => {
    const { r, w } = pipe()
    writeSync(w, 'through the FIFO')
    closeSync(w)
    t.equal(await text(readableFrom(r)), 'through the FIFO')
  },
)

leakFree(
  'readableFrom() reads sockets, and never shuts them down',
  async (t) => {
    const [one, other] = newSocketpair()
    writeSync(other, 'over the socket')
    const stream = readableFrom(one)
    const [chunk] = await once(stream, 'data')
    t.equal(String(chunk), 'over the socket')
    stream.destroy()
    await once(stream, 'close')
    t.throws(
      () => writeSync(other, 'x'),
      { code: 'EPIPE' },
      'ours was the last',
    )
    closeSync(other)
  },
)

leakFree('readableFrom() reads TCP', async (t) => {
  const server = createServer((socket) => socket.end('over TCP')).listen(
    0,
    '127.0.0.1',
  )
  await once(server, 'listening')
  const before = openFds()
  const socket = connect({
    port: (server.address() as AddressInfo).port,
    host: '127.0.0.1',
  }).pause()
  await once(socket, 'connect')
  const number = openFds().find((fd) => !before.includes(fd))
  const fd = duplicate(Number.parseInt(number ?? '', 10))
  t.equal(await text(readableFrom(fd)), 'over TCP')
  socket.destroy()
  server.close()
  await once(server, 'close')
})

leakFree(
  'readableFrom() refuses what cannot be read, and closes it',
  async (t) => {
    const folder = temporaryFolder(t)
    mkdirSync(join(folder, 'd'))
    t.throws(() => readableFrom(openSync(folder, 'r')), {
      code: 'EISDIR',
      syscall: 'read',
      message: 'read EISDIR cannot read this: it is a directory',
    })
    const { r, w } = pipe()
    for (const fd of [
      w,
      openSync(join(folder, 'f'), 'w'),
      openSync('/dev/null', 'w'),
    ]) {
      t.throws(() => readableFrom(fd), {
        code: 'EBADF',
        message: 'read EBADF cannot read this: it is write-only',
      })
    }
    closeSync(r)
  },
)

t.test(
  'readableFrom() refuses what is no stream of bytes',
  { skip: missing('python3') },
  async (t) => {
    const source = `
    import { readableFrom } from './lib/index.ts'
    for (const fd of [3, 4]) {
      try { readableFrom(fd) } catch (error) { console.log(error.message) }
    }
    try { readableFrom(3) } catch (error) { console.log(error.code) }
  `
    const python = `
import os, select, socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
event = select.epoll()
a, b = os.dup(udp.fileno()), os.dup(event.fileno())
os.dup2(a, 3)
os.dup2(b, 4)
os.execvp(sys.argv[1], sys.argv[1:])
`
    const { stdout, stderr } = await run(t, [
      'python3',
      '-c',
      python,
      ...script('--input-type=module', '-e'),
      source,
    ])
    t.match(
      stdout,
      /^Unsupported fd type: UDP\nread EINVAL cannot read this: it is no stream of bytes\nEBADF\n$/,
      stderr,
    )
  },
)

t.test(
  'readableFrom() reads a terminal and leaves its mode',
  { skip: missing('python3', 'stty') },
  async (t) => {
    const source = `
    import { openSync } from 'node:fs'
    import { describeFd, readableFrom } from './lib/index.ts'
    const fd = openSync('/dev/tty', 'r+')
    console.log(describeFd(fd).kind)
    const stream = readableFrom(fd)
    stream.once('data', (line) => { console.log('read ' + String(line).trim()); stream.destroy() })
  `
    const python = 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)'
    const shell = new Running(t, [
      ...['python3', '-c', python],
      ...['sh', '-c', 'stty -g; "$@"; stty -g', 'sh'],
      ...script('--input-type=module', '-e'),
      source,
    ])
    await shell.printed(/terminal/)
    shell.child.stdin?.write('typed\n')
    await shell.exit
    const output = shell.stdout
    const lines = output.replaceAll('\r', '').trim().split('\n')
    t.ok(lines.includes('read typed'), output)
    t.equal(lines.at(-1), lines[0], 'stty sees the same terminal')
  },
)

leakFree(
  'readableFrom() leaves nothing of a terminal open',
  async (t) => {
    const [ours, theirs] = newSocketpair()
    const source =
      'import os, socket; s = socket.socket(fileno=3); ' +
      "socket.send_fds(s, [b'x'], list(os.openpty()))"
    const child = new Running(t, ['python3', '-c', source], {
      stdio: ['ignore', 'pipe', 'pipe', theirs],
    })
    closeSync(theirs)
    const conn = UnixConn.fromFd(ours)
    const { fds: [controller = -1, terminal = -1] = [] } =
      (await conn.recvFds()) ?? {}
    conn.close()
    await child.exit

    const stream = readableFrom(terminal)
    const line = once(stream, 'data')
    writeSync(controller, 'typed\n')
    t.equal(`${(await line)[0]}`, 'typed\n')
    stream.destroy()
    await once(stream, 'close')
    t.throws(() => describeFd(terminal), { code: 'EBADF' })
    closeSync(controller)
  },
  missing('python3'),
)

async function collect(
  chunks: (string | Buffer)[],
  longest?: number,
): Promise<string[]> {
  const lines: string[] = []
  const bytes = async function* (): AsyncGenerator<Buffer> {
    for (const chunk of chunks) yield Buffer.from(chunk)
  }
  for await (const line of linesOf(bytes(), longest)) lines.push(line)
  return lines
}

t.test('linesOf() splits as people type', async (t) => {
  t.strictSame(await collect([]), [])
  t.strictSame(await collect(['one\ntwo\n']), ['one', 'two'])
  t.strictSame(await collect(['o', 'n', 'e\r', '\ntwo']), ['one', 'two'])
  t.strictSame(await collect(['\n\n', 'x\n']), ['', '', 'x'])
  t.strictSame(await collect(['a\rb\n']), ['a\rb'], 'a lone CR stays')
  const euro = Buffer.from('€\n')
  t.strictSame(await collect([euro.subarray(0, 1), euro.subarray(1)]), ['€'])
  t.strictSame(await collect([euro.subarray(0, 2)]), ['\ufffd'], 'cut for good')
  const megabyte = 'x'.repeat(1024 * 1024)
  t.strictSame(await collect([megabyte, `${megabyte}\ny`]), [
    megabyte + megabyte,
    'y',
  ])
})

t.test('linesOf() cuts a long line that is no text', async (t) => {
  const zeros = '\0'.repeat(1024)
  t.strictSame(await collect([`${zeros}\n`]), [zeros])
  t.strictSame(await collect([`${zeros}${zeros}x\na\n`]), [
    ...[zeros, zeros, 'x'],
    'a',
  ])
  t.strictSame(await collect([zeros, zeros]), [zeros, zeros])
  t.strictSame(await collect([zeros, zeros, 'x\n'], 2000), [zeros, zeros, 'x'])
  const tabs = '\t'.repeat(2000)
  t.strictSame(await collect([tabs]), [tabs])
})

t.test('linesOf() hands out an endless line in pieces', async (t) => {
  t.strictSame(await collect(['abc', 'def', 'ghi\nx'], 4), [
    'abcdef',
    'ghi',
    'x',
  ])
})

leakFree('readableFrom() takes a terminal', async (t) => {
  // The other side of a new pseudo-terminal is one, too.
  const fd = openSync('/dev/ptmx', 'r+')
  t.equal(describeFd(fd).kind, 'terminal')
  const stream = readableFrom(fd)
  t.type(stream, ReadStream)
  stream.destroy()
  await once(stream, 'close')
})

// int setsockopt(int fd, int level, int name, const void *value,
//                socklen_t len)
const setsockopt = libc.declare('setsockopt', 'int', [
  ...(['int', 'int', 'int', 'pointer', 'uint'] as const),
])
// int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
const getsockopt = libc.declare('getsockopt', 'int', [
  ...(['int', 'int', 'int', 'pointer', 'pointer'] as const),
])

leakFree('a stream turns off SO_LINGER before it closes', async (t) => {
  const { SOL_SOCKET, SO_LINGER } = host.constants
  const [one, other] = newSocketpair()
  const theirs = duplicate(one)
  const value = libc.allocate(8)
  const length = libc.allocate(4)
  length.bytes.writeUInt32LE(8)
  const stream = readableFrom(one)
  // By the sender, as soon as we have it: 30 s.
  value.bytes.writeInt32LE(1)
  value.bytes.writeInt32LE(30, 4)
  t.equal(setsockopt(theirs, SOL_SOCKET, SO_LINGER, value.address, 8), 0)
  stream.destroy()
  await once(stream, 'close')
  const asked = [theirs, SOL_SOCKET, SO_LINGER] as const
  t.equal(getsockopt(...asked, value.address, length.address), 0)
  t.equal(value.bytes.readInt32LE(), 0)
  for (const fd of [theirs, other]) closeSync(fd)
})

leakFree(
  'readableFrom() refuses the other end of its connection',
  async (t) => {
    const [ours, theirs] = newSocketpair()
    const [one, other] = newSocketpair()
    t.throws(() => readableFrom(duplicate(theirs), ours), { code: 'EINVAL' })
    const stream = readableFrom(one, ours)
    stream.destroy()
    await once(stream, 'close')
    for (const fd of [ours, theirs, other]) closeSync(fd)
  },
)

leakFree('without /proc a pipe is read as it is', async (t) => {
  const { readableFrom } = await t.mockImport<
    typeof import('../../../lib/socket/readable.ts')
  >('../../../lib/socket/readable.ts', {
    'node:fs': {
      ...fs,
      readlinkSync: () => {
        throw new Error('there is no /proc')
      },
    },
  })
  const { r, w, shared } = await anonymousPipe(t)
  writeSync(w, 'through the pipe')
  closeSync(w)
  t.equal(await text(readableFrom(r)), 'through the pipe')
  t.not(flagsOf(shared) & O_NONBLOCK, 0, 'the shared description changes')
  closeSync(shared)
})

leakFree('a device that may not be opened anew is read as it is', async (t) => {
  const { readableFrom } = await t.mockImport<
    typeof import('../../../lib/socket/readable.ts')
  >('../../../lib/socket/readable.ts', {
    '../../../lib/libc.ts': {
      ...libc,
      declare: (name: string, ...rest: ['int', []]) =>
        name === 'open' ? () => -13 : libc.declare(name, ...rest),
    },
  })
  const fd = openSync('/dev/null', 'r')
  t.equal(await text(readableFrom(fd)), '')
})

leakFree('readableFrom() refuses what is no number', async (t) => {
  for (const fd of [-1, 1.5, Number.NaN]) {
    t.throws(() => readableFrom(fd), RangeError)
  }
})

leakFree('readableFrom() closes what fstat(2) fails for', async (t) => {
  const { readableFrom } = await t.mockImport<
    typeof import('../../../lib/socket/readable.ts')
  >('../../../lib/socket/readable.ts', {
    '../../../lib/socket/describe.ts': {
      describeFd: () => {
        throw new Error('fstat EIO')
      },
    },
  })
  const fd = openSync('package.json', 'r')
  t.throws(() => readableFrom(fd), { message: 'fstat EIO' })
  t.throws(() => fstatSync(fd), { code: 'EBADF' })
})

leakFree('describeFd() tells O_PATH', async (t) => {
  const O_PATH = 0o10000000
  const fd = openSync('/dev/null', O_PATH)
  t.strictSame(describeFd(fd), { kind: 'character device', access: 'none' })
  t.throws(() => readableFrom(fd), { code: 'EBADF', syscall: 'read' })
})

leakFree('a file is closed through libc in a worker thread', async (t) => {
  const { readableFrom } = await t.mockImport<
    typeof import('../../../lib/socket/readable.ts')
  >('../../../lib/socket/readable.ts', {
    'node:worker_threads': { ...threads, isMainThread: false },
  })
  const stream = readableFrom(openSync('package.json', 'r'))
  t.equal(await text(stream), readFileSync('package.json', 'utf8'))
})

/** A child whose descriptor 3 is what the Python expression `fd` opens. */
function withFd3(t: Test, fd: string, source: string, setsid = false) {
  const python = `
import fcntl, os, pty, sys
def terminal():
    master, slave = pty.openpty()
    fcntl.fcntl(master, fcntl.F_DUPFD, 50)
    return slave
fd = ${fd}
if fd != 3: os.dup2(fd, 3)
os.set_inheritable(3, True)
${setsid ? 'os.setsid()' : ''}
os.execvp(sys.argv[1], sys.argv[1:])`
  const command = script('--input-type=module', '-e')
  return run(t, ['python3', '-c', python, ...command, source])
}

const REFUSED = `
  import { describeFd, readableFrom } from './lib/index.ts'
  console.log(describeFd(3).access)
  try { readableFrom(3) } catch (error) { console.log(error.message) }
  try { describeFd(3) } catch ({ code }) { console.log(code) }
`

for (const path of ['/dev/zero', '/etc/passwd', '/', '/dev/ptmx']) {
  t.test(
    `readableFrom() refuses an O_PATH descriptor of ${path}`,
    {
      skip:
        process.platform === 'linux'
          ? missing('python3')
          : 'only Linux has O_PATH',
    },
    async (t) => {
      const open = `os.open('${path}', os.O_PATH)`
      const { stdout, stderr } = await withFd3(t, open, REFUSED)
      t.equal(
        stdout,
        'none\nread EBADF cannot read this: it is a path (O_PATH)\nEBADF\n',
        stderr,
      )
    },
  )
}

for (const [what, open] of [
  ['terminal', 'terminal()'],
  ['path of a terminal', 'os.open(os.ttyname(terminal()), os.O_PATH)'],
] as const) {
  t.test(
    `a received ${what} does not become the controlling one`,
    { skip: missing('python3') },
    async (t) => {
      // The seventh field of proc_pid_stat(5) is the controlling terminal.
      const source = `
        import { readFileSync } from 'node:fs'
        import { readableFrom } from './lib/index.ts'
        let stream
        try { stream = readableFrom(3) } catch {}
        const stat = readFileSync('/proc/self/stat', 'utf8')
        console.log(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[4])
        stream?.destroy()
      `
      const { stdout, stderr } = await withFd3(t, open, source, true)
      t.equal(stdout, '0\n', stderr)
    },
  )
}

leakFree('readableFrom() in a worker thread leaves no trace', async (t) => {
  // The end of the thread must not close numbers that others have by then, and
  // nothing may warn about numbers that Node has not opened.
  const folder = temporaryFolder(t)
  writeFileSync(join(folder, 'file'), 'a file')
  const body = `
    const [one, other] = lib.socketpair()
    const { closeSync, openSync, readdirSync } = await import('node:fs')
    const { text } = await import('node:stream/consumers')
    const { setTimeout: sleep } = await import('node:timers/promises')
    const before = readdirSync('/proc/self/fd')
    for (const path of [argv[0], '/dev/null']) {
      const fd = openSync(path)
      await one.sendFds('x', [fd])
      closeSync(fd)
      const { fds } = await other.recvFds()
      console.log(await text(lib.readableFrom(fds[0])))
    }
    const [a, b] = lib.socketpair()
    await one.sendFds('x', [a.fd])
    a.close()
    const { fds } = await other.recvFds()
    const stream = lib.readableFrom(fds[0])
    await b.sendmsg('a socket')
    b.close()
    console.log(await text(stream))
    try { lib.readableFrom(99) } catch ({ code }) { console.log(code) }
    const left = () =>
      readdirSync('/proc/self/fd').filter((fd) => !before.includes(fd)).length
    // A file of the cache of tsx may be open for a moment.
    for (let i = 0; left() > 0 && i < 1000; i++) await sleep(5)
    console.log(left())
    one.close()
    other.close()`
  const { stdout, stderr } = await runInWorker(t, body, join(folder, 'file'))
  t.equal(stdout, 'a file\n\na socket\nEBADF\n0\n0\n', stderr)
})

leakFree(
  'what is opened anew in a worker thread survives its end',
  async (t) => {
    // A pipe is opened anew; its stream is destroyed, and the number given to
    // a file of the main thread. The worker's end must leave that open.
    const source = `
      import { once } from 'node:events'
      import { closeSync, fstatSync, openSync } from 'node:fs'
      import { Worker } from 'node:worker_threads'
      const inside = \`
        import { once } from 'node:events'
        process.on('warning', ${onWarning})
        import { parentPort } from 'node:worker_threads'
        import { tsImport } from 'tsx/esm/api'
        const { readableFrom } = await tsImport('./lib/index.ts', '\${
          new URL('file://' + process.cwd() + '/server.ts')
        }')
        const stream = readableFrom(3)
        stream.destroy()
        await once(stream, 'close')
        parentPort.postMessage('closed')
        await once(parentPort, 'message')
      \`
      const worker = new Worker(inside, {
        eval: true, execArgv: ['--input-type=module'] })
      await once(worker, 'message')
      const opened = Array.from({ length: 20 }, () => openSync('package.json'))
      worker.postMessage('end')
      await once(worker, 'exit')
      for (const fd of opened) fstatSync(fd)
      console.log('all open')
    `
    const { stdout, stderr } = await withFd3(t, 'os.pipe()[0]', source)
    t.equal(stdout, 'all open\n', stderr)
  },
  missing('python3'),
)

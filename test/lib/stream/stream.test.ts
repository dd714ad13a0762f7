// How a DescriptorStream reads and writes without changing what others share
// with it, and without ever keeping the event loop from its other work: Linux.

import { once } from 'node:events'
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import * as threads from 'node:worker_threads'
import type { Test } from 'tap'

import { tcpPair } from '../../../examples/gotchas/tcp-pair.ts'
import {
  duplexFrom,
  pipe as makePipe,
  readableFrom,
  UnixConn,
  waitReadable,
  writableFrom,
} from '../../../lib/index.ts'
import * as layouts from '../../../lib/layouts.ts'
import * as libc from '../../../lib/libc.ts'
import {
  closeFd,
  duplicate,
  newSocketpair,
  setNonBlocking,
} from '../../../lib/socket/unix.ts'
import * as watch from '../../../lib/wait/watch.ts'
import { endFuse, missingFuse, startFuse } from '../../fuse.ts'
import { leakFree, openFds } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing, missingCall } from '../../support/missing.ts'
import { anonymousPipe, pipe } from '../../support/pipes.ts'
import {
  plainEnv,
  Running,
  run,
  script,
  strip,
} from '../../support/processes.ts'
import { turns, until } from '../../support/waiting.ts'
import { runInWorker } from '../../support/worker.ts'
import {
  borrow,
  busyPool,
  flagsOf,
  isClosed,
  isSameDescription,
  newFifo,
  newTerminal,
  type Open,
} from './support.ts'

const OPEN = '../../../lib/stream/open.ts'
const { O_NONBLOCK } = constants
const needsPython = missing('python3')

/** Waits until a stream is closed; what it failed with, if it did. */
async function ended(stream: Readable | Writable): Promise<unknown> {
  stream.on('error', () => {})
  await until('a stream that is closed', () => stream.closed, 20)
  return stream.errored ?? undefined
}

/** The next chunk. */
async function chunkOf(stream: Readable): Promise<Buffer> {
  const [chunk] = await once(stream, 'data')
  return chunk
}

/**
 * Each kind of what can be read, with 'there' to be read; and what else is to
 * be closed.
 */
async function readables(t: Test) {
  const { r, w, shared } = await anonymousPipe(t)
  const fifo = newFifo(t)
  const [one, other] = newSocketpair({ isBlocking: true })
  const [near, far] = tcpPair()
  const { master, slave } = await newTerminal(t)
  for (const fd of [w, fifo, other, far]) writeSync(fd, 'there')
  writeSync(master, 'there\n')
  const file = openSync('package.json', 'r')
  const device = openSync('/dev/zero', 'r')
  const fds = { pipe: r, fifo, socket: one, tcp: near, terminal: slave }
  return {
    fds: { ...fds, file, device },
    others: [w, shared, other, far, master],
  }
}

leakFree(
  'a stream has the very description that was sent, and changes no flag of it',
  async (t) => {
    const { fds, others } = await readables(t)
    for (const [kind, fd] of Object.entries(fds)) {
      for (const isBlocking of [true, false]) {
        const shared = duplicate(fd)
        if (!isBlocking) setNonBlocking(shared)
        const flags = flagsOf(shared)
        t.equal((flags & O_NONBLOCK) === 0, isBlocking)
        const before = openFds()
        const ours = isBlocking ? duplicate(fd) : fd
        const stream = readableFrom(ours)
        t.ok(await isSameDescription(t, ours, shared), kind)
        if (isBlocking) {
          t.match(`${await chunkOf(stream)}`, /^(there\n?$|\{|\0)/, kind)
        }
        t.equal(flagsOf(shared), flags, `${kind}: as it was`)
        t.equal(await ended(stream.destroy()), undefined)
        t.equal(flagsOf(shared), flags, `${kind}: as it was, at the end too`)
        await until('closed', () => isClosed(ours), 20)
        const left = isBlocking ? 0 : -1
        t.equal(openFds().length, before.length + left, 'nothing else is open')
        closeSync(shared)
      }
    }
    for (const fd of others) closeSync(fd)
  },
  ['x64', 'arm64'].includes(process.arch)
    ? missing('python3', 'mkfifo')
    : 'kcmp(2) has another number here',
)

leakFree(
  'a stream opens nothing anew, and sets nothing',
  async (t) => {
    const { fds, others } = await readables(t)
    const numbers = Object.values(fds)
    const log = join(temporaryFolder(t), 'log')
    // Calls that fail show in the log where the streams begin and end.
    const source = `
      import { once } from 'node:events'
      import { closeSync } from 'node:fs'
      import { readableFrom, waitReadable } from './lib/index.ts'
      const mark = () => { try { closeSync(99999) } catch {} }
      // The first wait makes the one list of all waits.
      await waitReadable(3)
      mark()
      for (let fd = 3; fd < ${3 + numbers.length}; fd++) {
        const stream = readableFrom(fd)
        await once(stream, 'data')
        await once(stream.destroy(), 'close')
      }
      mark()`
    const { code, stderr } = await run(
      t,
      [
        ...['strace', '-f', '-q', '-o', log],
        ...script('--input-type=module', '-e'),
        source,
      ],
      {
        env: plainEnv(),
        stdio: ['ignore', 'pipe', 'pipe', ...numbers],
      },
    )
    t.equal(code, 0, stderr)
    const [, calls = ''] = readFileSync(log, 'utf8').split('close(99999')
    t.match(calls, /recvmsg\(\d+, /)
    t.match(calls, /preadv2\(\d+, /, { skip: missingCall('preadv2') })
    t.notMatch(calls, /\b(open|openat|openat2)\(/)
    for (const [i, kind] of Object.keys(fds).entries()) {
      // Of what statx(2) has told to be a device, isatty(3) may ask for more.
      if (kind === 'terminal' || kind === 'device') continue
      t.notMatch(calls, new RegExp(`fstat(at)?\\(${3 + i}\\b`), kind)
    }
    t.notMatch(calls, /F_SETFL|FIONBIO|\bTCSET|\bTIOCS/)
    for (const fd of [...numbers, ...others]) closeSync(fd)
  },
  missing('python3', 'mkfifo', 'strace'),
)

/** How many times `count` grows within one turn of the event loop, at most. */
async function mostInOneTurn(
  count: () => number,
  isOver: () => boolean,
): Promise<number> {
  let most = 0
  for (let before = count(); !isOver(); before = count()) {
    await turns(1)
    most = Math.max(most, count() - before)
  }
  return most
}

const FLOOD = `
a, b = socket.socketpair()
lend(a.fileno())
a.close()
try:
    while True: b.sendall(bytes(1000))
except OSError:
    pass
`

leakFree(
  'others have their turn while an endless source is read',
  async (t) => {
    const { fds, lender } = await borrow(t, FLOOD)
    const [flooded = -1] = fds
    for (const fd of [flooded, openSync('/dev/zero', 'r')]) {
      let chunks = 0
      const stream = readableFrom(fd).on('data', () => chunks++)
      const most = await mostInOneTurn(
        () => chunks,
        () => chunks > 1000,
      )
      t.ok(most <= 32, `${most} reads in one turn`)
      t.equal(await ended(stream.destroy()), undefined)
    }
    await lender.exit
  },
  needsPython,
)

leakFree('others have their turn while much is written', async (t) => {
  let written = 0
  const highWaterMark = 1e6
  const stream = writableFrom(openSync('/dev/null', 'w'), { highWaterMark })
  for (let i = 0; i < 10_000; i++) stream.write('x', () => written++)
  stream.end()
  const most = await mostInOneTurn(
    () => written,
    () => written === 10_000,
  )
  t.ok(most <= 32, `${most} writes in one turn`)
  t.equal(await ended(stream), undefined)
})

// Python that shares a descriptor with this process, turns O_NONBLOCK off over
// and over, and reads as fast as it can. It tells how much it got.
const QUICK_READER = `
def fifo():
    import tempfile
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, 'fifo')
    os.mkfifo(path)
    both = os.open(path, os.O_RDWR)
    r, w = os.open(path, os.O_RDONLY), os.open(path, os.O_WRONLY)
    os.close(both)
    os.unlink(path)
    os.rmdir(folder)
    return r, w
def tcp():
    server = socket.create_server(('127.0.0.1', 0))
    near = socket.create_connection(server.getsockname())
    far, _ = server.accept()
    return near.detach(), far.detach()
def unix():
    near, far = socket.socketpair()
    return near.detach(), far.detach()
def terminal():
    import tty
    master, slave = pty.openpty()
    tty.setraw(slave)
    return master, slave
shared, far = {'FIFO': fifo, 'TCP': tcp, 'unix': unix, 'terminal': terminal,
               'pipe': os.pipe}[sys.argv[1]]()
lend(shared, far)
os.close(far)
count = 0
def read():
    global count
    while True:
        flags = fcntl.fcntl(shared, fcntl.F_GETFL)
        fcntl.fcntl(shared, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
        count += len(os.read(shared, 4096))
threading.Thread(target=read, daemon=True).start()
for line in sys.stdin:
    print(count, flush=True)
`

// Streams descriptor 3, and answers each line on its standard input.
const ANSWERING = `
  import { readFile } from 'node:fs/promises'
  import { readableFrom } from './lib/index.ts'
  let bytes = 0
  readableFrom(3).on('data', (chunk) => { bytes += chunk.length })
  let answers = 0
  process.stdin.on('data', async () => {
    // In libuv's pool, like the reads of some streams.
    await readFile('package.json')
    console.log(\`answer \${++answers}: \${bytes} bytes\`)
  })
  console.log('ready')
`

for (const kind of ['pipe', 'FIFO', 'unix', 'TCP', 'terminal']) {
  leakFree(
    `a quicker reader does not stop the event loop, and nothing is lost: ${kind}`,
    async (t) => {
      const { fds, lender, quit } = await borrow(t, QUICK_READER, kind)
      const [shared = -1, far = -1] = fds
      const child = new Running(
        t,
        [...script('--input-type=module', '-e'), ANSWERING],
        { stdio: ['pipe', 'pipe', 'pipe', shared] },
      )
      closeSync(shared)
      await child.printed(/ready/)
      let sent = 0
      let answers = 0
      const answer = async (): Promise<number> => {
        child.child.stdin?.write('?')
        const pattern = new RegExp(`answer ${++answers}: (\\d+) bytes`)
        return Number((await child.printed(pattern))[1])
      }
      for (let round = 0; round < 20; round++) {
        for (let line = 0; line < 20; line++) sent += writeSync(far, 'line\n')
        await answer()
      }
      const counted = async (): Promise<number> => {
        const before = lender.stdout.length
        lender.child.stdin?.write('\n')
        await until('a count', () => lender.stdout.length > before)
        return Number(lender.stdout.trim().split('\n').at(-1))
      }
      let got = 0
      for (let i = 0; i < 1000 && got !== sent; i++) {
        got = (await counted()) + (await answer())
      }
      t.equal(got, sent, 'both together have all')
      // What is blocked in the pool would hold up an orderly end.
      child.child.kill('SIGKILL')
      await child.exit
      await quit()
      closeSync(far)
    },
    missing('python3', 'mkfifo'),
  )
}

/** Has a read of `stream` begin in the pool, and takes what it is for. */
async function loseRace(stream: Readable, shared: number): Promise<void> {
  stream.resume()
  await turns()
  writeSync(shared, 'x')
  await turns()
  readSync(shared, Buffer.alloc(1))
}

/** The same of several, one after the other. */
async function loseRaces(streams: Readable[], shared: number[]): Promise<void> {
  for (const [i, stream] of streams.entries()) {
    await loseRace(stream, shared[i] ?? -1)
  }
}

/** FIFOs with their streams, and with another descriptor each: the caller's. */
function readersOfFifos(t: Test, length: number) {
  const fifos = Array.from({ length }, () => newFifo(t))
  const shared = fifos.map(duplicate)
  return { fifos, shared, streams: fifos.map((fd) => readableFrom(fd)) }
}

leakFree(
  'a read that comes too late waits in the pool, and gives what comes next',
  async (t) => {
    const fifo = newFifo(t)
    const shared = duplicate(fifo)
    const stream = readableFrom(fifo)
    const free = busyPool(t)
    await loseRace(stream, shared)
    await free()
    t.equal((await readFile('LICENSE')).length > 0, true, 'others may read')
    const next = chunkOf(stream)
    writeSync(shared, 'next')
    t.equal(`${await next}`, 'next')
    t.equal(await ended(stream.destroy()), undefined)
    closeSync(shared)
  },
  missing('mkfifo'),
)

leakFree(
  'a read that comes too late waits anew where O_NONBLOCK is on',
  async (t) => {
    const fifo = newFifo(t)
    const shared = duplicate(fifo)
    setNonBlocking(shared)
    const stream = readableFrom(fifo)
    const free = busyPool(t)
    await loseRace(stream, shared)
    await free()
    const next = chunkOf(stream)
    writeSync(shared, 'next')
    t.equal(`${await next}`, 'next')
    t.equal(await ended(stream.destroy()), undefined)
    closeSync(shared)
  },
  missing('mkfifo'),
)

for (const isBlocking of [true, false]) {
  leakFree(
    `a write that comes too late is not lost, O_NONBLOCK ${isBlocking ? 'off' : 'on'}`,
    async (t) => {
      const fifo = newFifo(t)
      const shared = duplicate(fifo)
      if (!isBlocking) setNonBlocking(shared)
      const free = busyPool(t)
      const stream = writableFrom(fifo)
      stream.write('ours')
      stream.end(', and the end')
      await turns()
      // It found room, and another writer has filled that since.
      const page = Buffer.alloc(4096, 'theirs')
      for (let i = 0; i < 16; i++) writeSync(shared, page)
      await free()
      let all = ''
      const chunk = Buffer.alloc(65536)
      while (!all.endsWith('end')) {
        await waitReadable(shared)
        all += chunk.toString('utf8', 0, readSync(shared, chunk))
      }
      t.equal(all, `${String(page).repeat(16)}ours, and the end`)
      t.equal(await ended(stream), undefined)
      closeSync(shared)
    },
    missing('mkfifo'),
  )
}

leakFree(
  'any number of reads that come too late leave threads for others',
  async (t) => {
    const { shared, streams } = readersOfFifos(t, 8)
    const free = busyPool(t)
    await loseRaces(streams, shared)
    await free()
    t.ok((await readFile('LICENSE')).length > 0, 'a file is read')
    const fd = openSync('/dev/null', 'r')
    t.equal(await ended(readableFrom(fd).resume()), undefined)
    await until('a descriptor that is closed in the pool', () => isClosed(fd))
    for (const fd of shared) writeSync(fd, 'x')
    for (const stream of streams) {
      t.equal(await ended(stream.destroy()), undefined)
    }
    for (const fd of shared) closeSync(fd)
  },
  missing('mkfifo'),
)

leakFree(
  'files that hang, and reads that come too late, leave threads for others',
  async (t) => {
    const { folder, server } = await startFuse(t)
    const hanging = Array.from({ length: 4 }, () => {
      return readableFrom(openSync(join(folder, 'hanging-read'), 'r'))
    })
    const { shared, streams: late } = readersOfFifos(t, 4)
    const free = busyPool(t)
    for (const stream of hanging) stream.on('error', () => {}).resume()
    await loseRaces(late, shared)
    await free()
    await server.printed(/^hanging-read$/m)
    let isRead = false
    const others = readFile('LICENSE').then(() => {
      isRead = true
    })
    await until('a file is read', () => isRead, 20).catch(() => {})
    t.ok(isRead)

    for (const fd of shared) writeSync(fd, 'x')
    // Then the calls that hang in it fail.
    await endFuse(server)
    await others
    for (const stream of late) t.equal(await ended(stream.destroy()), undefined)
    for (const stream of hanging) await ended(stream.destroy())
    for (const fd of shared) closeSync(fd)
  },
  missingFuse() || missing('mkfifo'),
)

leakFree(
  'destroy() of a stream whose call waits for its turn closes at once',
  async (t) => {
    const { fifos, shared, streams } = readersOfFifos(t, 8)
    const free = busyPool(t)
    await loseRaces(streams, shared)
    await free()
    // The first calls are in the pool for as long as nobody writes.
    for (const stream of streams) {
      t.equal(await ended(stream.destroy()), undefined)
    }
    const last = fifos.at(-1) ?? -1
    await until('the last is closed', () => isClosed(last), 20).catch(() => {})
    t.ok(isClosed(last))
    for (const fd of shared) writeSync(fd, 'x')
    await until('all are closed', () => fifos.every(isClosed), 20)
    for (const fd of shared) closeSync(fd)
  },
  missing('mkfifo'),
)

leakFree(
  'destroy() while the pool reads: closed at once, the descriptor after that',
  async (t) => {
    const file = openSync('package.json', 'r')
    const fifo = newFifo(t)
    const shared = duplicate(fifo)
    const ofFile = readableFrom(file)
    const ofFifo = readableFrom(fifo)
    const free = busyPool(t)
    ofFile.resume()
    await loseRace(ofFifo, shared)
    for (const stream of [ofFile, ofFifo]) {
      stream.on('data', () => t.fail('nothing comes after destroy()'))
      t.equal(await ended(stream.destroy()), undefined)
    }
    t.notOk(isClosed(file))
    await free()
    await until('closed', () => isClosed(file), 20)
    t.notOk(isClosed(fifo), 'the read has nothing yet')
    writeSync(shared, 'x')
    await until('closed', () => isClosed(fifo), 20)
    closeSync(shared)
  },
  missing('mkfifo'),
)

leakFree(
  'destroy() while the pool writes: closed at once, the descriptor after that',
  async (t) => {
    const path = join(temporaryFolder(t), 'file')
    const fd = openSync(path, 'w')
    const free = busyPool(t)
    const stream = writableFrom(fd)
    stream.write('under way')
    await turns()
    t.equal(await ended(stream.destroy()), undefined)
    t.notOk(isClosed(fd))
    await free()
    await until('closed', () => isClosed(fd), 20)
    // Whatever became of it: no half of it.
    t.match(readFileSync(path, 'utf8'), /^(under way)?$/)
  },
  missing('mkfifo'),
)

leakFree('destroy() tells the writes that are not done', async (t) => {
  const [one, other] = newSocketpair()
  const stream = writableFrom(one)
  const told: (string | undefined)[] = []
  for (let i = 0; i < 3; i++) {
    stream.write(Buffer.alloc(1e6), (error) => {
      const { code } = (error ?? {}) as NodeJS.ErrnoException
      told.push(code)
    })
  }
  await turns()
  t.equal(await ended(stream.destroy()), undefined)
  await until('three are told', () => told.length === 3, 20).catch(() => {})
  t.equal(told.length, 3)
  t.notOk(told.includes(undefined), 'each of an error')
  closeSync(other)
})

leakFree(
  'process.exit() does not wait for a read in the pool',
  async (t) => {
    const fifos = [newFifo(t), newFifo(t)]
    const source = `
      import { read, readSync, writeSync } from 'node:fs'
      import { readFile } from 'node:fs/promises'
      import { setImmediate } from 'node:timers/promises'
      import { duplicate, readableFrom } from './lib/index.ts'
      const turns = async () => {
        for (let i = 0; i < 20; i++) await setImmediate()
      }
      const shared = duplicate(3)
      readableFrom(3).resume()
      const others = Array.from({ length: 4 }, () => new Promise((resolve) => {
        read(4, Buffer.alloc(1), 0, 1, null, resolve)
      }))
      await turns()
      writeSync(shared, 'x')
      await turns()
      readSync(shared, Buffer.alloc(1))
      writeSync(4, 'four')
      await Promise.all(others)
      await readFile('package.json')
      process.on('exit', () => console.log('cleaned up'))
      console.log('exits')
      process.exit(7)`
    const child = new Running(
      t,
      [...script('--input-type=module', '-e'), source],
      { stdio: ['ignore', 'pipe', 'pipe', ...fifos] },
    )
    await child.printed(/exits/)
    const isOver = (): boolean => child.child.exitCode === 7
    await until('its end', isOver, 20).catch(() => child.child.kill('SIGKILL'))
    t.match(await child.exit, { code: 7, signal: null })
    t.match(child.stdout, /cleaned up/, 'every exit listener has run')
    for (const fd of fifos) closeSync(fd)
  },
  missing('mkfifo'),
)

for (const wait of ['', 'sockets']) {
  leakFree(
    `a terminal that nobody reads does not stop the event loop (${wait ? 'elsewhere' : 'Linux'})`,
    async (t) => {
      const { master, slave } = await newTerminal(t)
      const source = `
        import { readFile } from 'node:fs/promises'
        import { writableFrom } from './lib/index.ts'
        const stream = writableFrom(3)
        stream.end('x'.repeat(100_000))
        process.stdin.on('data', async () => {
          await readFile('package.json')
          console.log('an answer')
        })
        console.log('writes')`
      const child = new Running(
        t,
        [...script('--input-type=module', '-e'), source],
        {
          env: plainEnv({ FDPASS_WAIT: wait }),
          stdio: ['pipe', 'pipe', 'pipe', slave],
        },
      )
      closeSync(slave)
      await child.printed(/writes/, 20)
      child.child.stdin?.end('?')
      await child.printed(/an answer/, 20)
      let length = 0
      const chunk = Buffer.alloc(65536)
      while (length < 100_000) {
        await waitReadable(master)
        length += readSync(master, chunk)
      }
      t.equal((await child.exit).code, 0)
      closeSync(master)
    },
    needsPython,
  )
}

leakFree('descriptors that come with the bytes are closed', async (t) => {
  const [one, other] = newSocketpair()
  const sender = UnixConn.fromFd(one)
  const stream = readableFrom(other)
  const [near, far] = newSocketpair()
  const before = openFds().length
  for (let i = 0; i < 10; i++) {
    const next = chunkOf(stream)
    await sender.sendFds(
      `byte ${i}`,
      Array.from({ length: 50 }, () => near),
    )
    t.equal(`${await next}`, `byte ${i}`)
  }
  await until('closed', () => openFds().length === before, 20)
  closeSync(near)
  t.throws(() => writeSync(far, 'x'), { code: 'EPIPE' })
  closeSync(far)
  sender.close()
  t.equal(await ended(stream), undefined)
})

/** The reason to skip what reads the kernel's log, if there is one. */
function cannotReadLog(): string | false {
  try {
    const fd = openSync('/dev/kmsg', constants.O_RDONLY | O_NONBLOCK)
    try {
      readSync(fd, Buffer.alloc(8192))
      return false
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    return `the kernel's log cannot be read: ${error}`
  }
}

leakFree(
  'readableFrom() reads the kernel’s log, record by record',
  async (t) => {
    const stream = readableFrom(openSync('/dev/kmsg', 'r'))
    // priority, number, time: what the kernel documents for each record.
    t.match(`${await chunkOf(stream)}`, /^\d+,\d+,\d+,[^;]*;[^\n]*\n/)
    t.equal(await ended(stream.destroy()), undefined)
  },
  cannotReadLog(),
)

// A TUN interface in a network namespace of its own, and who sends packets to
// it, and tells what comes back.
const TUN = `
import ctypes
if ctypes.CDLL(None).unshare(0x40000000) != 0: sys.exit('unshare')
tun = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH14x', b'fdpass0', 0x1001))
packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
fcntl.ioctl(packets, 0x8914, struct.pack('16sH14x', b'fdpass0', 0x41))
packets.bind(('fdpass0', 0x0800))
lend(tun)
for line in sys.stdin:
    packets.send(line.strip().encode())
    print('back:', packets.recv(2000), flush=True)
`

leakFree(
  'duplexFrom() reads and writes the packets of a TUN interface',
  async (t) => {
    const { fds, lender, quit } = await borrow(t, TUN)
    const [tun = -1] = fds
    const stream = duplexFrom(tun)
    const isPacket = (chunk: Buffer): boolean => `${chunk}` === 'E-packet'
    let packet = Buffer.alloc(0)
    stream.on('data', (chunk) => {
      if (isPacket(chunk)) packet = chunk
    })
    lender.child.stdin?.write('E-packet\n')
    await until('the packet', () => packet.length > 0, 20)
    // As from the network: whatever begins like IPv4.
    stream.write('E-answer')
    await lender.printed(/back: b'E-answer'/, 20)
    t.equal(await ended(stream.destroy()), undefined)
    await quit()
  },
  process.getuid?.() !== 0 || !existsSync('/dev/net/tun')
    ? 'only root can make a TUN interface, with /dev/net/tun'
    : needsPython,
)

leakFree('a stream fails with the error of its call', async (t) => {
  for (const [make, code] of [
    // No memory is mapped at 0.
    [() => readableFrom(openSync('/proc/self/mem', 'r')).resume(), 'EIO'],
    [() => writableFrom(openSync('/dev/full', 'w')).end('x'), 'ENOSPC'],
    [
      () => writableFrom(openSync('/proc/self/oom_score_adj', 'w')).end('x'),
      'EINVAL',
    ],
  ] as const) {
    t.match(await ended(make()), { code, errno: Number, syscall: /read|write/ })
  }
  const [one, other] = newSocketpair()
  writeSync(one, 'not read')
  closeSync(other)
  const reset = readableFrom(one)
  t.match(await ended(reset.resume()), { code: 'ECONNRESET', syscall: 'read' })
})

leakFree('a duplex fails in both directions', async (t) => {
  const [one, other] = newSocketpair()
  const stream = duplexFrom(one)
  const error = ended(stream.resume())
  stream.write(Buffer.alloc(1e6))
  await turns()
  closeSync(other)
  t.match(await error, { code: /ECONNRESET|EPIPE/ })
})

leakFree('the options are those of Node', async (t) => {
  const [one, other] = newSocketpair()
  const reader = readableFrom(one, { encoding: 'utf8', highWaterMark: 5 })
  const writer = writableFrom(other, {
    defaultEncoding: 'latin1',
    highWaterMark: 5,
  })
  t.equal(reader.readableHighWaterMark, 5)
  t.equal(writer.writableHighWaterMark, 5)
  writer.write('12 äöü')
  const [chunk] = await once(reader, 'data')
  t.equal(chunk, '12 \ufffd\ufffd\ufffd', 'bytes of latin1, read as utf8')
  reader.pause()
  t.equal(writer.write(Buffer.alloc(1e6)), false, 'more than there is room for')
  reader.resume()
  await once(writer, 'drain')
  writer.end()
  t.equal(await ended(reader.resume()), undefined)
})

/** lib/stream/open.ts with some modules replaced, and the one list of waits. */
function openWith(t: Test, mocks: Record<string, unknown>): Promise<Open> {
  const ofWatch = '../../../lib/wait/watch.ts'
  return t.mockImport<Open>(OPEN, { [ofWatch]: watch, ...mocks })
}

/** lib/libc.ts, with another function for preadv2(2) and pwritev2(2). */
function withPreadv2(call: () => number): typeof libc {
  return {
    ...libc,
    declareOptional: (name, ...rest) =>
      /^p(read|write)v2$/.test(name)
        ? call
        : libc.declareOptional(name, ...rest),
  }
}

const withoutPreadv2 = {
  '../../../lib/libc.ts': withPreadv2(() => -38), // ENOSYS
}
// lib/libc.ts stays that of this machine: with pointers of 32 bits its calls
// would get half of each address.
const with32Bits = {
  '../../../lib/layouts.ts': {
    ...layouts,
    host: { ...layouts.host, pointerSize: 4 },
  },
  '../../../lib/libc.ts': withPreadv2(() => {
    throw new Error('Expected no call with offsets of 64 bits')
  }),
}

for (const [what, mocks] of Object.entries({
  'preadv2(2) is missing': withoutPreadv2,
  'pointers have 32 bits': with32Bits,
})) {
  leakFree(
    `where ${what}, pipes and devices are read and written in the pool`,
    async (t) => {
      const { readableFrom, writableFrom } = await openWith(t, mocks)
      const { r, w, shared } = await anonymousPipe(t)
      const reader = readableFrom(r)
      const writer = writableFrom(w)
      const flags = flagsOf(shared)
      // More than one write of the pool takes from a pipe.
      const sent = 'some words, '.repeat(1000)
      writer.write(sent)
      writer.end('and the last')
      t.equal(await text(reader), `${sent}and the last`)
      t.equal(flagsOf(shared), flags)
      closeSync(shared)

      // Neither can it be waited for.
      t.equal(await text(readableFrom(openSync('/dev/null', 'r'))), '')
      const zeros = readableFrom(openSync('/dev/zero', 'r'))
      t.ok((await chunkOf(zeros)).every((byte) => byte === 0))
      t.equal(await ended(zeros.destroy()), undefined)
      const none = writableFrom(openSync('/dev/null', 'w'))
      none.write('x')
      t.equal(await ended(none.end('y')), undefined)
    },
    needsPython,
  )
}

leakFree('a stream that cannot wait fails with the reason', async (t) => {
  const why = Object.assign(new Error('epoll_ctl ENOSPC'), { errno: -28 })
  class Watch {
    wait(): void {
      throw why
    }
    end(): void {}
  }
  const { readableFrom } = await openWith(t, {
    '../../../lib/wait/watch.ts': { ...watch, Watch },
  })
  const [one, other] = newSocketpair()
  t.equal(await ended(readableFrom(one).resume()), why)
  closeSync(other)
})

leakFree('what cannot be described is closed', async (t) => {
  const why = new Error('statx EIO')
  const { readableFrom } = await openWith(t, {
    '../../../lib/socket/describe.ts': {
      describeFd: () => {
        throw why
      },
    },
  })
  const fd = openSync('package.json', 'r')
  t.throws(() => readableFrom(fd), why)
  await until('closed', () => isClosed(fd), 20)
})

for (const hasEpoll of [true, false]) {
  leakFree(
    `in a worker thread files are closed through libc (${hasEpoll ? 'Linux' : 'elsewhere'})`,
    async (t) => {
      const { readableFrom, writableFrom } = await openWith(t, {
        '../../../lib/wait/watch.ts': { ...watch, hasEpoll },
        'node:worker_threads': { ...threads, isMainThread: false },
      })
      const path = join(temporaryFolder(t), 'file')
      const out = openSync(path, 'w')
      const writer = writableFrom(out)
      t.equal(await ended(writer.end('a file')), undefined)
      t.ok(isClosed(out), 'when the stream is, no moment later')
      const fd = openSync(path, 'r')
      t.equal(await text(readableFrom(fd)), 'a file')
      t.ok(isClosed(fd))
    },
  )
}

for (const wait of ['', 'sockets']) {
  leakFree(
    `streams in a worker thread leave no trace (${wait ? 'elsewhere' : 'Linux'})`,
    async (t) => {
      // The end of the thread must not close numbers that others have by then,
      // and nothing may warn about numbers that Node has not opened.
      const folder = temporaryFolder(t)
      writeFileSync(join(folder, 'file'), 'a file')
      const body = `
        const { closeSync, openSync, readdirSync } = await import('node:fs')
        const { once } = await import('node:events')
        const { text } = await import('node:stream/consumers')
        const { setTimeout: sleep } = await import('node:timers/promises')
        const [one, other] = lib.socketpair()
        const pass = async (fd) => {
          await one.sendFds('x', [fd])
          return (await other.recvFds()).fds[0]
        }
        // The first wait makes the one list of all waits, which stays.
        await lib.waitWritable(one.fd)
        const before = readdirSync('/proc/self/fd')
        for (const path of [argv[0], '/dev/null']) {
          const fd = openSync(path)
          console.log(await text(lib.readableFrom(await pass(fd))))
          closeSync(fd)
        }
        const out = openSync(argv[0], 'a')
        const writer = lib.writableFrom(await pass(out))
        closeSync(out)
        await once(writer.end('and more'), 'close')
        const [a, b] = lib.socketpair()
        const duplex = lib.duplexFrom(await pass(a.fd))
        a.close()
        await b.sendmsg('a socket')
        console.log(String((await once(duplex, 'data'))[0]))
        duplex.end('back')
        console.log(String((await b.recvmsg()).data))
        b.close()
        await once(duplex.resume(), 'close')
        try { lib.readableFrom(99) } catch ({ code }) { console.log(code) }
        const left = () =>
          readdirSync('/proc/self/fd').filter((fd) => !before.includes(fd))
        // A file of the cache of tsx may be open for a moment.
        for (let i = 0; left().length > 0 && i < 1000; i++) await sleep(5)
        console.log(left().length)
        one.close()
        other.close()`
      t.teardown(() => {
        delete process.env.FDPASS_WAIT
      })
      if (wait) process.env.FDPASS_WAIT = wait
      const { stdout, stderr } = await runInWorker(
        t,
        body,
        join(folder, 'file'),
      )
      t.equal(stdout, 'a file\n\na socket\nback\nEBADF\n0\n0\n', stderr)
      t.equal(readFileSync(join(folder, 'file'), 'utf8'), 'a fileand more')
    },
  )
}

leakFree(
  'what a worker thread has closed survives its end',
  async (t) => {
    // A stream is destroyed, and its number given to a file of the main thread.
    // The worker's end must leave that open.
    const source = `
      import { once } from 'node:events'
      import { fstatSync, openSync } from 'node:fs'
      import { Worker } from 'node:worker_threads'
      const inside = \`
        import { once } from 'node:events'
        import { parentPort } from 'node:worker_threads'
        const { readableFrom } = await import('\${
          new URL('file://' + process.cwd() + '/lib/index.ts')
        }')
        const stream = readableFrom(3)
        stream.resume().destroy()
        await once(stream, 'close')
        parentPort.postMessage('closed')
        await once(parentPort, 'message')
      \`
      const worker = new Worker(inside, {
        eval: true,
        execArgv: ${JSON.stringify([...strip, '--input-type=module'])},
      })
      await once(worker, 'message')
      const opened = Array.from({ length: 20 }, () => openSync('package.json'))
      worker.postMessage('end')
      await once(worker, 'exit')
      for (const fd of opened) fstatSync(fd)
      console.log(opened.includes(3), 'all open')
    `
    const { r, w, shared } = await anonymousPipe(t)
    const { stdout, stderr } = await run(
      t,
      [...script('--input-type=module', '-e'), source],
      { stdio: ['ignore', 'pipe', 'pipe', r] },
    )
    t.equal(stdout, 'true all open\n', stderr)
    for (const fd of [r, w, shared]) closeFd(fd)
  },
  needsPython,
)

leakFree('a chunk that is gone while it waits is an error', async (t) => {
  const { read: r, write: w } = makePipe()
  for (const [name, ends] of Object.entries({
    'a pipe': { r, w },
    'a named FIFO': pipe(),
  })) {
    const { r, w } = ends
    const stream = writableFrom(w)
    const failed = once(stream, 'error')
    const detached = new Uint8Array(1024 * 1024)
    const written = new Promise((resolve) => stream.write(detached, resolve))
    // It is full by then, and the rest waits.
    await turns()
    structuredClone(detached, { transfer: [detached.buffer] })
    const reader = readableFrom(r)
    const closed = once(reader, 'close')
    reader.resume()
    const gone = { name: 'TypeError', message: /detached/ }
    t.match(await written, gone, name)
    t.match(await failed, [gone])
    await closed
  }
})

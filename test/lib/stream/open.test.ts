// Streams for descriptors that were received, as their users see them: on Linux
// and where there is no epoll. What holds on Linux only: stream.test.ts.

import { once } from 'node:events'
import {
  closeSync,
  openSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import type { Test } from 'tap'

import { tcpPair } from '../../../examples/gotchas/tcp-pair.ts'
import {
  duplexFrom,
  readableFrom,
  serviceSocket,
  waitReadable,
  writableFrom,
} from '../../../lib/index.ts'
import { host } from '../../../lib/layouts.ts'
import { allocate, check } from '../../../lib/libc.ts'
import * as calls from '../../../lib/socket/calls.ts'
import { duplicate, newSocketpair } from '../../../lib/socket/unix.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing } from '../../support/missing.ts'
import { anonymousPipe, pipe } from '../../support/pipes.ts'
import { lingering } from '../../support/sockets.ts'
import { turns, until } from '../../support/waiting.ts'
import {
  borrow,
  isClosed,
  modeOf,
  newTerminal,
  type Open,
  platforms,
  positionOf,
} from './support.ts'

const O_PATH = 0o10000000
const needsPython = missing('python3')

/** A test of all that both kinds of streams have to do. */
function onEach(
  name: string,
  body: (t: Test, streams: Open) => Promise<unknown>,
  skip: string | false = false,
): void {
  for (const [platform, load] of Object.entries(platforms)) {
    leakFree(`${name} (${platform})`, async (t) => body(t, await load(t)), skip)
  }
}

/** A megabyte in which no two places are the same. */
const megabyte = Buffer.from(
  Uint32Array.from({ length: 2 ** 18 }, (_, i) => i).buffer,
)

/** Reads to the end, slowly, and closes the descriptor. */
async function readSlowly(fd: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  for (;;) {
    await waitReadable(fd)
    const chunk = Buffer.alloc(10_000)
    const length = readSync(fd, chunk)
    if (length === 0) break
    chunks.push(chunk.subarray(0, length))
    await turns(1)
  }
  closeSync(fd)
  return Buffer.concat(chunks)
}

/** Reads from a terminal what was written to its other side, up to `last`. */
async function readUpTo(fd: number, last: string): Promise<string> {
  let all = ''
  while (!all.endsWith(last)) {
    await waitReadable(fd)
    const chunk = Buffer.alloc(10_000)
    all += chunk.toString('utf8', 0, readSync(fd, chunk))
  }
  return all
}

/** The next chunk. */
async function chunkOf(stream: Readable): Promise<Buffer> {
  const [chunk] = await once(stream, 'data')
  return chunk
}

/** Waits until a stream is closed; what it failed with, if it did. */
async function ended(stream: Readable | Writable): Promise<unknown> {
  stream.on('error', () => {})
  await until('a stream that is closed', () => stream.closed, 20)
  return stream.errored ?? undefined
}

onEach(
  'readableFrom() reads a file from the shared position, and moves it',
  async (t, { readableFrom }) => {
    const whole = readFileSync('package.json', 'utf8')
    const fd = openSync('package.json', 'r')
    const shared = duplicate(fd)
    readSync(shared, Buffer.alloc(10))
    t.equal(await text(readableFrom(fd)), whole.slice(10))
    t.equal(positionOf(shared), whole.length)
    closeSync(shared)
  },
)

onEach('readableFrom() reads devices', async (t, { readableFrom }) => {
  t.equal(await text(readableFrom(openSync('/dev/null', 'r'))), '')
  for (const path of ['/dev/zero', '/dev/urandom']) {
    const endless = readableFrom(openSync(path, 'r'))
    let length = 0
    for await (const chunk of endless) {
      if (path === '/dev/zero') t.ok(Buffer.alloc(chunk.length).equals(chunk))
      length += chunk.length
      // To leave the loop destroys the stream.
      if (length > 1e6) break
    }
    t.ok(endless.destroyed)
  }
})

onEach(
  'readableFrom() reads a pipe to its end',
  async (t, { readableFrom }) => {
    const { r, w, shared } = await anonymousPipe(t)
    const stream = readableFrom(r)
    for (const word of ['first', 'second']) {
      writeSync(w, word)
      t.equal(`${await chunkOf(stream)}`, word)
    }
    closeSync(w)
    t.equal(await text(stream), '')
    closeSync(shared)
  },
  needsPython,
)

onEach(
  'readableFrom() reads what a writer has left who is long gone',
  async (t, { readableFrom }) => {
    const anonymous = await anonymousPipe(t)
    closeSync(anonymous.shared)
    for (const { r, w } of [anonymous, pipe()]) {
      writeSync(w, 'last words')
      closeSync(w)
      t.equal(await text(readableFrom(r)), 'last words')
    }
  },
  needsPython,
)

onEach(
  'readableFrom() reads a FIFO, and what comes later',
  async (t, { readableFrom }) => {
    const { r, w } = pipe()
    const stream = readableFrom(r)
    const next = chunkOf(stream)
    await turns()
    writeSync(w, 'later')
    t.equal(`${await next}`, 'later')
    closeSync(w)
    t.equal(await ended(stream), undefined)
  },
)

onEach(
  'readableFrom() reads Unix sockets and TCP to their end',
  async (t, { readableFrom }) => {
    for (const [one, other] of [newSocketpair(), tcpPair()]) {
      const stream = readableFrom(one)
      writeSync(other, 'over the socket')
      t.equal(`${await chunkOf(stream)}`, 'over the socket')
      writeSync(other, 'and the last')
      closeSync(other)
      t.equal(await text(stream), 'and the last')
    }
  },
)

onEach(
  'readableFrom() reads a terminal line by line, to Ctrl-D, in its mode',
  async (t, { readableFrom }) => {
    const { master, slave } = await newTerminal(t)
    const mode = modeOf(slave)
    t.match(mode, /^[0-9a-f:]+\n$/)
    const shared = duplicate(slave)
    const stream = readableFrom(slave)
    for (const line of ['first\n', 'second\n']) {
      writeSync(master, line.slice(0, 3))
      await turns()
      writeSync(master, line.slice(3))
      t.equal(`${await chunkOf(stream)}`, line)
    }
    t.equal(modeOf(shared), mode)
    writeSync(master, '\x04')
    t.equal(await text(stream), '')
    t.equal(modeOf(shared), mode)
    for (const fd of [master, shared]) closeSync(fd)
  },
  missing('python3', 'stty'),
)

onEach(
  'writableFrom() writes to a file at the shared position, in order',
  async (t, { writableFrom }) => {
    const path = join(temporaryFolder(t), 'file')
    const fd = openSync(path, 'w')
    const shared = duplicate(fd)
    writeSync(shared, 'theirs\n')
    const stream = writableFrom(fd)
    // More than one write at a time: those behind the first wait in a queue.
    for (let i = 0; i < 10; i++) stream.write(`ours ${i}\n`)
    stream.end()
    t.equal(await ended(stream), undefined)
    writeSync(shared, 'theirs\n')
    const ours = Array.from({ length: 10 }, (_, i) => `ours ${i}\n`).join('')
    t.equal(readFileSync(path, 'utf8'), `theirs\n${ours}theirs\n`)
    closeSync(shared)
  },
)

onEach(
  'writableFrom() appends where the file was opened for that',
  async (t, { writableFrom }) => {
    const path = join(temporaryFolder(t), 'file')
    writeFileSync(path, 'first\n')
    const stream = writableFrom(openSync(path, 'a'))
    writeFileSync(path, 'second\n', { flag: 'a' })
    stream.end('third\n')
    t.equal(await ended(stream), undefined)
    t.equal(readFileSync(path, 'utf8'), 'first\nsecond\nthird\n')
  },
)

onEach(
  'writableFrom() writes to slow readers, all of it and in order',
  async (t, { writableFrom }) => {
    // This thread reads, too: if a write blocked it, nothing would go on.
    const anonymous = await anonymousPipe(t)
    closeSync(anonymous.shared)
    const fifo = pipe()
    for (const [r, w] of [
      [anonymous.r, anonymous.w],
      [fifo.r, fifo.w],
      newSocketpair(),
      tcpPair(),
    ] as const) {
      const stream = writableFrom(w)
      stream.write(megabyte.subarray(0, 1))
      stream.write(megabyte.subarray(1, 100_000))
      stream.end(megabyte.subarray(100_000))
      t.ok((await readSlowly(r)).equals(megabyte))
      t.ok(stream.writableFinished)
    }
  },
  needsPython,
)

onEach(
  'writableFrom() writes to a terminal',
  async (t, { writableFrom }) => {
    const { master, slave } = await newTerminal(t)
    const stream = writableFrom(slave)
    for (const word of ['one\n', 'two\n', 'three\n']) stream.write(word)
    const output = await readUpTo(master, 'three\r\n')
    t.equal(output, 'one\r\ntwo\r\nthree\r\n')
    stream.end()
    t.equal(await ended(stream), undefined)
    closeSync(master)
  },
  needsPython,
)

onEach(
  'writableFrom() writes to devices, and nothing at all',
  async (t, { writableFrom }) => {
    for (const path of ['/dev/null', '/dev/zero']) {
      const stream = writableFrom(openSync(path, 'w'))
      stream.write(megabyte)
      stream.write('')
      stream.end('')
      t.equal(await ended(stream), undefined)
      t.ok(stream.writableFinished)
    }
  },
)

onEach(
  'writableFrom() fails with EPIPE once nobody reads',
  async (t, { writableFrom }) => {
    for (const full of [false, true]) {
      const fifo = pipe()
      for (const [r, w] of [[fifo.r, fifo.w], newSocketpair()] as const) {
        const stream = writableFrom(w)
        if (full) {
          // It waits for room when the reader goes.
          stream.write(megabyte)
          await turns()
          closeSync(r)
        } else {
          closeSync(r)
          stream.write('x')
        }
        t.match(await ended(stream), { code: 'EPIPE', syscall: 'write' })
      }
    }
  },
)

onEach(
  'end() closes a socket, and does not shut it down',
  async (t, { writableFrom, duplexFrom, readableFrom }) => {
    const [one, other] = newSocketpair()
    const shared = duplicate(one)
    t.equal(await ended(writableFrom(duplicate(one)).end('first ')), undefined)
    const duplex = duplexFrom(one)
    duplex.end('second ')
    await once(duplex, 'finish')
    t.equal(await ended(readableFrom(duplicate(shared)).destroy()), undefined)
    t.equal(await ended(duplex.destroy()), undefined)
    writeSync(shared, 'third')
    closeSync(shared)
    t.equal(await text(readableFrom(other)), 'first second third')
  },
)

onEach(
  'duplexFrom() reads and writes a socket, until both sides end',
  async (t, { duplexFrom }) => {
    const [one, other] = newSocketpair()
    const stream = duplexFrom(one)
    stream.write('question')
    await waitReadable(other)
    const question = Buffer.alloc(100)
    t.equal(question.toString('utf8', 0, readSync(other, question)), 'question')
    stream.end()
    await once(stream, 'finish')
    writeSync(other, 'answer')
    t.equal(`${await chunkOf(stream)}`, 'answer', 'its own end is not the end')
    t.notOk(stream.destroyed)
    closeSync(other)
    t.equal(await ended(stream.resume()), undefined)
  },
)

onEach(
  'duplexFrom() reads no further ahead than it was told',
  async (t, { duplexFrom }) => {
    const stream = duplexFrom(openSync('/dev/zero', 'r+'))
    await once(stream, 'readable')
    await turns()
    const ahead = stream.readableLength
    t.ok(ahead > 0 && ahead < 1e6, `${ahead} bytes`)
    let length = 0
    stream.on('data', (chunk) => {
      length += chunk.length
    })
    await until('more than that', () => length > 2e6, 20)
    t.equal(await ended(stream.destroy()), undefined)
  },
)

onEach(
  'duplexFrom() reads and writes a terminal',
  async (t, { duplexFrom }) => {
    const { master, slave } = await newTerminal(t)
    const stream = duplexFrom(slave)
    stream.write('Name: ')
    t.equal(await readUpTo(master, 'Name: '), 'Name: ')
    writeSync(master, 'nobody\n')
    t.equal(`${await chunkOf(stream)}`, 'nobody\n')
    writeSync(master, '\x04')
    stream.end('Hello\n')
    t.equal(await ended(stream.resume()), undefined)
    t.equal(await readUpTo(master, 'Hello\r\n'), 'nobody\r\nHello\r\n')
    closeSync(master)
  },
  needsPython,
)

onEach(
  'destroy() closes, with or without an error',
  async (t, { readableFrom, writableFrom, duplexFrom }) => {
    const socket = (): number => {
      const [one, other] = newSocketpair()
      closeSync(other)
      return one
    }
    const file = (): number => openSync('/dev/null', 'r+')
    for (const make of [socket, file]) {
      for (const from of [readableFrom, writableFrom, duplexFrom]) {
        const fd = make()
        const stream = from(fd)
        t.equal(await ended(stream.destroy()), undefined)
        await until('closed', () => isClosed(fd), 20)

        const failed = from(make())
        const why = new Error('no more')
        const error = ended(failed)
        failed.destroy(why)
        t.equal(await error, why)
      }
    }
  },
)

onEach(
  'a signal destroys the stream, and closes the descriptor',
  async (t, { readableFrom, writableFrom, duplexFrom }) => {
    for (const from of [readableFrom, writableFrom, duplexFrom]) {
      const [one, other] = newSocketpair()
      const abort = new AbortController()
      const { signal } = abort
      const error = ended(from(one, { signal }))
      await turns()
      abort.abort(new Error('the reason'))
      t.match(await error, {
        name: 'AbortError',
        cause: { message: 'the reason' },
      })
      await until('closed', () => isClosed(one), 20)
      t.throws(() => writeSync(other, 'x'), { code: 'EPIPE' })
      closeSync(other)
    }
  },
)

onEach(
  'a signal that was aborted before does the same',
  async (t, { readableFrom, writableFrom, duplexFrom }) => {
    for (const from of [readableFrom, writableFrom, duplexFrom]) {
      const fd = openSync('/dev/null', 'r+')
      const stream = from(fd, { signal: AbortSignal.abort() })
      t.match(await ended(stream), { name: 'AbortError' })
      await until('closed', () => isClosed(fd), 20)
    }
  },
)

onEach(
  'a stream turns SO_LINGER off before it closes',
  async (t, { readableFrom, writableFrom, duplexFrom }) => {
    const { SOL_SOCKET, SO_LINGER } = host.constants
    const value = allocate(8)
    const length = allocate(4)
    for (const from of [readableFrom, writableFrom, duplexFrom]) {
      const [one, other] = newSocketpair()
      const shared = duplicate(one)
      const stream = from(one)
      // By the sender, as soon as we have it: 30 s.
      value.bytes.writeInt32LE(1)
      value.bytes.writeInt32LE(30, 4)
      const linger = [shared, SOL_SOCKET, SO_LINGER, value.address] as const
      check('setsockopt', calls.setsockopt(...linger, 8))
      t.equal(await ended(stream.destroy()), undefined)
      length.bytes.writeUInt32LE(8)
      check('getsockopt', calls.getsockopt(...linger, length.address))
      t.equal(value.bytes.readInt32LE(), 0)
      for (const fd of [shared, other]) closeSync(fd)
    }
  },
)

onEach(
  'a stream closes a socket that lingers, without waiting for its peer',
  async (t, { readableFrom }) => {
    const { fd, peer } = lingering()
    t.equal(await ended(readableFrom(fd).destroy()), undefined)
    await until('closed', () => isClosed(fd), 20)
    closeSync(peer)
    t.pass('an hour is not over')
  },
)

onEach(
  'streams work with pipeline()',
  async (t, { readableFrom, writableFrom }) => {
    const path = join(temporaryFolder(t), 'copy')
    const source = readableFrom(openSync('package-lock.json', 'r'))
    await pipeline(source, writableFrom(openSync(path, 'w')))
    t.ok(readFileSync(path).equals(readFileSync('package-lock.json')))
  },
)

/** Has `from` refuse a descriptor, and looks whether that is closed then. */
async function refused(
  t: Test,
  from: typeof readableFrom | typeof writableFrom | typeof duplexFrom,
  fd: number,
  message: string,
): Promise<void> {
  const [syscall, code] = message.split(' ')
  t.throws(() => from(fd), { code, syscall, message })
  await until('closed', () => isClosed(fd), 20)
}

leakFree('what may not be read or written is refused', async (t) => {
  const file = join(temporaryFolder(t), 'file')
  const writeOnly = 'read EBADF cannot read this: it is write-only'
  const readOnly = 'write EBADF cannot write this: it is read-only'
  for (const open of [
    () => openSync(file, 'w'),
    () => openSync('/dev/null', 'w'),
  ]) {
    await refused(t, readableFrom, open(), writeOnly)
    await refused(t, duplexFrom, open(), writeOnly)
  }
  for (const open of [
    () => openSync(file, 'r'),
    () => openSync('/dev/null', 'r'),
  ]) {
    await refused(t, writableFrom, open(), readOnly)
    await refused(t, duplexFrom, open(), readOnly)
  }
  const { r, w } = pipe()
  await refused(t, readableFrom, w, writeOnly)
  await refused(t, writableFrom, r, readOnly)
})

for (const path of ['/dev/zero', 'package.json', '/', '/dev/ptmx']) {
  leakFree(`an O_PATH descriptor of ${path} is refused`, async (t) => {
    for (const [from, call] of [
      [readableFrom, 'read'],
      [writableFrom, 'write'],
      [duplexFrom, 'read'],
    ] as const) {
      const why = `${call} EBADF cannot ${call} this: it is a path (O_PATH)`
      await refused(t, from, openSync(path, O_PATH), why)
    }
  })
}

leakFree(
  'what is no stream of bytes is refused',
  async (t) => {
    const why = (code: string, what: string): string =>
      `read ${code} cannot read this: it is ${what}`
    await refused(
      t,
      readableFrom,
      openSync('/', 'r'),
      why('EISDIR', 'a directory'),
    )
    const listening = serviceSocket('tcp', { host: '127.0.0.1', port: 0 })
    const listens = why('EINVAL', 'a socket that listens')
    await refused(t, readableFrom, listening, listens)

    const messages = 'a socket of messages, not of a stream of bytes'
    for (const type of ['seqpacket', 'datagram'] as const) {
      for (const fd of newSocketpair({ type })) {
        await refused(t, duplexFrom, fd, why('EINVAL', messages))
      }
    }
    const source = `
import ctypes
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
lend(udp.fileno(), ctypes.CDLL(None).eventfd(1, 0))`
    const { fds, lender } = await borrow(t, source)
    await lender.exit
    const [udp = -1, event = -1] = fds
    await refused(t, readableFrom, udp, why('EINVAL', messages))
    const noBytes = why('EINVAL', 'no stream of bytes')
    await refused(t, readableFrom, event, noBytes)
  },
  needsPython,
)

leakFree('what is not open is refused, and what is no number', async (t) => {
  const closed = openSync('/dev/null', 'r')
  closeSync(closed)
  for (const from of [readableFrom, writableFrom, duplexFrom]) {
    for (const fd of [closed, -1]) {
      t.throws(() => from(fd), { code: 'EBADF' })
    }
    for (const fd of [1.5, Number.NaN, 2 ** 32]) {
      t.throws(() => from(fd), {
        name: 'RangeError',
        message: `Expected a file descriptor, got ${fd}`,
      })
    }
  }
})

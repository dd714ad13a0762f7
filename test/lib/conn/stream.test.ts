// FdStream: a Duplex, with descriptors beside the bytes.

import { once } from 'node:events'
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { t } from 'tap'

import {
  FdStream,
  type FdStreamOptions,
  socketpair,
  waitReadable,
} from '../../../lib/index.ts'
import { host } from '../../../lib/layouts.ts'
import { systemError } from '../../../lib/libc.ts'
import { shutdownWriting } from '../../../lib/socket/unix.ts'
import { leakFree, openFds } from '../../support/descriptors.ts'
import { missing } from '../../support/missing.ts'
import { pipe } from '../../support/pipes.ts'
import { run, script } from '../../support/processes.ts'
import { asNewUser, missingNobody } from '../../support/users.ts'
import { turns, until } from '../../support/waiting.ts'

const ETOOMANYREFS = -host.constants.ETOOMANYREFS

function streams(options: FdStreamOptions = {}): [FdStream, FdStream] {
  const [a, b] = socketpair()
  return [new FdStream(a, options), new FdStream(b, options)]
}

/** What comes until the end. Unlike text(), leaves the other way open. */
async function read(stream: FdStream): Promise<string> {
  let all = ''
  stream.on('data', (chunk: Buffer) => {
    all += chunk
  })
  await once(stream, 'end')
  return all
}

/** So many descriptors to send. */
function files(count: number): number[] {
  return Array(count).fill(0)
}

async function closed(...all: FdStream[]): Promise<void> {
  for (const each of all) each.resume()
  await Promise.all(all.map((each) => each.closed || once(each, 'close')))
}

leakFree('bytes flow as on any stream, both ways, to the end', async (t) => {
  const [a, b] = streams()
  a.end('from a')
  b.end('from b')
  t.strictSame(await Promise.all([text(a), text(b)]), ['from b', 'from a'])
  await closed(a, b)
})

leakFree('allowHalfOpen: the other way goes on', async (t) => {
  const [a, b] = streams({ allowHalfOpen: true })
  a.end('question')
  t.equal(await read(b), 'question')
  b.end('answer')
  t.equal(await read(a), 'answer')
  await closed(a, b)
})

leakFree('writeWithFds() keeps its place among ordinary writes', async (t) => {
  const [a, b] = streams()
  const { r, w } = pipe()
  const seen: string[] = []
  let bytes = 0
  b.on('fds', (fds: number[]) => {
    for (const fd of fds) {
      const which = fstatSync(fd).ino === fstatSync(r).ino ? 'pipe' : 'other'
      seen.push(`${which} before byte ${bytes + 1}`)
      closeSync(fd)
    }
  })
  a.write(Buffer.alloc(1_000_000, '-'))
  a.write('1')
  a.writeWithFds('2', [r])
  a.write('3')
  a.writeWithFds('4', [w, r])
  a.end('5')
  let tail = ''
  b.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    tail = (tail + chunk).slice(-5)
  })
  await once(b, 'end')
  t.equal(bytes, 1_000_005)
  t.equal(tail, '12345')
  t.equal(seen.length, 3)
  for (const fd of [r, w]) closeSync(fd)
  b.end()
  await closed(a, b)
})

leakFree('writeWithFds() keeps nothing open that was sent', async (t) => {
  const [a, b] = streams()
  b.on('fds', (fds: number[]) => b.closeFds(fds))
  b.resume()
  const before = openFds()
  for (let i = 0; i < 5; i++) {
    a.writeWithFds('x', files(3))
    await until('all is sent', () => a.writableLength === 0)
  }
  await until('all is closed', () => openFds().length <= before.length)
  t.strictSame(openFds(), before, 'while the stream is open')
  for (const each of [a, b]) each.end()
  await closed(a, b)
})

leakFree('corked writes keep their order too', async (t) => {
  const [a, b] = streams()
  a.cork()
  a.write('x')
  a.writeWithFds('y', [0])
  a.write('z')
  a.uncork()
  a.end()
  const counts: number[] = []
  b.on('fds', (fds: number[]) => {
    counts.push(fds.length)
    for (const fd of fds) closeSync(fd)
  })
  t.equal(await read(b), 'xyz')
  t.strictSame(counts, [1])
  b.end()
  await closed(a, b)
})

leakFree(
  'writeWithFds() sends what the number meant at the call',
  async (t) => {
    const [a, b] = streams()
    const { r, w } = pipe()
    const inode = fstatSync(r).ino
    a.write(Buffer.alloc(2_000_000))
    const fds = [r]
    t.equal(a.writeWithFds('x', fds), false, 'full')
    closeSync(r)
    const impostor = openSync('package.json', 'r')
    t.equal(impostor, r, 'has taken the number')
    fds[0] = w
    a.end()
    const received = once(b, 'fds')
    b.resume()
    const [[fd = -1]] = await received
    t.equal(fstatSync(fd).ino, inode)
    for (const each of [fd, impostor, w]) closeSync(each)
    await once(b, 'end')
    b.end()
    await closed(a, b)
  },
)

leakFree('writeWithFds() refuses, and then writes nothing', async (t) => {
  const [a, b] = streams()
  for (const fds of [[0], []]) {
    t.throws(() => a.writeWithFds('', fds), {
      name: 'RangeError',
      message: 'Expected a byte to carry the descriptors, got none',
    })
  }
  t.throws(() => a.writeWithFds('x', [0, 99999]), { code: 'EBADF' })
  a.end('done')
  t.equal(await read(b), 'done')
  b.end()
  await closed(a, b)
})

leakFree(
  'backpressure: false when full, one drain when there is room',
  async (t) => {
    const [a, b] = streams()
    let drains = 0
    a.on('drain', () => drains++)
    t.equal(a.writeWithFds('x', [0]), true)
    while (a.write(Buffer.alloc(10_000)));
    t.equal(a.writeWithFds('y', [0]), false)
    b.on('fds', (fds: number[]) => {
      for (const fd of fds) closeSync(fd)
    })
    b.resume()
    await until('drain', () => drains > 0)
    t.equal(drains, 1)
    a.end()
    await once(b, 'end')
    b.end()
    await closed(a, b)
  },
)

leakFree('descriptors wait for a listener', async (t) => {
  const [a, b] = streams({ allowHalfOpen: true })
  a.writeWithFds('x', [0])
  a.writeWithFds('y', [0, 1])
  a.end()
  t.equal(await read(b), 'xy')
  const counts: number[] = []
  b.on('fds', (fds: number[]) => {
    counts.push(fds.length)
    for (const fd of fds) closeSync(fd)
  })
  await until('both', () => counts.length === 2)
  t.strictSame(counts, [1, 2])
  b.end()
  await closed(a, b)
})

leakFree(
  'destroy() closes what nobody took and what was not sent',
  async (t) => {
    const [a, b] = streams()
    const { r, w } = pipe()
    a.writeWithFds('x', [w])
    b.resume()
    await once(b, 'data')
    b.pause()
    a.write(Buffer.alloc(2_000_000))
    a.writeWithFds('y', [w])
    closeSync(w)
    a.on('error', () => {})
    b.on('error', () => {})
    a.destroy()
    b.destroy()
    await closed(a, b)
    await waitReadable(r)
    t.equal(
      readSync(r, Buffer.alloc(1)),
      0,
      'every copy of the write end is gone',
    )
    closeSync(r)
  },
)

leakFree(
  'destroy() while a message is on its way to the listener',
  async (t) => {
    const [a, b] = streams()
    a.writeWithFds('x', [0])
    // Read, but destroyed before the promise of the message is looked at.
    b.resume()
    await new Promise((resolve) => setImmediate(resolve))
    b.destroy()
    a.destroy()
    await closed(a, b)
    t.pass('nothing leaked')
  },
)

leakFree('a paused reader opens no more than its read-ahead', async (t) => {
  const [a, b] = streams()
  for (let i = 0; i < 50; i++) a.writeWithFds(Buffer.alloc(10_000), [0])
  let count = 0
  b.on('fds', (fds: number[]) => {
    count += fds.length
    for (const fd of fds) closeSync(fd)
  })
  b.once('data', () => b.pause())
  await once(b, 'data')
  await turns(100)
  t.ok(count < 10, `${count} of 50`)
  a.end()
  b.resume()
  await once(b, 'end')
  t.equal(count, 50)
  b.end()
  await closed(a, b)
})

leakFree('both sides flood each other before they read', async (t) => {
  const [a, b] = streams()
  for (const each of [a, b]) {
    for (let i = 0; i < 256; i++) each.write(Buffer.alloc(24 * 1024))
    each.end()
  }
  const sizes = await Promise.all(
    [a, b].map(async (each) => (await text(each)).length),
  )
  t.strictSame(sizes, [256 * 24 * 1024, 256 * 24 * 1024])
  await closed(a, b)
})

leakFree('a peer that goes away: an error to the writer, once', async (t) => {
  const [a, b] = streams()
  const errors: unknown[] = []
  a.on('error', (error) => errors.push(error))
  b.destroy()
  await closed(b)
  a.write('x')
  await until('close', () => a.closed)
  t.match(errors, [{ code: 'EPIPE' }])
  a.writeWithFds('later', [0])
  t.match(errors, [{ code: 'EPIPE' }])
})

leakFree('a failing receive destroys the stream with its error', async (t) => {
  const [a, b] = streams()
  const failed = once(b, 'error')
  b.write('unread')
  await new Promise((resolve) => setImmediate(resolve))
  b.resume()
  a.destroy()
  const [error] = await failed
  t.match(error, { code: 'ECONNRESET', syscall: 'recvmsg' })
  await closed(a, b)
})

leakFree('end() on a stream whose socket is closed fails', async (t) => {
  const [one, other] = socketpair()
  const stream = new FdStream(one)
  one.close()
  const failed = once(stream, 'error')
  stream.end()
  t.match(await failed, [{ code: 'EBADF', syscall: 'shutdown' }])
  other.close()
})

leakFree('ref(), unref() are passed on', async (t) => {
  const [a, b] = streams()
  t.equal(a.unref(), a)
  t.equal(a.ref(), a)
  a.destroy()
  b.destroy()
  await closed(a, b)
})

// The duplicates that writeWithFds() makes, by what is open that was not before.
function writeWithCopies(stream: FdStream, bytes: string, fds: number[]) {
  const before = openFds()
  stream.writeWithFds(bytes, fds)
  const copies = openFds().filter((line) => !before.includes(line))
  return copies.map((line) => Number.parseInt(line, 10))
}

for (const queue of ['corked', 'queued'] as const) {
  leakFree(`nothing is sent behind a ${queue} write that fails`, async (t) => {
    const [a, b] = streams()
    const errors: unknown[] = []
    a.on('error', (error) => errors.push(error))
    if (queue === 'corked') a.cork()
    a.write('1')
    const copies = writeWithCopies(a, '2', [0, 1])
    t.equal(copies.length, 2)
    const done: string[] = []
    a.write('3', (error) => done.push(`3 ${error ? 'failed' : 'was sent'}`))
    a.writeWithFds('4', [0])
    closeSync(copies[1] ?? -1)
    if (queue === 'corked') a.uncork()
    b.on('fds', () => t.fail('a descriptor came'))
    t.equal(await read(b), '1')
    await closed(a, b)
    t.match(errors, [{ code: 'EBADF', syscall: 'sendmsg' }])
    t.strictSame(done, ['3 failed'])
  })
}

// In flight are, of this user, as many descriptors as may be. Then a stream
// sends one more, with bytes around it; then those in flight are received.
const tooMany = `
import { closeSync } from 'node:fs'
import { FdStream, socketpair } from './lib/index.ts'
const [a, b] = socketpair()
let sent = 0
try { for (;; sent++) await a.sendFds('x', Array(20).fill(0)) }
catch (error) { console.log(error.code) }
const [one, other] = socketpair()
const stream = new FdStream(one)
stream.cork()
stream.write('1')
stream.writeWithFds('2', Array(20).fill(0))
stream.write('3')
stream.uncork()
const first = await other.recvFds()
console.log(String(first.data), first.fds.length)
for (let turn = 0; turn < 100; turn++) await new Promise(setImmediate)
console.log('waits', stream.writableLength > 0, stream.errored)
for (; sent > 0; sent--) {
  for (const fd of (await b.recvFds()).fds) closeSync(fd)
}
const second = await other.recvFds()
console.log(String(second.data), second.fds.length)
for (const fd of second.fds) closeSync(fd)
stream.destroy()
for (const conn of [a, b, other]) conn.close()
`

t.test(
  'too many descriptors in flight: a stream waits',
  { skip: missing('setpriv', 'prlimit') || missingNobody() },
  async (t) => {
    const limits = ['prlimit', '--nofile=128:128']
    const command = script('--input-type=module', '-e', tooMany)
    const { stdout, stderr } = await run(t, [
      ...asNewUser(),
      ...limits,
      ...command,
    ])
    const expected = ['ETOOMANYREFS', '1 0', 'waits true null', '23 20', '']
    t.equal(stdout, expected.join('\n'), stderr)
  },
)

leakFree('destroy() while a write waits for those in flight', async (t) => {
  const [one, other] = socketpair()
  const stream = new FdStream(one)
  let tries = 0
  const send = one.sendFds.bind(one)
  one.sendFds = async (data, fds) => {
    if (one.fd < 0) return send(data, fds)
    tries++
    throw Object.assign(new Error(), { code: 'ETOOMANYREFS' })
  }
  stream.writeWithFds('x', [0])
  await until('several tries', () => tries > 2)
  stream.destroy()
  await closed(stream)
  t.equal(await other.recvFds(), null, 'nothing was sent')
  other.close()
})

leakFree('reading stops while too many descriptors are held', async (t) => {
  const [a, b] = socketpair()
  const before = openFds().length
  const sends = Array.from({ length: 8 }, () => a.sendFds('x', files(230)))
  const stream = new FdStream(b)
  stream.resume()
  let most = 0
  for (let turn = 0; turn < 200; turn++) {
    await turns(1)
    most = Math.max(most, openFds().length - before)
  }
  t.equal(most, 2 * 230, 'two messages of 8: one is less than the limit')
  let count = 0
  stream.on('fds', (fds: number[]) => {
    count += fds.length
    for (const fd of fds) closeSync(fd)
  })
  await Promise.all(sends)
  a.close()
  await closed(stream)
  t.equal(count, 8 * 230)
})

leakFree('maxFds: the limit of a message, and of what is held', async (t) => {
  const [a, b] = socketpair()
  const before = openFds().length
  const stream = new FdStream(b, { maxFds: 3 })
  for (let i = 0; i < 9; i++) await a.sendFds('x', files(2))
  stream.resume()
  await until('two messages', () => openFds().length === before + 4)
  await turns(100)
  t.equal(openFds().length, before + 4)
  let count = 0
  stream.on('fds', (fds: number[]) => {
    count += fds.length
    for (const fd of fds) closeSync(fd)
  })
  await until('all', () => count === 18)
  const failed = once(stream, 'error')
  await a.sendFds('too many', files(4))
  t.match(await failed, [{ code: 'ERR_TOO_MANY_FDS' }])
  await closed(stream)
  a.close()
})

leakFree('with maxFds of them held, not one more is received', async (t) => {
  const [a, b] = socketpair()
  const before = openFds().length
  const stream = new FdStream(b, { maxFds: 2 })
  for (let i = 0; i < 5; i++) await a.sendFds('x', files(1))
  stream.resume()
  await until('two messages', () => openFds().length >= before + 2)
  await turns(100)
  t.equal(openFds().length, before + 2)
  stream.destroy()
  await closed(stream)
  a.close()
})

// Where the pauses grew without a bound, a stream that waited for a minute would
// be silent for another.
t.test('the pauses while descriptors are in flight have a bound', async (t) => {
  const pauses: number[] = []
  const { FdStream } = await t.mockImport<
    typeof import('../../../lib/conn/stream.ts')
  >('../../../lib/conn/stream.ts', {
    'node:timers/promises': {
      setTimeout: async (delay: number) => pauses.push(delay),
    },
  })
  const [one, other] = socketpair()
  let refusals = 10
  const sendFds = one.sendFds.bind(one)
  one.sendFds = async (data, fds) => {
    if (refusals-- > 0) throw systemError('sendmsg', ETOOMANYREFS)
    return sendFds(data, fds)
  }
  const stream = new FdStream(one)
  stream.write('x')
  t.equal(String((await other.recvFds())?.data), 'x')
  t.strictSame(pauses, [1, 2, 4, 8, 16, 32, 32, 32, 32, 32])
  stream.destroy()
  other.close()
})

leakFree('maxFds: 0 takes none', async (t) => {
  const [a, b] = socketpair()
  const stream = new FdStream(b, { maxFds: 0 })
  const first = once(stream, 'data')
  stream.resume()
  await a.sendmsg('bytes')
  t.equal(`${await first}`, 'bytes')
  const failed = once(stream, 'error')
  await a.sendFds('x', files(1))
  t.match(await failed, [{ code: 'ERR_TOO_MANY_FDS' }])
  await closed(stream)
  const [c, d] = socketpair()
  for (const maxFds of [-1, 1.5, Number.NaN]) {
    t.throws(() => new FdStream(c, { maxFds }), { name: 'RangeError' })
  }
  await c.sendmsg('still the connection of the caller')
  for (const conn of [a, c, d]) conn.close()
})

leakFree(
  'an FdStream is of a stream of bytes alone',
  async (t) => {
    const [a, b] = socketpair({ type: 'seqpacket' })
    t.throws(() => new FdStream(b), {
      name: 'TypeError',
      message: 'Expected a stream, got a seqpacket',
    })
    await a.sendmsg('still the connection of the caller')
    for (const conn of [a, b]) conn.close()
  },
  process.platform === 'darwin' && 'macOS has no such sockets',
)

leakFree('an FdStream refuses a maxFds below 0', async (t) => {
  const [a, b] = socketpair()
  t.throws(() => new FdStream(b, { maxFds: -1 }), {
    name: 'RangeError',
    message: /^Expected maxFds .*got -1$/,
  })
  await a.sendmsg('still the connection of the caller')
  for (const conn of [a, b]) conn.close()
})

leakFree('writeWithFds() refuses what is no descriptor', async (t) => {
  const [a, b] = streams()
  for (const fd of [Number.NaN, 1.5, 2 ** 32, 2 ** 32 + 1, -1, 2 ** 31]) {
    const message = `Expected a file descriptor, got ${fd}`
    t.throws(() => a.writeWithFds('x', [0, fd]), {
      name: 'RangeError',
      message,
    })
  }
  for (const count of [254, 1000]) {
    t.throws(() => a.writeWithFds('x', files(count)), {
      name: 'RangeError',
      message: new RegExp(`^Expected at most \\d+ desc.* got ${count}$`),
    })
  }
  b.on('fds', () => t.fail('a descriptor came'))
  a.end('still works')
  t.equal(await read(b), 'still works')
  await closed(a, b)
})

leakFree('closeFds() closes what no message claimed', async (t) => {
  const [a, b] = streams()
  a.writeWithFds('x', [0, 1])
  b.resume()
  const [fds] = await once(b, 'fds')
  b.closeFds(fds)
  // It is done in the thread pool.
  const isOpen = (fd: number): boolean =>
    openFds().some((line) => line.startsWith(`${fd} `))
  await until('they are closed', () => !fds.some(isOpen))
  for (const fd of fds) t.throws(() => fstatSync(fd), { code: 'EBADF' })
  a.destroy()
  b.destroy()
  await closed(a, b)
})

leakFree('destroy() as a write was sent closes no newcomer', async (t) => {
  const [one, other] = socketpair()
  const stream = new FdStream(one)
  const newcomers: number[] = []
  const send = one.sendFds.bind(one)
  one.sendFds = async (data, fds) => {
    await send(data, fds)
    // The stream does not know yet that it was sent.
    stream.destroy()
    for (let i = 0; i < 20 && newcomers.at(-1) !== fds[0]; i++) {
      newcomers.push(openSync('.', 'r'))
    }
  }
  stream.writeWithFds('x', [0])
  await until('a newcomer', () => newcomers.length > 0)
  await turns()
  for (const fd of newcomers) {
    t.ok(fstatSync(fd).isDirectory(), 'its owner keeps it')
    closeSync(fd)
  }
  for (const fd of (await other.recvFds())?.fds ?? []) closeSync(fd)
  other.close()
  await closed(stream)
})

const waits = `
import { FdStream, socketpair } from './lib/index.ts'
const [one, other] = socketpair()
const stream = new FdStream(one)
stream.on('data', (bytes) => { console.log(String(bytes)); stream.destroy() })
stream.unref()
if (process.argv[1] === 'ref') stream.ref()
setTimeout(() => other.sendmsg('received'), 50).unref()
`

t.test('ref(), unref(): reading keeps a process alive, or not', async (t) => {
  for (const [call, expected] of [
    ['unref', ''],
    ['ref', 'received\n'],
  ] as const) {
    const command = [...script('--input-type=module', '-e'), waits, call]
    const { code, stdout, stderr } = await run(t, command)
    t.equal(code, 0, stderr)
    t.equal(stdout, expected, call)
  }
})

leakFree('it takes the options of a Duplex', async (t) => {
  const [one, other] = socketpair()
  const controller = new AbortController()
  const stream = new FdStream(one, {
    writableHighWaterMark: 5,
    readableHighWaterMark: 6,
    encoding: 'utf8',
    signal: controller.signal,
  })
  t.equal(stream.writableHighWaterMark, 5)
  t.equal(stream.readableHighWaterMark, 6)
  t.equal(stream.allowHalfOpen, false)
  await other.sendmsg('text')
  t.strictSame(await once(stream, 'data'), ['text'])
  const failed = once(stream, 'error')
  controller.abort()
  t.match(await failed, [{ name: 'AbortError' }])
  await closed(stream)
  other.close()
})

leakFree(
  'it closes when the peer ends, with all that was written',
  async (t) => {
    const [one, other] = socketpair()
    const stream = new FdStream(one)
    stream.write(Buffer.alloc(500_000))
    stream.writeWithFds('last', [0])
    await other.sendmsg('bye')
    shutdownWriting(other.fd)
    t.equal(await read(stream), 'bye')
    let size = 0
    let count = 0
    for await (const { data, fds } of other) {
      size += data.length
      count += fds.length
      for (const fd of fds) closeSync(fd)
    }
    t.equal(size, 500_004)
    t.equal(count, 1)
    await closed(stream)
    t.equal(one.fd, -1)
    other.close()
  },
)

leakFree('Symbol.asyncDispose closes it', async (t) => {
  const [a, b] = streams()
  for (const stream of [a, b]) {
    stream.on('error', () => {})
    await stream[Symbol.asyncDispose]()
    t.equal(stream.destroyed, true)
  }
  await closed(a, b)
})

leakFree('descriptors that come as the stream is destroyed', async (t) => {
  const [one, other] = socketpair()
  const stream = new FdStream(one)
  const receive = one.recvFds.bind(one)
  one.recvFds = async (options) => {
    const message = await receive(options)
    stream.destroy()
    return message
  }
  await other.sendFds('x', [0])
  stream.on('fds', () => t.fail('nobody is there any more'))
  stream.resume()
  await until('close', () => stream.closed)
  t.equal(one.fd, -1)
  other.close()
})

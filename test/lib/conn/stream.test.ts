// FdStream: a Duplex, with descriptors beside the bytes.

import { once } from 'node:events'
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { text } from 'node:stream/consumers'

import {
  FdStream,
  type FdStreamOptions,
  socketpair,
} from '../../../lib/index.ts'
import { leakFree, pipe, until } from '../../support.ts'

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
  t.throws(() => a.writeWithFds('', [0]), { name: 'RangeError' })
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
  await new Promise((resolve) => setTimeout(resolve, 20))
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

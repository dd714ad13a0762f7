// frames.ts: lines of JSON with descriptors, however the bytes are cut.

import { closeSync, fstatSync, openSync } from 'node:fs'

import { type Frame, framesOf, sendFrame } from '../../../lib/conn/frames.ts'
import { socketpair, type UnixConn } from '../../../lib/index.ts'
import { leakFree } from '../../support/descriptors.ts'
import { pipe } from '../../support/pipes.ts'

async function collect(conn: UnixConn, options = {}): Promise<Frame[]> {
  const frames: Frame[] = []
  try {
    for await (const frame of framesOf(conn, options)) frames.push(frame)
    return frames
  } catch (error) {
    for (const fd of frames.flatMap(({ fds }) => fds)) closeSync(fd)
    throw error
  }
}

/** What framesOf() says to one piece of bytes and the end of file. */
async function problemWith(
  bytes: string | Uint8Array,
  fds: readonly number[] = [],
  options = {},
): Promise<string> {
  const [a, b] = socketpair()
  await a.sendFds(bytes, fds)
  a.close()
  try {
    await collect(b, options)
    return 'none'
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  } finally {
    b.close()
  }
}

leakFree('sendFrame(), framesOf() keep order and descriptors', async (t) => {
  const [a, b] = socketpair()
  const { r, w } = pipe()
  const file = openSync('package.json', 'r')
  await Promise.all([
    sendFrame(a, { n: 1 }),
    sendFrame(a, { n: 2 }, [r]),
    sendFrame(a, { n: 3, text: 'ä\n' }, [w, file]),
    sendFrame(a, { n: 4 }),
  ])
  a.close()
  const frames = await collect(b, { maxFds: 2 })
  t.strictSame(
    frames.map(({ value }) => value),
    [
      { n: 1, fds: 0 },
      { n: 2, fds: 1 },
      { n: 3, text: 'ä\n', fds: 2 },
      { n: 4, fds: 0 },
    ],
  )
  const identity = (fd: number): string => {
    const { dev, ino } = fstatSync(fd)
    return `${dev}:${ino}`
  }
  const got = frames.flatMap(({ fds }) => fds)
  t.strictSame(got.map(identity), [r, w, file].map(identity))
  for (const fd of [...got, r, w, file]) closeSync(fd)
  b.close()
})

// What a peer that knows nothing of sendFrame() may do.
leakFree(
  'framesOf() gives the same frames wherever the bytes are cut',
  async (t) => {
    const [a, b] = socketpair()
    const { r, w } = pipe()
    const lines = '{"n":1,"fds":0}\n{"n":2,"fds":1}\n{"n":3,"fds":1}\n'
    const at = lines.indexOf('{"n":2')
    const frames = framesOf(b, { maxFds: 1 })
    // The first line and a half run together, as they do behind a slow reader.
    await a.sendFds(lines.slice(0, at), [])
    await a.sendFds(lines.slice(at, at + 3), [r])
    const first = await frames.next()
    t.match(first.value, { value: { n: 1 }, fds: [] })
    for (const byte of lines.slice(at + 3, -16)) await a.sendFds(byte, [])
    const second = await frames.next()
    t.match(second.value, { value: { n: 2 }, fds: [Number] })
    await a.sendFds(lines.slice(-16), [w])
    const third = await frames.next()
    t.match(third.value, { value: { n: 3 }, fds: [Number] })
    t.equal(fstatSync(third.value?.fds[0] ?? -1).ino, fstatSync(w).ino)
    a.close()
    t.match(await frames.next(), { done: true })
    for (const frame of [second, third]) {
      for (const fd of frame.value?.fds ?? []) closeSync(fd)
    }
    for (const fd of [r, w]) closeSync(fd)
    b.close()
  },
)

// The order of macOS and FreeBSD: a piece goes on after the line of the fd.
leakFree('a descriptor may belong to any line of its piece', async (t) => {
  const [a, b] = socketpair()
  const { r, w } = pipe()
  const frames = framesOf(b, { maxFds: 1 })
  await a.sendFds('{"fds":0}\n{"fds":1}\n{"fd', [r])
  t.match((await frames.next()).value, { fds: [] })
  const { value } = await frames.next()
  t.match(value, { fds: [Number] })
  await a.sendFds('s":0}\n', [])
  t.match((await frames.next()).value, { fds: [] })
  for (const fd of [...(value?.fds ?? []), r, w]) closeSync(fd)
  a.close()
  b.close()
})

leakFree('framesOf() refuses what is no frame', async (t) => {
  for (const line of ['', 'hello', '[]', 'null', '1', '{"fds":0']) {
    const expected = `Expected a JSON object, got ${JSON.stringify(line)}`
    t.equal(await problemWith(`${line}\n`), expected)
  }
  const long = await problemWith(`${'x'.repeat(4000)}\n`)
  t.equal(long, `Expected a JSON object, got "${'x'.repeat(80)}"`)
  for (const count of ['-1', '0.5', '"0"', '1']) {
    t.equal(
      await problemWith(`{"fds":${count}}\n`),
      `Expected "fds" as one of 0 to 0, as many as came, got ${count}`,
    )
  }
  t.match(await problemWith('{}\n'), /got undefined$/)
  t.match(await problemWith('{"fds"'), /^Expected a line, got its first 6 byt/)
  t.equal(await problemWith('{"fds":0}\n'), 'none')
})

leakFree('framesOf() keeps no more than a line', async (t) => {
  const expected = 'Expected a line of at most 4096 bytes, got more'
  t.equal(await problemWith('x'.repeat(4097)), expected)
  t.equal(await problemWith(`${'x'.repeat(4097)}\n`), expected)
  const longest = `{"fds":0${' '.repeat(4087)}}\n`
  t.equal(await problemWith(longest), 'none')
  t.match(await problemWith(longest, [], { maxBytes: 4095 }), /most 4095/)
  for (const maxBytes of [0, Number.NaN]) {
    t.match(await problemWith(longest, [], { maxBytes }), /^Expected maxBytes/)
  }
})

leakFree('framesOf() closes descriptors that no line claims', async (t) => {
  const fds = [0, 0]
  t.match(await problemWith('{"fds":0}\n', [0]), /^Expected at most 0 desc/)
  t.match(await problemWith('{"fds":1}\n', fds, { maxFds: 1 }), /got 2/)
  t.equal(
    await problemWith('{"fds":1}\n', fds, { maxFds: 2 }),
    'Expected no more descriptors, got 1: closed',
  )
  // Half a line may have them, but must end.
  t.match(await problemWith('{"fds"', [0], { maxFds: 1 }), /first 6 bytes/)
  // And may not gather them, byte by byte.
  const [a, b] = socketpair()
  for (const byte of '{"f') await a.sendFds(byte, [0])
  await t.rejects(collect(b, { maxFds: 2 }), /no more descriptors, got 3/)
  a.close()
  b.close()
})

leakFree('framesOf() ends when the connection is closed here', async (t) => {
  const [a, b] = socketpair()
  await a.sendFds('{"half', [])
  const frames = collect(b)
  // The half line is taken in before the generator waits for the rest.
  setImmediate(() => b.close())
  t.strictSame(await frames, [])
  a.close()
})

leakFree('a line of 32 MiB arrives', async (t) => {
  const MIB = 2 ** 20
  const [a, b] = socketpair()
  const text = 'megabyte'.repeat((32 * MIB) / 8)
  const sending = sendFrame(a, { text }, [0]).then(() =>
    sendFrame(a, { text: 'next' }),
  )
  const frames = framesOf(b, { maxFds: 1, maxBytes: 64 * MIB })
  const { value: first } = await frames.next()
  t.ok(first?.value.text === text, 'whole')
  t.equal(first?.fds.length, 1)
  for (const fd of first?.fds ?? []) closeSync(fd)
  t.match((await frames.next()).value, { value: { text: 'next' }, fds: [] })
  await sending
  for (const conn of [a, b]) conn.close()
})

leakFree('a line may come byte by byte, and many in one piece', async (t) => {
  const [a, b] = socketpair()
  const lines = Array.from({ length: 1000 }, (_, n) => `{"n":${n},"fds":0}\n`)
  const sending = a.sendmsg(lines.join('')).then(async () => {
    for (const byte of lines.slice(0, 20).join('')) await a.sendmsg(byte)
    a.close()
  })
  const frames = await collect(b)
  await sending
  const counted = frames.map(({ value }) => value.n)
  const expected = Array.from({ length: 1000 }, (_, n) => n)
  t.strictSame(counted, [...expected, ...expected.slice(0, 20)])
  b.close()
})

leakFree('sendFrame() refuses what framesOf() would refuse', async (t) => {
  const [a, b] = socketpair()
  for (const text of ['[1]', 'null', '"x"', '{"fds":0}']) {
    const sending = sendFrame(a, JSON.parse(text))
    await t.rejects(sending, { name: 'TypeError', message: /without "fds"/ })
  }
  await t.rejects(sendFrame(a, {}, [99_999]), { code: 'EBADF' })
  await sendFrame(a, { ok: true })
  a.close()
  t.match(await collect(b), [{ value: { ok: true, fds: 0 }, fds: [] }])
  b.close()
})

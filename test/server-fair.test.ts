// server.ts where one client has much to print, its output is not read, or a
// descriptor fails.

import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { connect } from '../lib/index.ts'
import { newSocketpair } from '../lib/socket/unix.ts'
import { openFds, settledFds } from './support/descriptors.ts'
import { temporaryFolder } from './support/folder.ts'
import { missing } from './support/missing.ts'
import { Running, run, script, startServer } from './support/processes.ts'
import { until } from './support/waiting.ts'

/** server.ts, with its output in a file: faster than to read it from a pipe. */
async function startToFile(t: Test) {
  const folder = temporaryFolder(t)
  const path = join(folder, 's')
  const printed = join(folder, 'printed')
  const out = openSync(printed, 'w')
  const server = new Running(t, script('server.ts', path), {
    stdio: ['ignore', out, 'pipe'],
  })
  closeSync(out)
  const output = (): Buffer => readFileSync(printed)
  await until('the server', () => output().includes('Server ready'))
  return { folder, path, server, output }
}

/** A client that has sent `file`, opened five times, and stays connected. */
async function sendFiveTimes(path: string, file: string) {
  const fds = Array.from({ length: 5 }, () => openSync(file, 'r'))
  const conn = await connect(path)
  await conn.sendFds('five files', fds)
  for (const fd of fds) closeSync(fd)
  return conn
}

t.test('files that are no text delay no other client', async (t) => {
  const { folder, path, server, output } = await startToFile(t)

  const file = join(folder, 'sparse')
  writeFileSync(file, '')
  truncateSync(file, 16 * 1024 * 1024)
  const flood = await sendFiveTimes(path, file)
  const first = /client 1> (\\u0000)+\n/
  await until('its first line', () => first.test(`${output()}`))

  const other = await run(t, script('client.ts', path), { input: 'a\nb\n' })
  flood.close()
  t.equal(other.code, 0)
  const [, between = ''] =
    /client 2: says((?:.|\n)*?)client 2> b\n/.exec(`${output()}`) ?? []
  t.match(between, 'client 2> a\n')
  // One line of 16 million zeros would be 100 million characters.
  t.ok(between.length < 20_000_000, `${between.length} characters in between`)
  await until('its end', () => output().includes('client 1: hung up'))
  server.child.kill('SIGINT')
  t.equal((await server.exit).code, 0)
})

t.test('an input that fails is told once, and closed', async (t) => {
  const { path, server } = await startServer(t)
  const before = await settledFds(server.pid)
  const [near, far] = newSocketpair()
  const conn = await connect(path)
  await conn.sendFds('a socket', [near])
  await server.printed(/client 1: fd \d+ here, fd 0 there: socket/)
  // Closed with bytes unread: the other end gets ECONNRESET.
  writeSync(near, 'unread')
  closeSync(near)
  closeSync(far)
  t.equal(`${(await conn.recvmsg())?.data}`, 'read ECONNRESET')
  conn.close()
  await until(
    'as many descriptors as before',
    () => openFds(server.pid).length === before.length,
  )
  server.child.kill('SIGINT')
  await server.exit
  t.match(server.stdout, /client 1: read ECONNRESET\nServer stopped\n$/)
})

t.test(
  'the end of the server is not told as the end of its clients',
  async (t) => {
    const { path, server } = await startServer(t)
    const before = await settledFds(server.pid)
    const silent = await connect(path)
    t.teardown(() => silent.close())
    await until(
      'the server has accepted the connection',
      () => openFds(server.pid).length > before.length,
    )
    const [near, far] = newSocketpair()
    t.teardown(() => closeSync(far))
    const reading = await connect(path)
    t.teardown(() => reading.close())
    await reading.sendFds('a socket', [near])
    closeSync(near)
    await server.printed(/client 1: fd \d+ here/)
    server.child.kill('SIGINT')
    t.equal((await server.exit).code, 0)
    t.match(server.stdout, /client 1: connected, .*\n/)
    t.match(server.stdout, /client 1: fd .*\nServer stopped\n$/)
    t.equal(server.stderr, '')
  },
)

t.test(
  'a server whose output nobody reads ends at its next line',
  { skip: missing('head') },
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const pipeline = '"$@" | head -1'
    const command = script('server.ts', path)
    const server = new Running(t, ['sh', '-c', pipeline, 'sh', ...command])
    await server.printed(/^Server ready on .*\n/)
    const client = await run(t, script('client.ts', path), { input: 'a\n' })
    t.equal(client.code, 1)
    t.match(client.stderr, 'The server went away')
    await server.exit
    t.equal(server.stderr, '')
    t.notOk(existsSync(path), 'it leaves no file')
  },
)

t.test('what clients say cannot act on the terminal', async (t) => {
  const { path, server } = await startServer(t)
  const folder = temporaryFolder(t)
  const file = join(folder, 'file')
  writeFileSync(file, 'a\x1b[2Jb\rclient 9> c\u009b1m\u202ed\x7f zwölf\t€\n')
  const conn = await connect(path)
  const fd = openSync(file, 'r')
  await conn.sendFds('\u009b2J\r\u2066', [fd])
  closeSync(fd)
  await server.printed(/client 1: End of input/)
  conn.close()
  t.match(server.stdout, 'client 1: says "\\u009b2J\\r\\u2066"\n')
  t.match(
    server.stdout,
    'client 1> a\\u001b[2Jb\\rclient 9> c\\u009b1m\\u202ed\\u007f zwölf\t€\n',
  )
})

for (const file of [
  'server.ts',
  'examples/lend-stdout/server.ts',
  'examples/stdout/server.ts',
  'examples/two-files/server.ts',
]) {
  t.test(`${file} has 50 clients at a time`, async (t) => {
    const { path, server } = await startServer(t, file)
    const before = await settledFds(server.pid)
    const silent = await Promise.all(
      Array.from({ length: 50 }, () => connect(path)),
    )
    t.teardown(() => {
      for (const conn of silent) conn.close()
    })
    await until(
      'the server has accepted them',
      () => openFds(server.pid).length === before.length + 50,
    )
    const next = await connect(path)
    t.teardown(() => next.close())
    await next.sendmsg('hello')
    t.strictSame(await settledFds(server.pid), openFds(server.pid))
    t.equal(openFds(server.pid).length, before.length + 50)
    t.notMatch(server.stdout, 'lient 1')
    silent[0]?.close()
    await server.printed(/lient 1/)
  })
}

t.test(
  'a million queued descriptors delay no other client',
  { skip: missing('strace') },
  async (t) => {
    const folder = temporaryFolder(t)
    const path = join(folder, 's')
    const calls = join(folder, 'calls')
    const server = new Running(t, [
      ...['strace', '-f', '-q', '-c', '-o', calls, '-e', 'trace=close'],
      ...script('server.ts', path),
    ])
    await server.printed(/^Server ready on/m)
    const fd = openSync('/dev/null', 'r')
    const fds = new Array<number>(253).fill(fd)
    const floods = Array.from({ length: 20 }, async () => {
      const conn = await connect(path)
      const sends = Array.from({ length: 200 }, () => conn.sendFds('x', fds))
      await Promise.allSettled(sends)
      conn.close()
    })
    await Promise.all(floods)
    closeSync(fd)
    const other = await run(t, script('client.ts', path), { input: 'a\n' })
    t.equal(other.code, 0, other.stderr)
    process.kill(Number(/pid (\d+)/.exec(server.stdout)?.[1]), 'SIGINT')
    await server.exit
    // It closes what it has received: two messages of each client at most. What
    // is still queued when it hangs up, the kernel closes.
    const [, count = ''] =
      /(\d+)\s+(?:\d+\s+)?close$/m.exec(readFileSync(calls, 'utf8')) ?? []
    t.ok(
      Number(count) > 0 && Number(count) < 100_000,
      `${count} calls of close`,
    )
  },
)

// examples/two-files, run as a user runs it, and against its peers in C.

import { execFileSync } from 'node:child_process'
import { closeSync, existsSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { t } from 'tap'

import { connect } from '../../lib/index.ts'
import { compileC } from '../support/c.ts'
import { settledFds } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { missing } from '../support/missing.ts'
import { pipe } from '../support/pipes.ts'
import { Running, run, script, startServer } from '../support/processes.ts'
import { until } from '../support/waiting.ts'
import { noMoreFds, tellsUsage } from './support.ts'

const SERVER = 'examples/two-files/server.ts'
const CLIENT = 'examples/two-files/client.ts'

/** Files named after what is in them. */
function filesIn(folder: string, ...names: string[]): string[] {
  return names.map((name) => {
    const file = join(folder, name)
    writeFileSync(file, `this is ${name}\n`)
    return file
  })
}

t.test('the server prints both files, in order', async (t) => {
  const folder = temporaryFolder(t)
  const socket = join(folder, 's')
  const { server } = await startServer(t, SERVER, socket)
  const files = filesIn(folder, 'one', 'two')
  const client = await run(t, script(CLIENT, '-s', socket, ...files))
  t.match(client, { code: 0, stderr: '' })
  t.match(client.stdout, /^(Opened fd \d+ in parent\n){2}$/)
  await server.printed(
    /Reading from passed fd \d+\nthis is one\nReading from passed fd \d+\nthis is two$/m,
  )
  server.child.kill('SIGINT')
  t.match(await server.exit, { code: 0 })
  t.notOk(existsSync(socket))
})

t.test('any number of files, and of clients at once', async (t) => {
  const folder = temporaryFolder(t)
  const socket = join(folder, 's')
  const { server } = await startServer(t, SERVER, socket)
  const names = Array.from({ length: 99 }, (_, index) => `file ${index}`)
  const files = filesIn(folder, ...names)
  const client = await run(t, script(CLIENT, '-s', socket, ...files))
  t.match(client, { code: 0, stderr: '' })
  await server.printed(/this is file 98$/m)
  t.same(server.stdout.match(/file \d+$/gm), names)

  const [file = ''] = files
  for (let count = 0; count < 20; count++) {
    const conn = await connect(socket)
    const fd = openSync(file, 'r')
    await conn.sendFds('x', [fd])
    closeSync(fd)
    conn.close()
  }
  await until('all are printed', () => {
    return server.stdout.match(/this is file 0$/gm)?.length === 21
  })
  t.equal(server.stderr, '')
})

t.test(
  'a file that cannot be read: an error, and nothing is sent',
  async (t) => {
    const folder = temporaryFolder(t)
    const socket = join(folder, 's')
    const { server } = await startServer(t, SERVER, socket)
    const [good = ''] = filesIn(folder, 'good')
    const absent = join(folder, 'absent')
    for (const [bad, line] of [
      [
        absent,
        `client.ts: ENOENT: no such file or directory, open '${absent}'`,
      ],
      [
        folder,
        `client.ts: Expected a file to read, got a directory: ${folder}`,
      ],
    ] as const) {
      const client = await run(t, script(CLIENT, '-s', socket, good, bad))
      t.match(client, { code: 1, stderr: `${line}\n` })
    }
    const asked = await run(t, script(CLIENT, '-s', socket, good))
    t.equal(asked.code, 0)
    await server.printed(/this is good/)
    t.equal(server.stdout.match(/passed fd/g)?.length, 1)
  },
)

t.test(
  'the server meets the client in C',
  {
    skip: missing('cc'),
  },
  async (t) => {
    const folder = temporaryFolder(t)
    const program = compileC(folder, 'test/peers/two-files.c')
    const socket = join(folder, 's')
    const { server } = await startServer(t, SERVER, socket)
    const files = filesIn(folder, 'one', 'two')
    t.match(await run(t, [program, 'client', socket, ...files]), { code: 0 })
    await server.printed(
      /fd \d+\nthis is one\nReading from passed fd \d+\nthis is two$/m,
    )
    t.equal(server.stderr, '')
  },
)

t.test(
  'the client meets the server in C',
  {
    skip: missing('cc'),
  },
  async (t) => {
    const folder = temporaryFolder(t)
    const program = compileC(folder, 'test/peers/two-files.c')
    const socket = join(folder, 's')
    const server = new Running(t, [program, 'server', socket])
    await server.printed(/listening/)
    const files = filesIn(folder, 'one', 'two')
    const client = await run(t, script(CLIENT, '-s', socket, ...files))
    t.match(client, { code: 0, stderr: '' })
    t.match(await server.exit, { code: 0 })
    t.equal(server.stdout, 'fd 0:\nthis is one\nfd 1:\nthis is two\n')
  },
)

t.test(
  'a peer that does it wrong gets one line',
  {
    skip: missing('mkfifo'),
  },
  async (t) => {
    const folder = temporaryFolder(t)
    const socket = join(folder, 's')
    const { server } = await startServer(t, SERVER, socket)
    const [file = ''] = filesIn(folder, 'file')
    await run(t, script(CLIENT, '-s', socket, file))
    await server.printed(/this is file/)
    const before = await settledFds(server.pid)

    async function pass(...fds: number[]): Promise<void> {
      const conn = await connect(socket)
      // The server hangs up once it has the first of these bytes.
      await conn.sendFds(Buffer.alloc(100_000), fds).catch((error) => {
        t.match(error.code, /^(EPIPE|ECONNRESET)$/)
      })
      for (const fd of fds) closeSync(fd)
      conn.close()
    }
    const silent = await connect(socket)
    await pass()
    await server.printed(/^client 2: No descriptor came$/m)
    await pass(openSync('/dev/null', 'w'), openSync(file, 'r'))
    await server.printed(/^client 3: read EBADF .* write-only$/m)
    await pass(openSync(folder, 'r'))
    await server.printed(/^client 4: read EISDIR .*$/m)
    const hasty = await connect(socket)
    hasty.close()

    // A pipe that nobody writes to, which the next client has not to wait for.
    const fifo = join(folder, 'fifo')
    execFileSync('mkfifo', [fifo])
    const writer = openSync(fifo, 'r+')
    await pass(openSync(fifo, 'r'))
    await until('it waits for the pipe', () => {
      return server.stdout.match(/Reading from/g)?.length === 4
    })
    await pass(openSync(file, 'r'))
    await until('the other is printed', () => {
      return server.stdout.match(/this is file/g)?.length === 2
    })
    closeSync(writer)
    silent.close()
    await noMoreFds(t, server, before)
    t.equal(server.stderr, '')
  },
)

t.test('who sends its own end and leaves is not waited for', async (t) => {
  const { path, server } = await startServer(t, SERVER)
  const before = await settledFds(server.pid)
  const conn = await connect(path)
  await conn.sendFds('my own end', [conn.fd])
  conn.close()
  // As long as its end is open here, the connection has none.
  await server.printed(/client 1: Expected bytes or the end within 5 s/)
  await noMoreFds(t, server, before)
  server.child.kill('SIGINT')
  t.match(await server.exit, { code: 0 })
})

t.test('who sends both ends of a pipe and leaves is not served', async (t) => {
  const { path, server } = await startServer(t, SERVER)
  const before = await settledFds(server.pid)
  for (const count of [1, 2]) {
    const conn = await connect(path)
    const { r, w } = pipe()
    await conn.sendFds('both', count === 1 ? [r, w] : [w, r])
    for (const fd of [r, w]) closeSync(fd)
    conn.close()
    const line = 'Expected descriptors to read, got the write end of a pipe'
    await server.printed(new RegExp(`^client ${count}: ${line}$`, 'm'))
  }
  await noMoreFds(t, server, before)
  t.notMatch(server.stdout, /Reading from/, 'nothing was taken out of them')
  server.child.kill('SIGINT')
  t.match(await server.exit, { code: 0 })
})

t.test('Ctrl-C ends a server that is reading', async (t) => {
  const folder = temporaryFolder(t)
  const socket = join(folder, 's')
  const { server } = await startServer(t, SERVER, socket)
  const conn = await connect(socket)
  // Its own end of the connection: it will hear nothing there.
  await conn.sendFds('x', [conn.fd])
  await server.printed(/Reading from passed fd/)
  server.child.kill('SIGINT')
  t.match(await server.exit, { code: 0 })
  t.notOk(existsSync(socket))
  conn.close()
})

t.test('a wrong command line, no server', async (t) => {
  const folder = temporaryFolder(t)
  const [file = ''] = filesIn(folder, 'file')
  await tellsUsage(t, SERVER, ['--nope'], ['a', 'b'])
  await tellsUsage(t, CLIENT, ['--nope'], [])
  const socket = join(folder, 's')
  const alone = await run(t, script(CLIENT, '-s', socket, file))
  t.equal(alone.code, 1)
  t.match(alone.stderr, /^client.ts: No server on .*: start .*server.ts.*\n$/)
})

t.test(
  'on a terminal, control characters of a file are shown',
  { skip: missing('python3') },
  async (t) => {
    const folder = temporaryFolder(t)
    const socket = join(folder, 's')
    const file = join(folder, 'file')
    writeFileSync(file, 'a\x1b[2Jb\rc €\n')
    const python = 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)'
    const command = ['python3', '-c', python, ...script(SERVER, socket)]
    const server = new Running(t, command)
    await server.printed(/Server ready/)
    const client = await run(t, script(CLIENT, '-s', socket, file))
    t.equal(client.code, 0)
    await server.printed(/^a\\u001b\[2Jb\\rc €\r?$/m)
  },
)

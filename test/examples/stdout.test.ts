// examples/stdout, run as a user runs it, and against its peers in C.

import { closeSync, existsSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { t } from 'tap'

import { connect } from '../../lib/index.ts'
import { compileC } from '../support/c.ts'
import { settledFds } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { missing } from '../support/missing.ts'
import { Running, run, script, startServer } from '../support/processes.ts'
import { lingering, readToEnd } from '../support/sockets.ts'
import { until } from '../support/waiting.ts'
import { noMoreFds, tellsUsage } from './support.ts'

const SERVER = 'examples/stdout/server.ts'
const CLIENT = 'examples/stdout/client.ts'
const LINE = 'This message will be displayed on client stdout\n'

t.test('a line of the server’s appears at every client', async (t) => {
  const socket = join(temporaryFolder(t), 's')
  const { server } = await startServer(t, SERVER, socket)
  const clients = await Promise.all(
    [1, 2, 3].map(() => run(t, script(CLIENT, socket))),
  )
  for (const { code, stdout, stderr } of clients) {
    t.equal(stdout, LINE)
    t.equal(stderr, '')
    t.equal(code, 0)
  }
  await server.printed(/client 3: fd \d+ here is fd 1 of child \d+/)
  await until('three children done', () => {
    return server.stdout.split('printed there, exit code 0').length === 4
  })
  t.notMatch(server.stdout, LINE, 'and not at the server')
  const children = server.stdout.match(/child \d+$/gm)
  t.equal(new Set(children).size, 3, 'one child each')

  server.child.kill('SIGINT')
  t.match(await server.exit, { code: 0 })
  t.match(server.stdout, /Server stopped\n$/)
  t.notOk(existsSync(socket), 'Ctrl-C removes the socket file')
})

t.test('a peer that does it wrong gets one line', async (t) => {
  const socket = join(temporaryFolder(t), 's')
  const { server } = await startServer(t, SERVER, socket)
  await run(t, script(CLIENT, socket))
  await server.printed(/client 1: printed there/)
  const before = await settledFds(server.pid)

  const silent = await connect(socket)
  t.teardown(() => silent.close())

  const wrong = [
    { fds: [], line: 'No descriptor came' },
    { fds: ['w', 'w'], line: 'Expected at most 1 descriptors, got 2' },
    { fds: ['r'], line: 'Expected a descriptor to write to, got a read-only' },
  ]
  let count = 1
  for (const { fds, line } of wrong) {
    const opened = fds.map((mode) => openSync('/dev/null', mode))
    const conn = await connect(socket)
    await conn.sendFds('\0rubbish\n'.repeat(100), opened)
    for (const fd of opened) closeSync(fd)
    await server.printed(new RegExp(`^client ${++count}: ${line}.*$`, 'm'))
    conn.close()
  }
  const hasty = await connect(socket)
  hasty.close()
  const full = openSync('/dev/full', 'w')
  const unlucky = await connect(socket)
  await unlucky.sendFds('x', [full])
  closeSync(full)
  unlucky.close()
  await server.printed(/^client 5: could not print there, exit code 1$/m)

  const { stdout } = await run(t, script(CLIENT, socket))
  t.equal(stdout, LINE, 'the others are served')
  await server.printed(/^client 6: printed there/m)
  silent.close()
  await noMoreFds(t, server, before)
  t.equal(server.stderr, '')
})

// To close that socket takes an hour.
t.test('who leaves a lingering socket queued delays no client', async (t) => {
  const { path, server } = await startServer(t, SERVER)
  await run(t, script(CLIENT, path))
  await server.printed(/client 1: printed there/)
  const before = await settledFds(server.pid)

  const conn = await connect(path)
  t.teardown(() => conn.close())
  const wanted = openSync('/dev/null', 'w')
  const { fd, peer } = lingering()
  // Both are there before the server reads the first.
  server.child.kill('SIGSTOP')
  for (const sent of [wanted, fd]) await conn.sendFds('x', [sent])
  server.child.kill('SIGCONT')
  for (const sent of [wanted, fd]) closeSync(sent)
  await server.printed(/client 2: printed there/)
  await readToEnd(peer)
  await t.rejects(conn.recvmsg(), { code: 'ECONNRESET' }, 'bytes left unread')

  const { stdout } = await run(t, script(CLIENT, path))
  t.equal(stdout, LINE)
  await server.printed(/client 3: printed there/)
  await noMoreFds(t, server, before)
  t.equal(server.stderr, '')
})

t.test(
  'the server meets the client in C',
  {
    skip: missing('cc'),
  },
  async (t) => {
    const folder = temporaryFolder(t)
    const program = compileC(folder, 'test/peers/stdout.c')
    const socket = join(folder, 's')
    await startServer(t, SERVER, socket)
    const { code, stdout } = await run(t, [program, 'client', socket])
    t.equal(code, 0)
    t.equal(stdout, LINE)
  },
)

t.test(
  'the client meets the server in C',
  {
    skip: missing('cc'),
  },
  async (t) => {
    const folder = temporaryFolder(t)
    const program = compileC(folder, 'test/peers/stdout.c')
    const socket = join(folder, 's')
    const server = new Running(t, [program, 'server', socket])
    await server.printed(/listening/)
    const { code, stdout } = await run(t, script(CLIENT, socket))
    t.equal(code, 0)
    t.equal(stdout, 'printed by C\n')
    t.match(await server.exit, { code: 0 })
    t.equal(server.stdout, '')
  },
)

t.test('a wrong command line, no server', async (t) => {
  const socket = join(temporaryFolder(t), 's')
  for (const file of [SERVER, CLIENT]) {
    await tellsUsage(t, file, ['a', 'b'], ['--nope'])
  }
  const alone = await run(t, script(CLIENT, socket))
  t.match(alone, { code: 1, stdout: '' })
  t.match(alone.stderr, /^client.ts: No server on .*: start .*server.ts.*\n$/)
})

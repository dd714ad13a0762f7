// examples/postfix: clients that wait for the greeting are handed to a real
// Postfix, and all others are turned away.

import { once } from 'node:events'
import { chmodSync } from 'node:fs'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { listen, type UnixConn } from '../../lib/index.ts'
import { openFds, settledFds } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { missing } from '../support/missing.ts'
import { Running, script } from '../support/processes.ts'
import { until } from '../support/waiting.ts'
import { dial, expecting, freePort, hears, noMoreFds } from './support.ts'

const SCREEN = 'examples/postfix/screen.ts'
const POSTFIX = 'test/peers/postfix.sh'

const noPostfix =
  missing('postfix') ||
  (process.getuid?.() !== 0 && 'only root can start Postfix')

/** A Postfix of the test's own, and the socket of its service. */
async function startPostfix(t: Test) {
  const top = temporaryFolder(t)
  chmodSync(top, 0o711) // for the user postfix
  const folder = join(top, 'postfix')
  const postfix = new Running(t, ['sh', POSTFIX, folder])
  // Before the teardown of `postfix`, which would leave its processes behind.
  t.teardown(() => {
    postfix.child.kill('SIGTERM')
    return postfix.exit
  })
  await postfix.printed(/: daemon started -- version /)
  return { postfix, service: join(folder, 'queue/private/smtpd') }
}

async function startScreen(t: Test, service: string, ...options: string[]) {
  const port = await freePort()
  const command = script(SCREEN, '-p', `${port}`, ...options, service)
  const screen = new Running(t, command)
  await screen.printed(/^Ready on 127\.0\.0\.1 port \d+, pid \d+$/m)
  return { screen, port }
}

/** In the place of Postfix: what comes to its service. */
async function service(t: Test, serve: (conn: UnixConn) => Promise<void>) {
  const path = join(temporaryFolder(t), 's')
  const listener = await listen(path)
  t.teardown(() => listener.close())
  void listener.serve(serve)
  return path
}

t.test(
  'Postfix greets a client that waited, and logs its address',
  { skip: noPostfix },
  async (t) => {
    const { postfix, service } = await startPostfix(t)
    const { screen, port } = await startScreen(t, service, '-w', '0.2')

    // This one does not wait. Postfix never hears of it.
    const hasty = await dial(t, port, '127.0.0.8')
    hasty.socket.write('EHLO spam.example\r\nMAIL FROM:<a@spam.example>\r\n')
    await once(hasty.socket, 'close')
    t.equal(hasty.told, '521 5.5.1 Protocol error\r\n')

    const client = await dial(t, port, '127.0.0.7')
    await hears(client, /^220 mail\.example ESMTP Postfix\r\n$/)
    await screen.printed(/^127\.0\.0\.7 port \d+: waited, Postfix has it$/m)
    client.socket.write('EHLO client.example\r\n')
    await hears(client, /^250 .*\r\n$/m)

    // What was given stays given.
    screen.child.kill('SIGINT')
    t.match(await screen.exit, { code: 0, signal: null })
    client.socket.write('QUIT\r\n')
    await once(client.socket, 'close')
    t.match(client.told, /\n221 .*\r\n$/)

    await postfix.printed(/ disconnect from unknown\[127\.0\.0\.7\] ehlo=1 /)
    t.match(postfix.stdout, / connect from unknown\[127\.0\.0\.7\]\n/)
    t.notMatch(postfix.stdout, '127.0.0.8')
    t.match(
      screen.stdout,
      /^127\.0\.0\.8 port \d+: did not wait, turned away$/m,
    )
    t.equal(screen.stderr, '')
  },
)

t.test('many clients, one after the other', { skip: noPostfix }, async (t) => {
  const { service } = await startPostfix(t)
  const { screen, port } = await startScreen(t, service, '-w', '0.01')
  const before = await settledFds(screen.pid)
  for (let count = 0; count < 20; count++) {
    const client = await dial(t, port)
    await hears(client, /^220 /)
    client.socket.end('QUIT\r\n')
    await hears(client, /\n221 /)
  }
  await noMoreFds(t, screen, before)
})

t.test('what is sent is two bytes and the connection', async (t) => {
  const path = await service(t, async (conn) => {
    const message = await conn.recvFds()
    t.strictSame(message?.data, Buffer.from([0, 0]))
    const { fds: [fd = -1] = [] } = message ?? {}
    const socket = new Socket({ fd })
    t.equal(socket.remoteAddress, '127.0.0.7')
    socket.end('220 here\r\n')
  })
  const { port } = await startScreen(t, path, '-w', '0.01')
  const client = await dial(t, port, '127.0.0.7')
  await once(client.socket, 'close')
  t.equal(client.told, '220 here\r\n')
})

t.test('without Postfix a client is told to come back', async (t) => {
  const path = join(temporaryFolder(t), 'none')
  const { screen, port } = await startScreen(t, path, '-w', '0.01')
  const before = await settledFds(screen.pid)
  const client = await dial(t, port)
  await once(client.socket, 'close')
  t.equal(client.told, '421 4.3.2 No system resources\r\n')
  await screen.printed(/^127\.0\.0\.1 port \d+: connect ENOENT .*\/none$/m)
  await noMoreFds(t, screen, before)
})

t.test('at most 100 at once, and Ctrl-C hangs up on all', async (t) => {
  const path = join(temporaryFolder(t), 'none')
  const { screen, port } = await startScreen(t, path, '-w', '600')
  const before = await settledFds(screen.pid)
  const clients = []
  for (let count = 0; count < 100; count++) clients.push(await dial(t, port))
  const isFull = (): boolean =>
    openFds(screen.pid).length >= before.length + 100
  await until('all are accepted', isFull)
  const more = await dial(t, port)
  await once(more.socket, 'close')
  t.equal(more.told, '421 4.3.2 All ports are busy\r\n')

  const ends = clients.map(({ socket }) => once(socket, 'close'))
  screen.child.kill('SIGINT')
  t.match(await screen.exit, { code: 0, signal: null })
  await Promise.all(ends)
  t.match(screen.stdout, /\nStopped\n$/)
  t.equal(screen.stderr, '')
})

t.test('one that is turned away does not hold it up', async (t) => {
  const path = join(temporaryFolder(t), 'none')
  const { screen, port } = await startScreen(t, path, '-w', '600')
  const client = await dial(t, port)
  client.socket.write('HELO\r\n')
  await hears(client, /^521 /)
  client.socket.pause()
  screen.child.kill('SIGTERM')
  t.match(await screen.exit, { code: 0, signal: null })
})

t.test('screen.ts says what is wrong', async (t) => {
  const expect = expecting(t)
  await expect(SCREEN, ['--help'], 0, /^Usage: .*screen\.ts \[OPTIONS\]/)
  await expect(SCREEN, ['a', 'b'], 2, /Expected 0 to 1 arguments, got 2\n/)
  await expect(SCREEN, ['-p', 'x'], 2, /Expected --port as a number, got "x"/)
  const port = /^screen\.ts: Expected --port from 0 to 65535, got "65536"\n/
  await expect(SCREEN, ['-p', '65536'], 2, port)
  await expect(SCREEN, ['-w', 'x'], 2, /Expected --wait in seconds, got "x"/)
  const wait = /Expected --wait from 0\.001 to 2147483 seconds, got "0"/
  await expect(SCREEN, ['-w', '0'], 2, wait)
  await expect(SCREEN, ['-a', 'localhost'], 1, /^screen\.ts: .*localhost/)
  const taken = `${await freePort()}`
  const first = new Running(t, script(SCREEN, '-p', taken))
  await first.printed(/^Ready/m)
  await expect(SCREEN, ['-p', taken], 1, /^screen\.ts: .*EADDRINUSE/)
})

// examples/lend-stdout, run as a user runs it, and against a peer in Python
// that speaks as the Go program does, in either role.

import { closeSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { t } from 'tap'

import { connect, listen } from '../../lib/index.ts'
import { settledFds } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { missing } from '../support/missing.ts'
import { Running, run, script, startServer } from '../support/processes.ts'
import { until } from '../support/waiting.ts'
import { noMoreFds, tellsUsage } from './support.ts'

const SERVER = 'examples/lend-stdout/server.ts'
const CLIENT = 'examples/lend-stdout/client.ts'

t.test('what the client reads appears at the server', async (t) => {
  const socket = join(temporaryFolder(t), 's')
  const { server } = await startServer(t, SERVER, socket)
  const client = new Running(t, script(CLIENT, socket))
  await client.printed(/^Sending my Stdin to Server's Stdout as fd \d+$/m)
  await server.printed(/^New Client: client 1, pid \d+$/m)
  await server.printed(/^Client Request: Send me your Stdout$/m)

  client.child.stdin?.write('one line\n')
  await server.printed(/^one line$/m)
  client.child.stdin?.end('and another\n')
  await server.printed(/^and another$/m)
  t.match(await client.exit, { code: 0 })
  t.equal(client.stderr, '')

  server.child.kill('SIGTERM')
  t.match(await server.exit, { code: 0 })
  t.notOk(existsSync(socket))
})

t.test('what is lent outlives the lender', async (t) => {
  const socket = join(temporaryFolder(t), 's')
  const { server } = await startServer(t, SERVER, socket)
  const client = new Running(t, script(CLIENT, socket))
  await client.printed(/^Sending my Stdin/m)
  let ended = false
  server.child.stdout?.once('end', () => {
    ended = true
  })
  server.child.kill('SIGINT')
  await until('the server is gone', () => server.child.exitCode === 0)
  t.notOk(ended, 'the pipe is still open at one end: the client’s')
  client.child.stdin?.end('a late line\n')
  await server.exit
  t.match(server.stdout, /Server stopped\na late line\n$/)
})

t.test('a slow reader gets every byte', async (t) => {
  const socket = join(temporaryFolder(t), 's')
  const { server } = await startServer(t, SERVER, socket)
  // Nobody reads the server's output, until the pipe is long full.
  server.child.stdout?.pause()
  const client = new Running(t, script(CLIENT, socket))
  await client.printed(/^Sending my Stdin/m)
  let taken = 0
  const input = Readable.from(
    (function* () {
      while (taken++ < 200) yield Buffer.alloc(10_000, 'x')
    })(),
  )
  input.pipe(client.child.stdin ?? process.stdout)
  await until('more is on its way than fits into one pipe', () => taken > 30)
  server.child.stdout?.resume()
  t.match(await client.exit, { code: 0 })
  await until('all is there', () => {
    return server.stdout.includes('x'.repeat(2_000_000))
  })
  t.equal(client.stderr, '')
})

t.test(
  'the server meets an independent client',
  {
    skip: missing('python3'),
  },
  async (t) => {
    const socket = join(temporaryFolder(t), 's')
    const { server } = await startServer(t, SERVER, socket)
    const peer = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendmsg([b'Send me your Stdout'])
text, fds, flags, _ = socket.recv_fds(s, 1024, 8)
print(text.decode(), len(fds), flags)
os.write(fds[0], b'written by Python\\n')
assert s.recv(1) == b''`
    const { stdout, stderr } = await run(t, ['python3', '-c', peer, socket])
    t.equal(stderr, '')
    t.equal(stdout, 'Here is my stdout 1 0\n')
    await server.printed(/^written by Python$/m)
  },
)

t.test(
  'the client meets an independent server',
  {
    skip: missing('python3'),
  },
  async (t) => {
    const socket = join(temporaryFolder(t), 's')
    const peer = `
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print('Server ready', flush=True)
s = listener.accept()[0]
print(s.recv(1024).decode(), flush=True)
socket.send_fds(s, [b'Here is my stdout'], [1])
s.close()`
    const server = new Running(t, ['python3', '-c', peer, socket])
    await server.printed(/Server ready/)
    const client = await run(t, script(CLIENT, socket), {
      input: 'from Node\n',
    })
    t.match(client, { code: 0, stderr: '' })
    await server.exit
    t.equal(server.stdout, 'Server ready\nSend me your Stdout\nfrom Node\n')
  },
)

t.test(
  'path and words of the Go program can be chosen',
  {
    skip: existsSync('/tmp/mysocket') && '/tmp/mysocket is in use',
  },
  async (t) => {
    const server = new Running(t, script(SERVER, '--go', '-m', 'Borrow it'))
    await server.printed(/^Server ready on \/tmp\/mysocket, /m)
    const options = ['--go', '--message', 'May I?\u001b[2J']
    const client = await run(t, script(CLIENT, ...options), {
      input: 'hello\n',
    })
    t.match(client, { code: 0, stderr: '' })
    await server.printed(/^Client Request: May I\?\\u001b\[2J$/m)
    await server.printed(/^hello$/m)

    const conn = await connect('/tmp/mysocket')
    await conn.sendmsg('?')
    const { data, fds } = (await conn.recvFds()) ?? { fds: [] }
    t.equal(`${data}`, 'Borrow it')
    // Without this the server's output would never end.
    for (const fd of fds) closeSync(fd)
    conn.close()
    server.child.kill('SIGINT')
    await server.exit
    t.notOk(existsSync('/tmp/mysocket'))
  },
)

t.test('a peer that does it wrong gets one line', async (t) => {
  const socket = join(temporaryFolder(t), 's')
  const { server } = await startServer(t, SERVER, socket)
  const before = await settledFds(server.pid)

  const silent = await connect(socket)
  const hasty = await connect(socket)
  hasty.close()
  const generous = await connect(socket)
  await generous.sendFds('take this', [0])
  await server.printed(/^client 1: Expected at most 0 descriptors, got 1/m)
  const wordy = await connect(socket)
  // The server answers the first of these bytes, and hangs up.
  await wordy.sendmsg(Buffer.alloc(100_000, 'x')).catch((error) => {
    t.match(error.code, /^(EPIPE|ECONNRESET)$/)
  })
  await server.printed(/^Client Request: x{1024}$/m)
  const { fds } = (await wordy.recvFds()) ?? { fds: [] }
  t.equal(fds.length, 1, 'any words will do')
  for (const conn of [silent, generous, wordy]) conn.close()
  for (const fd of fds) closeSync(fd)
  await noMoreFds(t, server, before)
  t.equal(server.stderr, '')
})

t.test(
  'a server that gives nothing ends the client, exit code 1',
  async (t) => {
    const socket = join(temporaryFolder(t), 's')
    const listener = await listen(socket)
    t.teardown(() => listener.close())
    const answers = ['No', '', 'Here are two']
    void (async () => {
      for await (const conn of listener) {
        const answer = answers.shift() ?? ''
        await conn.recvmsg()
        if (answer) await conn.sendFds(answer, answer === 'No' ? [] : [1, 2])
        conn.close()
      }
    })()
    for (const line of [
      /^client.ts: Expected a descriptor, got "No" alone\n$/,
      /^client.ts: Expected a descriptor, got a hang-up\n$/,
      /^client.ts: Expected at most 1 descriptors, got 2.*\n$/,
    ]) {
      const { code, stderr } = await run(t, script(CLIENT, socket))
      t.equal(code, 1)
      t.match(stderr, line)
    }
  },
)

t.test('a wrong command line, no server', async (t) => {
  const socket = join(temporaryFolder(t), 's')
  for (const file of [SERVER, CLIENT]) {
    await tellsUsage(t, file, ['a', 'b'], ['-m', ''])
  }
  const { stdout } = await run(t, script(SERVER, '--help'))
  t.match(stdout, 'That gives a terminal away')
  const alone = await run(t, script(CLIENT, socket))
  t.match(alone, { code: 1, stdout: '' })
  t.match(alone.stderr, /^client.ts: No server on .*: start .*server.ts.*\n$/)
})

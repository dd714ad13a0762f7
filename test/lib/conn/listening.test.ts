// Listening sockets as bare descriptors: lib/listening.ts.

import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { connect, createServer } from 'node:net'
import { join, resolve } from 'node:path'
import { t } from 'tap'

import {
  canonicalAddress,
  ListeningSocket,
} from '../../../lib/conn/listening.ts'
import { connect as connectUnix } from '../../../lib/index.ts'
import { duplicate, newSocket } from '../../../lib/socket/unix.ts'
import { leakFree, openFds } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { lacksPassRights } from '../../support/missing.ts'
import { until } from '../../support/waiting.ts'
import { warningsOf } from '../../support/warnings.ts'

/** Whether a client that connects is served from the socket. */
async function serves(
  { fd }: ListeningSocket,
  where: (port: number) => ReturnType<typeof connect>,
): Promise<boolean> {
  const server = createServer((client) => {
    client.on('error', () => {}) // who only asked whether somebody listens
    client.end('hello')
  })
  server.listen({ fd: duplicate(fd) })
  await once(server, 'listening')
  const address = server.address()
  const client = where(typeof address === 'object' ? (address?.port ?? 0) : 0)
  let text = ''
  for await (const chunk of client) text += chunk
  server.close()
  await once(server, 'close')
  return text === 'hello'
}

t.test('canonicalAddress() gives each address one spelling', async (t) => {
  for (const [text, expected] of [
    ['8080', '127.0.0.1:8080'],
    ['0080', '127.0.0.1:80'],
    ['0.0.0.0:80', '0.0.0.0:80'],
    ['[::1]:80', '[::1]:80'],
    ['/run/web.sock', '/run/web.sock'],
    ['/run//x/../web.sock', '/run/web.sock'],
    ['./web.sock', resolve('web.sock')],
    ['@web', '@web'],
    ['@web/1', '@web/1'],
  ] as const) {
    t.equal(canonicalAddress(text), expected)
    t.equal(canonicalAddress(expected), expected)
  }
})

leakFree('open() listens on an abstract name, without a file', async (t) => {
  // systemd's spelling: the kernel's name begins with a zero byte instead.
  const name = `fdpass/${process.pid}`
  const socket = await ListeningSocket.open(`@${name}`)
  t.equal(socket.address, `@${name}`)
  const conn = await connectUnix(`\0${name}`)
  t.equal(conn.peerCredentials().pid, process.pid)
  conn.close()
  socket.unlink()
  socket.close()
  await t.rejects(connectUnix(`\0${name}`), { code: 'ECONNREFUSED' })
})

t.test('canonicalAddress() refuses what is none', async (t) => {
  for (const text of ['', 'web', '::1:80', '1.2.3.4', ':80', '123456', '-1'])
    t.throws(() => canonicalAddress(text), RangeError, text)
})

leakFree('open() listens on TCP, IPv6 and a path', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  for (const [address, where] of [
    ['0', (port: number) => connect(port, '127.0.0.1')],
    ['[::1]:0', (port: number) => connect(port, '::1')],
    [path, () => connect(path)],
  ] as const) {
    const socket = await ListeningSocket.open(address)
    t.equal(socket.address, canonicalAddress(address))
    t.ok(await serves(socket, where), address)
    socket.close()
  }
  t.equal(lstatSync(path).mode & 0o777, 0o600, 'for this user alone')
})

leakFree('open() replaces what a dead server left', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const dead = await ListeningSocket.open(path)
  dead.close()
  const socket = await ListeningSocket.open(path)
  t.ok(await serves(socket, () => connect(path)))
  socket.close()
})

leakFree('open() leaves what belongs to others', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const alive = await ListeningSocket.open(path)
  await t.rejects(ListeningSocket.open(path), { code: 'EADDRINUSE' })
  t.ok(await serves(alive, () => connect(path)))
  alive.close()
  unlinkSync(path)
  writeFileSync(path, 'precious')
  await t.rejects(ListeningSocket.open(path), { code: 'EADDRINUSE' })
  t.ok(existsSync(path))
})

leakFree(
  'open() with refuseFds: the sender of a descriptor gets EPERM',
  async (t) => {
    const path = join(temporaryFolder(t), 'a.sock')
    for (const address of [path, `@fdpass/refuse-${process.pid}`]) {
      const socket = await ListeningSocket.open(address, { refuseFds: true })
      const conn = await connectUnix(address.replace(/^@/, '\0'))
      await t.rejects(conn.sendFds('x', [0]), { code: 'EPERM' }, address)
      conn.close()
      socket.close()
    }
    const tcp = await ListeningSocket.open('0', { refuseFds: true })
    t.ok(await serves(tcp, (port) => connect(port, '127.0.0.1')))
    tcp.close()
  },
  lacksPassRights(),
)

leakFree('open() says why it cannot', async (t) => {
  const folder = temporaryFolder(t)
  const first = await ListeningSocket.open('0')
  const server = createServer().listen({ fd: duplicate(first.fd) })
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : 0
  await t.rejects(ListeningSocket.open(`${port}`), { code: 'EADDRINUSE' })
  server.close()
  first.close()
  for (const [text, code] of [
    [join(folder, 'absent', 'a.sock'), 'ENOENT'],
    [join(folder, 'x'.repeat(200)), 'ENAMETOOLONG'],
    ['192.0.2.1:80', 'EADDRNOTAVAIL'],
  ] as const) {
    await t.rejects(ListeningSocket.open(text), { code })
  }
  await t.rejects(ListeningSocket.open('localhost:80'), RangeError)
})

leakFree(
  'close() closes the descriptor once, and leaves the file',
  async (t) => {
    const path = join(temporaryFolder(t), 'a.sock')
    const before = openFds()
    const socket = await ListeningSocket.open(path)
    socket.close()
    t.equal(socket.fd, -1)
    socket.close()
    t.strictSame(openFds(), before)
    t.ok(existsSync(path))
  },
)

leakFree('unlink() removes the file, if it is still its own', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const first = await ListeningSocket.open(path)
  unlinkSync(path)
  const second = await ListeningSocket.open(path)
  first.unlink()
  t.ok(existsSync(path), 'the file is of another socket')
  const received = new ListeningSocket(duplicate(second.fd), path)
  received.unlink()
  t.notOk(existsSync(path))
  received.unlink()
  const tcp = await ListeningSocket.open('0')
  tcp.unlink()
  for (const socket of [first, second, received, tcp]) socket.close()
})

leakFree('unlink() of a name removes no file that is called so', async (t) => {
  const before = process.cwd()
  process.chdir(temporaryFolder(t))
  t.teardown(() => process.chdir(before))
  mkdirSync('@fdpass')
  const name = `@fdpass/${process.pid}`
  writeFileSync(name, 'not the socket')
  const socket = await ListeningSocket.open(name)
  socket.unlink()
  t.ok(existsSync(name))
  socket.close()
  process.chdir(before)
})

leakFree(
  'a ListeningSocket is disposed of; open() takes options',
  async (t) => {
    const path = join(temporaryFolder(t), 'a.sock')
    const socket = await ListeningSocket.open(path, { mode: 0o660 })
    t.equal(lstatSync(path).mode & 0o777, 0o660)
    socket[Symbol.dispose]()
    t.equal(socket.fd, -1)
  },
)

leakFree('detach() gives the descriptor away, once', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const socket = await ListeningSocket.open(path)
  const fd = socket.detach()
  t.equal(socket.fd, -1)
  socket.close()
  t.ok(fstatSync(fd).isSocket(), 'it is open still')
  t.throws(() => socket.detach(), {
    code: 'EBADF',
    syscall: 'detach',
    message: `detach EBADF ${path}`,
  })
  socket.unlink()
  t.notOk(existsSync(path), 'the file is removed all the same')
  closeSync(fd)
})

t.test('unlink() of a file that has to stay is a warning', async (t) => {
  const warnings = warningsOf(t)
  const { ListeningSocket } = await t.mockImport<
    typeof import('../../../lib/conn/listening.ts')
  >('../../../lib/conn/listening.ts', {
    '../../../lib/wait/listen-at.ts': {
      listenAt: () => t.fail('nobody listens'),
      socketFileAt: () => ({ remove: () => new Error('it has to stay') }),
    },
  })
  const socket = new ListeningSocket(newSocket(), '/run/s')
  socket.unlink()
  await until('a warning', () => warnings.length > 0)
  t.match(warnings, [{ message: 'it has to stay' }])
  socket.close()
})

// examples/fd-factory, run as a user runs it: as root from a low port where the
// tests run as root, from a high one elsewhere.

import { once } from 'node:events'
import { closeSync, existsSync, readdirSync, readFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { type Test, t } from 'tap'

import { boundSocket } from '../../lib/index.ts'
import { settledFds } from '../support/descriptors.ts'
import { lacksPassRights, missing } from '../support/missing.ts'
import { plainEnv, Running, run, script } from '../support/processes.ts'
import { missingNobody } from '../support/users.ts'
import { until } from '../support/waiting.ts'
import { noMoreFds, tellsUsage } from './support.ts'

const SERVER = 'examples/fd-factory/server.ts'
const CLIENT = 'examples/fd-factory/client.ts'
const CHILD = 'examples/fd-factory/child.ts'

const isRoot = process.getuid?.() === 0
const uid = isRoot ? 65534 : (process.getuid?.() ?? -1)

/** What makes a process that of an unprivileged user. */
const unprivileged = isRoot ? { uid, gid: uid } : {}

const START = '/proc/sys/net/ipv4/ip_unprivileged_port_start'
const firstUnprivileged = existsSync(START)
  ? +readFileSync(START, 'utf8')
  : 1024
const noLowPorts =
  firstUnprivileged < 1024 &&
  `any user may bind ports from ${firstUnprivileged} up here`

/** Whether scripts can be run without root's rights. */
const noUser = isRoot && missingNobody()

let lastPort = isRoot ? 600 : 20_000 + (process.pid % 20_000)

/** A port that is free, and low if we are root. A new one each time. */
function freePort(): number {
  for (;;) {
    lastPort++
    try {
      closeSync(boundSocket({ host: '::', port: lastPort }))
      return lastPort
    } catch {
      // Somebody has it.
    }
  }
}

async function serverOn(t: Test, address: string) {
  const server = new Running(t, script(SERVER, '-p', '0', '-a', address))
  const [, port = ''] = await server.printed(
    /^Server ready on \S+ port (\d+)$/m,
  )
  return { server, port }
}

function client(local: number, address: string, port: string, data: string) {
  const target = ['-p', `${local}`, '-A', address, '-P', port, '-d', data]
  return script(CLIENT, ...target, ...(isRoot ? ['-u', `${uid}`] : []))
}

for (const address of ['127.0.0.1', '::1']) {
  t.test(`the child connects from LOCALPORT to ${address}`, async (t) => {
    const { server, port } = await serverOn(t, address)
    const local = freePort()
    const result = await run(t, client(local, address, port, 'fdehwudf'))
    t.match(result, { code: 0, stderr: '' })
    const lines = result.stdout.replace(/fd=\d+/g, 'fd=N')
    t.equal(
      lines,
      'Server: sent fd=N\n' +
        `Client (uid=${uid}): received fd=N\n` +
        'Sent "fdehwudf".\n' +
        'Received "fdehwudf".\n',
    )
    await server.printed(/^Connection from/m)
    const from = `${address} port ${local}`
    const to = `${address} port ${port}`
    t.match(
      server.stdout,
      `Connection from ${from} to ${to}, received "fdehwudf".\n`,
    )
    server.child.kill('SIGINT')
    t.match(await server.exit, { code: 0 })
  })
}

t.test(
  'the child has no privilege, and could not bind the port',
  {
    skip: isRoot ? noLowPorts || noUser : 'needs root',
  },
  async (t) => {
    // A server that holds the answer back, so that the child stays to be seen.
    const held = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1')
    t.teardown(() => held.close())
    await once(held, 'listening')
    const { port } = held.address() as AddressInfo
    const local = freePort()
    const parent = new Running(t, client(local, '127.0.0.1', `${port}`, 'hold'))
    const [socket] = (await once(held, 'connection')) as [Socket]
    t.equal(socket.remotePort, local)

    const status = readFileSync(
      `/proc/${childOf(parent.pid, 'child.ts')}/status`,
      'utf8',
    )
    t.match(status, /^Uid:\t65534\t65534\t65534\t65534$/m)
    t.match(status, /^Gid:\t65534\t65534\t65534\t65534$/m)
    t.match(status, /^Groups:\s*$/m, 'no supplementary groups')
    t.match(status, /^CapEff:\t0+$/m)
    t.match(status, /^CapPrm:\t0+$/m)

    const bind = `require('net').createServer().listen(${local}, '127.0.0.2')`
    const tried = await run(t, [process.execPath, '-e', bind], unprivileged)
    t.match(tried.stderr, `listen EACCES: permission denied 127.0.0.2:${local}`)

    socket.end('held')
    t.match(await parent.exit, { code: 0 })
    t.match(parent.stdout, /Received "held"\.\n$/)
  },
)

// A child of its own, which asks the factory for more than one.
const ASKER = `
import errno, socket, sys
factory = socket.socket(fileno=3)
port = sys.argv[1]
def ask(request, fds=[]):
    if fds: socket.send_fds(factory, [request], fds)
    else: factory.sendall(request)
    text, fds, _, _ = socket.recv_fds(factory, 4096, 8)
    return text.decode().strip(), [socket.socket(fileno=fd) for fd in fds]
try:
    socket.socket().bind(('127.0.0.1', int(port)))
    print('bound it itself')
except OSError as error:
    print(errno.errorcode[error.errno])
good = f'bind {port}\\n'.encode()
for _ in range(3):
    text, [bound] = ask(good)
    print(text, bound.getsockname()[1], flush=True)
    bound.close()
    sys.stdin.readline()
for bad in [b'bind 1\\n', b'\\x00\\x1b[2J\\n', b'x' * 200 + b'\\n']:
    print(ask(bad)[0])
print(ask(good)[0])
try:
    print(ask(good, [0]), flush=True)
except OSError as error:
    print(errno.errorcode[error.errno])
`

t.test(
  'the factory serves any number of requests, none that it may not',
  {
    skip: missing('python3'),
  },
  async (t) => {
    const local = freePort()
    const command = client(local, '127.0.0.1', '1', 'unused')
    const asker = ['--', 'python3', '-c', ASKER, `${local}`]
    const parent = new Running(t, [...command, ...asker])
    const answers = /^bound \d+$/gm
    await until('the first answer', () => {
      return parent.stdout.match(answers)?.length === 1
    })
    const before = await settledFds(parent.pid)
    parent.child.stdin?.write('\n')
    await until('the second answer', () => {
      return parent.stdout.match(answers)?.length === 2
    })
    await noMoreFds(t, parent, before)
    parent.child.stdin?.write('\n\n')

    t.match(await parent.exit, { code: 0 })
    const lines = parent.stdout.split('\n')
    const own = lines.filter((line) => line.startsWith('Server: sent fd='))
    t.equal(own.length, 4)
    const told = lines.filter((line) => !own.includes(line))
    const refused = `refused: Expected "bind ${local}", got `
    t.same(told.slice(1), [
      ...Array(3).fill(`bound ${local}`),
      `${refused}"bind 1"`,
      `${refused}"\\u0000\\u001b[2J"`,
      `${refused}"${'x'.repeat(100)}"`,
      'bound',
      lacksPassRights() ? "('', [])" : 'EPERM',
      '',
    ])
    if (isRoot && !noLowPorts) t.equal(told[0], 'EACCES')
    const hungUp =
      'Server: hung up on the child: ' +
      'Expected at most 0 descriptors, got 1: closed all\n'
    t.equal(parent.stderr, lacksPassRights() ? hungUp : '')
  },
)

t.test(
  'without root: one line says what is missing',
  {
    skip: noLowPorts || noUser,
  },
  async (t) => {
    const target = ['-A', '127.0.0.1', '-P', '9', '-d', 'x']
    const low = script(CLIENT, '-p', '7', ...target)
    t.match(await run(t, low, unprivileged), {
      code: 1,
      stdout: '',
      stderr:
        `child.ts: Client (uid=${uid}): refused: bind EACCES 0.0.0.0 port 7: ` +
        'needs root or CAP_NET_BIND_SERVICE, or a higher LOCALPORT\n',
    })
    const other = await run(t, [...low, '-u', `${uid + 1}`], unprivileged)
    t.match(other, { code: 1, stdout: '' })
    t.match(
      other.stderr,
      /^child.ts: EPERM.*: needs root to become uid \d+; or leave out -u, .*\n$/,
    )
  },
)

t.test(
  'COMMAND gets nothing of ours but fd 0 to 3, of which 3 blocks',
  {
    skip: missing('python3'),
  },
  async (t) => {
    const local = freePort()
    const source = `
import os
print(sorted(os.environ))
print([fd for fd in range(60) if os.path.exists(f'/dev/fd/{fd}')])
print(os.get_blocking(3))`
    const command = client(local, '127.0.0.1', '9', 'x')
    // Open where Node does not look: it stops at the first gap.
    const shell = ['sh', '-c', 'exec "$@" 42<package.json', 'sh']
    const env = { ...plainEnv(), SECRET: 'of root', LC_ALL: 'C.UTF-8' }
    const asker = ['--', 'python3', '-c', source]
    const result = await run(t, [...shell, ...command, ...asker], { env })
    const [variables = '', fds, isBlocking] = result.stdout.split('\n')
    t.notMatch(variables, 'SECRET')
    t.notMatch(variables, 'HOME')
    t.match(variables, "'LC_ALL'")
    t.match(variables, "'PATH'")
    t.equal(fds, '[0, 1, 2, 3]')
    t.equal(isBlocking, 'True')
  },
)

t.test('data may look like an option', async (t) => {
  const { port } = await serverOn(t, '127.0.0.1')
  const command = client(freePort(), '127.0.0.1', port, 'x')
  const result = await run(t, [...command, '--data=--help'])
  t.match(result, { code: 0, stdout: /^Received "--help"\.$/m })
})

t.test('control characters of the other side are shown', async (t) => {
  const { server, port } = await serverOn(t, '127.0.0.1')
  const command = client(freePort(), '127.0.0.1', port, '\u009b2J\u202e')
  const { stdout } = await run(t, command)
  t.match(stdout, 'Received "\\u009b2J\\u202e".')
  await server.printed(/received "\\u009b2J\\u202e"\.$/m)
})

t.test('a port that is taken is refused, with the reason', async (t) => {
  const local = freePort()
  const owner = createServer().listen(local, '0.0.0.0')
  t.teardown(() => owner.close())
  await once(owner, 'listening')
  const result = await run(t, client(local, '127.0.0.1', '9', 'x'))
  t.match(result, { code: 1, stdout: '' })
  t.match(
    result.stderr,
    `Client (uid=${uid}): refused: bind EADDRINUSE 0.0.0.0 port ${local}\n`,
  )
})

t.test('nobody listens on PORT', async (t) => {
  // It is bound, so that nobody else can listen there meanwhile.
  const port = freePort()
  const bound = boundSocket({ host: '127.0.0.1', port })
  t.teardown(() => closeSync(bound))
  const result = await run(t, client(freePort(), '127.0.0.1', `${port}`, 'x'))
  t.equal(result.code, 1)
  t.match(result.stderr, /^child.ts: connect ECONNREFUSED 127.0.0.1:\d+\n$/)
})

t.test('a child that asks for nothing', async (t) => {
  const command = client(freePort(), '127.0.0.1', '9', 'x')
  const result = await run(t, [...command, '--', 'false'])
  t.match(result, { code: 1, stdout: '', stderr: '' })
  const absent = await run(t, [...command, '--', '/no/such/command'])
  t.match(absent, {
    code: 1,
    stderr: 'client.ts: spawn /no/such/command ENOENT\n',
  })
})

t.test('SIGTERM ends the factory and its child', async (t) => {
  const command = client(freePort(), '127.0.0.1', '9', 'x')
  const parent = new Running(t, [...command, '--', 'sleep', '60'])
  await until('the child is there', () => childOf(parent.pid, 'sleep') > 0)
  const child = childOf(parent.pid, 'sleep')
  parent.child.kill('SIGTERM')
  t.match(await parent.exit, { code: 0 })
  await until('the child is gone', () => !isRunning(child))
})

t.test('the server reports one line for a peer of any kind', async (t) => {
  const { server, port } = await serverOn(t, '127.0.0.1')
  const peer = (bytes: string | Buffer) => {
    const input = bytes.toString('latin1')
    const send = `
      const { connect } = require('net')
      const socket = connect(${port}, '127.0.0.1')
      process.stdin.setEncoding('latin1').on('data', (d) => socket.write(d, 'latin1'))
      process.stdin.on('end', () => socket.end())
      let length = 0
      socket.on('data', (d) => { length += d.length })
      socket.on('end', () => console.log(length))`
    return run(t, [process.execPath, '-e', send], { input })
  }
  t.match(await peer(''), { stdout: '0\n' })
  await server.printed(/received ""\.$/m)
  t.match(await peer('\u0007"bell"\n'), { stdout: '8\n' })
  await server.printed(/received "\\u0007\\"bell\\"\\n"\.$/m)
  t.match(await peer('x'.repeat(300_000)), { stdout: '300000\n' })
  await server.printed(/received "x{1000}"\.$/m)
  t.equal(server.stdout.match(/^Connection from/gm)?.length, 3)
})

t.test('a wrong command line', async (t) => {
  const target = ['-p', '8', '-A', '::1', '-P', '8192', '-d', 'x']
  await tellsUsage(t, SERVER, [], ['-p', '65536'])
  await tellsUsage(
    t,
    CLIENT,
    ['-u', '1000'],
    [...target, '-u', 'root'],
    [...target, '-A', 'localhost', '-u', '1000'],
    [...target, '-p', '0', '-u', '1000'],
    ...(isRoot ? [target] : []),
  )
  if (isRoot) {
    const { stderr } = await run(t, script(CLIENT, ...target))
    t.match(stderr, /^client.ts: Expected -u UID: root has to name the child's/)
  }
  const alone = await run(t, script(CHILD, '1', '8', '::1', '8192', 'x'))
  t.match(alone, {
    code: 1,
    stderr: 'child.ts: Expected a socket as fd 3: start client.ts, not this\n',
  })
})

/** The first child of a process, or -1. */
// By its command: tsx may have a child of its own at the start.
function childOf(pid: number, command: string): number {
  for (const name of readdirSync('/proc').filter((name) => +name > 0)) {
    if (statOf(name)[1] !== `${pid}`) continue
    try {
      const line = readFileSync(`/proc/${name}/cmdline`, 'utf8')
      if (line.includes(command)) return Number(name)
    } catch {
      // It has ended meanwhile.
    }
  }
  return -1
}

function isRunning(pid: number): boolean {
  const [state = 'X'] = statOf(`${pid}`)
  return state !== 'X' && state !== 'Z'
}

/** State, parent and what follows in /proc/PID/stat, after the name. */
function statOf(pid: string): string[] {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch {
    return []
  }
}

// examples/port-broker: ports for those whom the rules allow them.

import { once } from 'node:events'
import { chmodSync, chownSync, statSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import {
  allows,
  parseRequest,
  readRules,
} from '../../examples/port-broker/rules.ts'
import { framesOf, sendFrame } from '../../lib/conn/frames.ts'
import { connect, describeFd, type UnixConn } from '../../lib/index.ts'
import { openFds, settledFds } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { lacksPassRights, missing } from '../support/missing.ts'
import { plainEnv, Running, run, script } from '../support/processes.ts'
import { missingNobody } from '../support/users.ts'
import { until } from '../support/waiting.ts'
import { expecting, freePort, noMoreFds } from './support.ts'

const SERVER = 'examples/port-broker/server.ts'
const CLIENT = 'examples/port-broker/client.ts'
const uid = process.getuid?.() ?? -1
const isRoot = uid === 0
const nobody = { uid: 65534, gid: 65534 }
const noRoot = missingNobody()

/** One that root alone may bind, as far as this machine has such ports. */
async function privilegedPort(): Promise<number> {
  for (let port = 1023; port > 0; port--) {
    const probe = createServer().listen(port, '127.0.0.1')
    const isFree = await once(probe, 'listening').then(
      () => true,
      () => false,
    )
    probe.close()
    if (isFree) return port
  }
  throw new Error('Expected a free port below 1024, got none')
}

type Broker = { server: Running; path: string; rules: string }

async function broker(
  t: Test,
  rules: readonly object[],
  ...args: string[]
): Promise<Broker> {
  const folder = temporaryFolder(t)
  chmodSync(folder, 0o711)
  const file = join(folder, 'rules.json')
  const path = join(folder, 's')
  writeFileSync(file, JSON.stringify(rules))
  const server = new Running(t, script(SERVER, ...args, file, path))
  await server.printed(/^Server ready on .*\n/m)
  return { server, path, rules: file }
}

/** A rule for whoever runs this test. */
function mine(...ports: (number | string)[]): object {
  return { uid, ports, addresses: ['127.0.0.1'] }
}

t.test(
  'a user gets a port that only root can bind, and serves on it',
  { skip: noRoot },
  async (t) => {
    const port = await privilegedPort()
    const rule = { user: 'nobody', ports: [port], addresses: ['127.0.0.1'] }
    const { server, path } = await broker(t, [rule])
    const client = new Running(t, script(CLIENT, '-s', path, `${port}`), nobody)
    await client.printed(new RegExp(`on http://127.0.0.1:${port}/\n`))
    const who = `pid ${client.pid}, uid 65534, gid 65534`
    const what = `tcp 127.0.0.1 port ${port}`
    await server.printed(
      new RegExp(`^${who}: ${what}: allowed by rule 1$`, 'm'),
    )

    const line = `Hello from pid ${client.pid}, uid 65534\n`
    const url = `http://127.0.0.1:${port}/`
    t.equal(await (await fetch(url)).text(), line)

    // A second time: it is taken, and the broker knows by whom.
    const second = await run(t, script(CLIENT, '-s', path, `${port}`), nobody)
    t.match(second, {
      code: 1,
      stdout: '',
      stderr: `${what}: it is taken, last given to pid ${client.pid}, uid 6`,
    })

    // The socket goes on without the broker that made it.
    server.child.kill('SIGTERM')
    t.match(await server.exit, { code: 0 })
    if (missing('curl') === false) {
      const { stdout } = await run(t, ['curl', '-s', url])
      t.equal(stdout, line)
    }
    client.child.kill('SIGTERM')
    t.match(await client.exit, { code: 0, signal: null })
  },
)

t.test(
  'the kernel says who asks, not the client',
  { skip: noRoot || missing('python3') },
  async (t) => {
    const rule = { uid: 0, ports: ['1-65535'], addresses: ['127.0.0.1'] }
    const { server, path } = await broker(t, [rule])
    const source = `
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.send(b'{"port":80,"address":"127.0.0.1","uid":0,"user":"root","fds":0}\\n')
data, fds, _, _ = socket.recv_fds(s, 4096, 1)
print(data.decode(), fds)`
    const asked = await run(t, ['python3', '-c', source, path], nobody)
    t.match(asked.stdout, /"error":"tcp 127.0.0.1 port 80: refused, no rule/)
    t.match(asked.stdout, /\[\]\n$/)
    await server.printed(/^pid \d+, uid 65534, gid 65534: .* refused/m)
  },
)

t.test(
  'a command gets the socket as its fd 3',
  { skip: missing('python3') },
  async (t) => {
    const [tcp, udp] = [await freePort(), await freePort()]
    const { path } = await broker(t, [
      mine(tcp),
      { uid, protocol: 'udp', ports: [udp], addresses: ['::1'] },
    ])
    const source = `
import os, socket, sys
s = socket.socket(fileno=3)
mine = os.environ['LISTEN_PID'] == str(os.getpid())
blocking = os.get_blocking(3)
name = s.getsockname()[:2]
names = os.environ.get('LISTEN_FDNAMES')
print(os.environ['LISTEN_FDS'], names, mine, blocking, s.type.name, *name)
sys.exit(7)`
    const command = ['--', 'python3', '-c', source]
    // As an activator leaves it for this client: names of other descriptors.
    const env = plainEnv({ LISTEN_FDNAMES: 'one:other' })
    const start = (...args: string[]): ReturnType<typeof run> =>
      run(t, script(CLIENT, '-s', path, ...args, ...command), { env })
    t.match(await start(`${tcp}`), {
      code: 7,
      stdout: `1 None True True SOCK_STREAM 127.0.0.1 ${tcp}\n`,
      stderr: new RegExp(`^Got tcp 127.0.0.1 port ${tcp} as fd \\d+`),
    })
    // However the address is spelt.
    t.match(await start('-u', '-a', '0:0::1', `${udp}`), {
      code: 7,
      stdout: `1 None True True SOCK_DGRAM ::1 ${udp}\n`,
    })
  },
)

t.test('a signal ends the command, and its end the client', async (t) => {
  const port = await freePort()
  const { path } = await broker(t, [mine(port)])
  const args = [
    '-s',
    path,
    `${port}`,
    '--',
    'sh',
    '-c',
    'echo up; exec sleep 60',
  ]
  const client = new Running(t, script(CLIENT, ...args))
  await client.printed(/^up\n/)
  client.child.kill('SIGTERM')
  t.match(await client.exit, { code: 128 + 15, signal: null })
  // Nobody has the port any more.
  const again = script(CLIENT, '-s', path, `${port}`, '--', 'no-such-command')
  t.match(await run(t, again), { code: 127, stderr: /no-such-command/ })
})

t.test('a refusal tells the rule that is missing', async (t) => {
  const port = await freePort()
  const { server, path, rules } = await broker(t, [mine('1-2')])
  const ask = (): ReturnType<typeof run> =>
    run(t, script(CLIENT, '-s', path, `${port}`, '--', 'echo', 'done'))
  const refused = await ask()
  t.match(refused, { code: 1, stdout: '' })
  const [, rule = ''] = /no rule such as (.*)\n$/.exec(refused.stderr) ?? []
  t.strictSame(JSON.parse(rule), {
    uid,
    protocol: 'tcp',
    addresses: ['127.0.0.1'],
    ports: [port],
  })

  // Rules that are broken change nothing, and the server says so.
  writeFileSync(rules, `[${rule}, {}]`)
  server.child.kill('SIGHUP')
  await server.printed(
    /^Old rules kept: .*rules.json: rule 2: Expected one of/m,
  )
  t.match(await ask(), { code: 1 })
  writeFileSync(rules, '[')
  server.child.kill('SIGHUP')
  await server.printed(/^Old rules kept: .*rules.json: .*JSON/m)

  writeFileSync(rules, `[${rule}]`)
  server.child.kill('SIGHUP')
  await server.printed(/(^Read 1 rules from [\s\S]*){2}/m)
  t.match(await ask(), { code: 0, stdout: 'done\n' })
})

t.test('a port that somebody else has is told as that', async (t) => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  t.teardown(() => other.close())
  const { port } = other.address() as AddressInfo
  const { server, path } = await broker(t, [mine(port)])
  const before = await settledFds(server.pid)
  t.match(await run(t, script(CLIENT, '-s', path, `${port}`)), {
    code: 1,
    stderr: /it is taken, by somebody unknown here\n$/,
  })
  const conn = await connect(path)
  await sendFrame(conn, { port, address: '192.0.2.1' })
  const { value } = await framesOf(conn).next()
  t.match(value?.value, { error: /refused, no rule such as/ })
  conn.close()
  await noMoreFds(t, server, before)
})

t.test('requests that run together get their own sockets', async (t) => {
  const ports = [await freePort(), await freePort(), await freePort()]
  const { server, path } = await broker(t, [mine(...ports)])
  const before = await settledFds(server.pid)
  const conn = await connect(path)
  const address = '127.0.0.1'
  // Granted, refused, granted, granted: in one piece, and then byte by byte.
  const [a, b, c] = ports
  const lines = [a, 1, b, c]
    .map((port) => `${JSON.stringify({ port, address, fds: 0 })}\n`)
    .join('')
  await conn.sendFds(lines.slice(0, 100), [])
  for (const byte of lines.slice(100)) await conn.sendFds(byte, [])
  const got: unknown[] = []
  for await (const { value, fds } of framesOf(conn, { maxFds: 1 })) {
    const [fd] = fds
    got.push(value.granted ?? 'refused')
    if (fd !== undefined) {
      t.equal(describeFd(fd).kind, 'socket')
      const adopted = createServer().listen({ fd })
      await once(adopted, 'listening')
      const { port } = adopted.address() as AddressInfo
      t.equal(value.granted, `tcp 127.0.0.1 port ${port}`)
      adopted.close()
      await once(adopted, 'close')
    }
    if (got.length === 4) break
  }
  t.match(got, [/tcp/, 'refused', /tcp/, /tcp/])
  conn.close()
  await noMoreFds(t, server, before)
})

t.test('a bad client gets one line, and costs nobody else', async (t) => {
  const port = await freePort()
  const { server, path } = await broker(t, [mine(port)], '--patience', '3')
  const before = await settledFds(server.pid)
  const silent = await connect(path)
  const complaint = async (
    text: string,
    fds: number[] = [],
  ): Promise<string> => {
    const conn = await connect(path)
    await conn.sendFds(text, fds)
    const answer = await conn.recvFds({ maxFds: 0 })
    t.equal(await conn.recvFds(), null)
    conn.close()
    return `${answer?.data}`
  }
  t.match(await complaint('hello\n'), /Expected a JSON object, got/)
  t.match(await complaint('x'.repeat(5000)), /at most 4096 bytes/)
  const gift = complaint('{"fds":1}\n', [0])
  if (lacksPassRights()) t.match(await gift, /at most 0 descriptors/)
  else await t.rejects(gift, { code: 'EPERM' })
  t.match(await complaint('{"port":0,"fds":0}\n'), /a port from 1 to 65535/)
  t.match(await complaint('{"port":"1-9","fds":0}\n'), /Expected one port/)
  t.match(await complaint('{"port":1,"fds":0}\n'), /an IP address in digits/)
  const many = `{"port":1,"address":"::1","fds":0}\n`.repeat(17)
  const conn = await connect(path)
  await conn.sendFds(many, [])
  const errors: unknown[] = []
  for await (const { value } of framesOf(conn)) errors.push(value.error)
  t.equal(errors.at(-1), 'Expected at most 16 requests, got more')
  conn.close()

  const client = script(CLIENT, '-s', path, `${port}`, '--', 'true')
  t.match(await run(t, client), { code: 0 })
  await server.printed(/: Expected to be done in 3 s, hung up$/m)
  t.equal(await silent.recvFds(), null)
  silent.close()
  await noMoreFds(t, server, before)
})

t.test('a rule for :: alone gives no socket that takes IPv4', async (t) => {
  const port = await freePort()
  const v6 = { uid, ports: [port], addresses: ['::'] }
  const { server, path, rules } = await broker(t, [v6])
  const all = script(CLIENT, '-s', path, '-a', '::', `${port}`, '--', 'true')
  const refused = await run(t, all)
  t.match(refused, { code: 1, stderr: /refused, no rule such as/ })
  const [, rule = ''] = /no rule such as (.*)\n$/.exec(refused.stderr) ?? []
  t.strictSame(JSON.parse(rule).addresses, ['::', '0.0.0.0'])
  writeFileSync(rules, `[${rule}]`)
  server.child.kill('SIGHUP')
  await server.printed(/(^Read 1 rules from [\s\S]*){2}/m)
  t.match(await run(t, all), { code: 0 })
})

t.test('rules that others can write are refused', async (t) => {
  const folder = temporaryFolder(t)
  const file = join(folder, 'rules.json')
  writeFileSync(file, '[]')
  const start = (): ReturnType<typeof run> =>
    run(t, script(SERVER, file, join(folder, 's')))
  const expected = /Expected a file that only root or this server's user can/
  for (const mode of [0o666, 0o620]) {
    chmodSync(file, mode)
    t.match(await start(), { code: 1, stdout: '', stderr: expected })
  }
  if (isRoot) {
    chmodSync(file, 0o644)
    chownSync(file, 65534, 0)
    t.match(await start(), { code: 1, stdout: '', stderr: expected })
  }
  const { server, rules } = await broker(t, [])
  chmodSync(rules, 0o602)
  server.child.kill('SIGHUP')
  await server.printed(/^Old rules kept: .*: Expected a file that only root/m)
})

t.test('one user cannot take all the places', async (t) => {
  const port = await freePort()
  const rules = [mine(port), { uid: 65534, ports: [port], addresses: ['::1'] }]
  const { server, path } = await broker(t, rules, '--patience', '600')
  const before = await settledFds(server.pid)
  const held: UnixConn[] = []
  for (let n = 0; n < 8; n++) held.push(await connect(path))
  await until('they are all accepted', () => {
    return openFds(server.pid).length === before.length + 8
  })
  const client = script(CLIENT, '-s', path, `${port}`, '--', 'true')
  t.match(await run(t, client), {
    code: 1,
    stderr: 'client.ts: Expected at most 8 clients of one user\n',
  })
  if (!noRoot) {
    const other = script(
      CLIENT,
      '-s',
      path,
      '-a',
      '::1',
      `${port}`,
      '--',
      'true',
    )
    t.match(await run(t, other, nobody), { code: 0 })
  }
  for (const conn of held) conn.close()
  await noMoreFds(t, server, before)
  t.match(await run(t, client), { code: 0 })
})

t.test('text of a client does not reach the terminal as it is', async (t) => {
  const { server, path } = await broker(t, [])
  const conn = await connect(path)
  await sendFrame(conn, { port: '\x1b[2J\u009b2J\u202e\r' })
  await server.printed(/: Expected a port from 1 to 65535, .*202e/)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are meant
  t.notMatch(server.stdout, /[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/)
  conn.close()
})

t.test('rules are for users and groups, ports and addresses', async (t) => {
  const file = join(temporaryFolder(t), 'rules.json')
  const json = [
    { gid: 7, ports: [5], addresses: ['0:0::1'] },
    { user: 'root', ports: [80, '8000-8002'], addresses: ['127.0.0.1', '::'] },
    { uid: 2, ports: [80], addresses: ['::', '0.0.0.0'] },
  ]
  writeFileSync(file, JSON.stringify(json))
  const rules = readRules(file)
  const allowed = (uid: number, gid: number, request: object): number =>
    rules.findIndex((rule) =>
      allows(rule, { pid: 1, uid, gid }, parseRequest({ ...request })),
    )
  const v4 = { address: '127.0.0.1' }
  t.equal(allowed(1, 7, { address: '::1', port: 5 }), 0)
  t.equal(allowed(1, 7, { address: '::1', port: '5', protocol: 'tcp' }), 0)
  t.equal(allowed(1, 7, { address: '::1', port: 5, protocol: 'udp' }), -1)
  t.equal(allowed(7, 1, { address: '::1', port: 5 }), -1)
  for (const port of [80, 8000, 8001, 8002]) {
    t.equal(allowed(0, 1, { ...v4, port }), 1, `port ${port}`)
  }
  for (const port of [79, 81, 7999, 8003]) {
    t.equal(allowed(0, 1, { ...v4, port }), -1, `port ${port}`)
  }
  t.equal(allowed(0, 1, { address: '::0', port: 80 }), -1, 'not over IPv4')
  t.equal(allowed(2, 1, { address: '::0', port: 80 }), 2)
  t.equal(allowed(0, 1, { address: '0.0.0.0', port: 80 }), -1)
  t.equal(allowed(0, 1, { address: '::ffff:127.0.0.1', port: 80 }), -1)

  const demo = readRules('examples/port-broker/rules.json')
  t.equal(demo.length, 3)
})

t.test('a mistake in a rule is told, with its number', async (t) => {
  const file = join(temporaryFolder(t), 'rules.json')
  const good = { uid: 1, ports: [1], addresses: ['::1'] }
  const expect = (rule: unknown, message: string): void => {
    writeFileSync(file, JSON.stringify([good, rule]))
    t.throws(() => readRules(file), { message: `rule 2: ${message}` })
  }
  const users = 'Expected one of "user", "uid" and "gid"'
  const { uid: _, ...nobodys } = good
  expect(7, 'Expected an object, got 7')
  expect([], 'Expected an object, got []')
  expect(nobodys, users)
  expect({ ...good, gid: 1 }, users)
  expect({ ...nobodys, uid: -1 }, 'Expected a user name or a number, got -1')
  expect({ ...nobodys, uid: '1' }, 'Expected a user name or a number, got "1"')
  const unknown = 'no-such-user'
  expect(
    { ...nobodys, user: unknown },
    `Expected a user of this machine, got "${unknown}"`,
  )
  expect(
    { ...nobodys, user: '-u' },
    'Expected a user name or a number, got "-u"',
  )
  const fields = 'Expected user, uid, gid, ports, addresses, protocol'
  expect({ ...good, adresses: [] }, `${fields}, got "adresses"`)
  expect({ ...good, ports: 1 }, 'Expected "ports" as an array, got 1')
  const ports = 'Expected a port from 1 to 65535, or "FIRST-LAST", got'
  for (const port of [0, 65536, 1.5, '2-1', '1-65536', 'http', null]) {
    expect({ ...good, ports: [port] }, `${ports} ${JSON.stringify(port)}`)
  }
  const address = 'Expected an IP address in digits, got'
  for (const each of ['localhost', 'fe80::1%lo', 1, '']) {
    expect({ ...good, addresses: [each] }, `${address} ${JSON.stringify(each)}`)
  }
  expect({ ...good, protocol: 'sctp' }, 'Expected "tcp" or "udp", got "sctp"')
  writeFileSync(file, '{}')
  t.throws(() => readRules(file), {
    message: 'Expected the rules as an array, got {}',
  })
})

t.test('Ctrl-C ends the server, with clients connected', async (t) => {
  const { server, path } = await broker(t, [])
  const conn = await connect(path)
  t.equal(statSync(path).mode & 0o777, 0o666, 'anyone may ask')
  await sendFrame(conn, { port: 1, address: '::1' })
  await conn.recvFds()
  server.child.kill('SIGINT')
  t.match(await server.exit, { code: 0, signal: null })
  t.match(server.stdout, /Server stopped\n$/)
  t.equal(server.stderr, '')
  t.throws(() => statSync(path), { code: 'ENOENT' })
  conn.close()
})

t.test('mistakes are told in one line', async (t) => {
  const folder = temporaryFolder(t)
  const path = join(folder, 's')
  const rules = 'examples/port-broker/rules.json'
  const expect = expecting(t)
  await Promise.all([
    expect(SERVER, [], 2, /Expected 1 to 2 arguments, got 0/),
    expect(SERVER, ['--patience=-1', rules], 2, /--patience from .*"-1"\n/),
    expect(SERVER, [join(folder, 'none'), path], 1, /none: ENOENT.*\n$/),
    expect(CLIENT, ['-s', path, 'http'], 2, /PORT as a number, got "http"\n/),
    expect(CLIENT, ['-s', path, '0'], 2, /PORT from 1 to 65535, got "0"\n/),
    expect(CLIENT, ['-s', path, '-u', '53'], 2, /Expected COMMAND with -u/),
    expect(CLIENT, ['-s', path, '80'], 1, /No server on .* first\n$/),
    expect(CLIENT, [], 2, /Expected 1 argument, got 0/),
    // Options after COMMAND are not the client's.
    expect(CLIENT, ['-s', path, '80', 'cat', '--help'], 1, /No server on/),
    expect(CLIENT, ['-s', path, '80', '--', 'cat', '-x'], 1, /No server on/),
    expect(CLIENT, ['-s', path, '80', '-x', 'cat'], 2, /Unknown option '-x'/),
  ])
})

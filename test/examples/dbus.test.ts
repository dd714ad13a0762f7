// examples/dbus: descriptors over a real message bus, with dbus-native here and
// other D-Bus libraries there.

import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import type { Message, MessageBus } from 'dbus-native'
import { type Test, t } from 'tap'

import { closeAll, openBus, takeFds } from '../../examples/dbus/bus.ts'
import {
  connect,
  describeFd,
  FdStream,
  type UnixConn,
} from '../../lib/index.ts'
import { leakFree, openFds, settledFds } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { missing } from '../support/missing.ts'
import { plainEnv, Running, run, script } from '../support/processes.ts'
import { until } from '../support/waiting.ts'
import { expecting, noMoreFds } from './support.ts'

const SERVICE = 'examples/dbus/service.ts'
const CLIENT = 'examples/dbus/client.ts'
const NAME = 'org.example.FileOpener'
const OBJECT = '/org/example/FileOpener'

const installed = existsSync('examples/dbus/node_modules/dbus-native')
const skip = !installed
  ? 'examples/dbus/node_modules is missing: make examples/dbus/node_modules'
  : missing('dbus-daemon')

const packages = createRequire(
  new URL('../../examples/dbus/bus.ts', import.meta.url),
)

/** A message bus of the test's own. */
async function startBus(t: Test, address?: string) {
  const path = join(temporaryFolder(t), 'bus')
  const at = address ?? `unix:path=${path}`
  const options = ['--session', '--nofork', '--nopidfile', '--print-address']
  const daemon = new Running(t, ['dbus-daemon', ...options, '--address', at])
  const [found] = await daemon.printed(/^unix:.*$/m)
  const env = plainEnv({ DBUS_SESSION_BUS_ADDRESS: found })
  return { daemon, path, env }
}

/** The service on it, for a folder with the files `one` and `two`. */
async function startService(t: Test, env: NodeJS.ProcessEnv) {
  const folder = temporaryFolder(t)
  writeFileSync(join(folder, 'one'), 'This is one\n')
  writeFileSync(join(folder, 'two'), 'This is two\n')
  const service = new Running(t, script(SERVICE, folder), { env })
  await service.printed(/^DBUS_SESSION_BUS_ADDRESS=unix:.*\n/m)
  return { service, folder }
}

function invoke(
  bus: MessageBus,
  message: Message,
): Promise<{ error: Error | null; body: unknown[]; fds: number[] }> {
  const target = { destination: NAME, path: OBJECT, interface: NAME }
  return new Promise((resolve) => {
    bus.invoke({ ...target, ...message }, function (error, ...body) {
      const fds = error === null ? takeFds(this.message) : []
      resolve({ error, body, fds })
    })
  })
}

/** A method with descriptors, called as often as the body has indices. */
const fdArray = (member: string, fds: number[]): Message => {
  return { member, signature: 'ah', body: [[...fds.keys()]], fds }
}

t.test('a descriptor goes there, two come back', { skip }, async (t) => {
  const { env } = await startBus(t)
  const { service } = await startService(t, env)
  const before = await settledFds(service.pid)
  const client = script(CLIENT, 'one', 'two')
  const { code, stdout, stderr } = await run(t, client, { env, input: 'x' })
  t.equal(stderr, '')
  t.equal(code, 0)
  t.match(
    stdout,
    /^fd 0, .*: (pipe|socket), read.*\none, fd \d+ here:\nThis is one\ntwo, fd \d+ here:\nThis is two\n$/,
  )
  await service.printed(/: its descriptor is fd \d+ here, (pipe|socket)\n/)
  await service.printed(/: two, fd \d+$/m)
  t.match(service.stdout, /: two, fd \d+\n$/)
  await noMoreFds(t, service, before)
})

t.test('a bus on an abstract address', { skip }, async (t) => {
  // With a comma and a space in its name, escaped.
  const address = `unix:abstract=fdpass-${process.pid}%2c%20`
  const { env } = await startBus(t, address)
  await startService(t, env)
  const { stdout } = await run(t, script(CLIENT, 'one'), { env, input: '' })
  t.match(stdout, /\nThis is one\n$/)
})

t.test('the second address of a list is tried', { skip }, async (t) => {
  const { env } = await startBus(t)
  await startService(t, env)
  const nowhere = join(temporaryFolder(t), 'nowhere')
  const alive = env.DBUS_SESSION_BUS_ADDRESS
  for (const other of ['autolaunch:', `unix:path=${nowhere}`, 'tcp:host=a']) {
    const list = { DBUS_SESSION_BUS_ADDRESS: `${other};${alive}` }
    const command = script(CLIENT, 'one')
    const options = { env: plainEnv(list), input: '' }
    const { stdout, stderr } = await run(t, command, options)
    t.match(stdout, /\nThis is one\n$/, `${other} ${stderr}`)
  }
})

t.test('unix:runtime=yes is in XDG_RUNTIME_DIR', { skip }, async (t) => {
  const folder = temporaryFolder(t)
  await startBus(t, `unix:path=${join(folder, 'bus')}`)
  const env = plainEnv({
    DBUS_SESSION_BUS_ADDRESS: 'unix:runtime=yes',
    XDG_RUNTIME_DIR: folder,
  })
  await startService(t, env)
  const { stdout } = await run(t, script(CLIENT, 'one'), { env, input: '' })
  t.match(stdout, /\nThis is one\n$/)
})

t.test('without a session bus the service starts one', { skip }, async (t) => {
  const folder = temporaryFolder(t)
  const env = plainEnv({ XDG_RUNTIME_DIR: folder })
  delete env.DBUS_SESSION_BUS_ADDRESS
  const { service } = await startService(t, env)
  const socket = join(folder, 'fdpass-dbus.sock')
  t.ok(existsSync(socket))
  const { stdout } = await run(t, script(CLIENT, 'one'), { env, input: '' })
  t.match(stdout, /\nThis is one\n$/)

  const second = await run(t, script(SERVICE, folder), { env })
  t.match(second, { code: 1, stdout: '' })
  t.match(second.stderr, /^service.ts: Another process serves .* already\n$/)

  service.child.kill('SIGINT')
  t.match(await service.exit, { code: 0, signal: null })
  t.match(service.stdout, /\nService stopped\n$/)
  t.equal(service.stderr, '')
  await until('the bus ends with it', () => !existsSync(socket))
})

t.test('a service that is killed takes its bus along', { skip }, async (t) => {
  const folder = temporaryFolder(t)
  const env = plainEnv({ XDG_RUNTIME_DIR: folder })
  delete env.DBUS_SESSION_BUS_ADDRESS
  const { service } = await startService(t, env)
  const conn = await connect(join(folder, 'fdpass-dbus.sock'))
  service.child.kill('SIGKILL')
  t.equal(await conn.recvmsg(), null, 'the bus is gone')
  conn.close()
})

t.test('gdbus is the client', { skip: skip || missing('gdbus') }, async (t) => {
  const { env } = await startBus(t)
  const { service } = await startService(t, env)
  const before = await settledFds(service.pid)
  const gdbus = (method: string, argument: string) => {
    const to = ['call', '--session', '-d', NAME, '-o', OBJECT]
    const call = ['gdbus', ...to, '-m', `${NAME}.${method}`, argument]
    return run(t, call, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  }
  t.match(await gdbus('Describe', '0'), {
    code: 0,
    stdout: "('character device, read',)\n",
  })
  t.match(await gdbus('Open', "['one', 'two']"), {
    code: 0,
    stdout: '([handle 0, 1],)\n',
  })
  t.match(await gdbus('Open', "['three']"), { code: 1, stderr: /ENOENT/ })
  await noMoreFds(t, service, before)
})

// The first python3 of the PATH may be another than the one with the module.
const python = ['python3', '/usr/bin/python3'].find((command) => {
  const { status } = spawnSync(command, ['-c', 'import dbus'])
  return status === 0
})
const noPython = python === undefined && 'Python has no module dbus'

t.test('Python is the client', { skip: skip || noPython }, async (t) => {
  const { env } = await startBus(t)
  const { service, folder } = await startService(t, env)
  const before = await settledFds(service.pid)
  const source = `
import dbus, os, sys
bus = dbus.SessionBus()
opener = dbus.Interface(bus.get_object('${NAME}', '${OBJECT}'), '${NAME}')
with open(sys.argv[1]) as file:
    print(opener.Describe(dbus.types.UnixFd(file)))
for fd in opener.Open(['one', 'two']):
    fd = fd.take()
    print(os.read(fd, 99).decode(), end='')
    os.close(fd)
`
  const command = [python ?? '', '-c', source, join(folder, 'one')]
  const { stdout, stderr } = await run(t, command, { env })
  t.equal(stderr, '')
  t.equal(stdout, 'file, read\nThis is one\nThis is two\n')
  await noMoreFds(t, service, before)
})

leakFreeOnBus('two lines connect', async (t, path) => {
  const { createClient } = packages('dbus-native') as Dbus
  const bus = createClient({ stream: new FdStream(await connect(path)) })
  await bus.getId()

  const file = openSync('package.json', 'r')
  const message = { member: 'Describe', signature: 'h', body: [0], fds: [file] }
  const { body } = await invoke(bus, message)
  t.strictSame(body, ['file, read'])
  closeAll([file])
  const open = { member: 'Open', signature: 'as', body: [['two', 'one']] }
  const { body: indices, fds } = await invoke(bus, open)
  t.strictSame(indices, [[0, 1]])
  const texts = fds.map((fd) => readFileSync(fd, 'utf8'))
  t.strictSame(texts, ['This is two\n', 'This is one\n'])
  closeAll(fds)
  await hangUp(bus)
})

leakFreeOnBus('as many as the bus allows, and one more', async (t, path) => {
  const bus = await openBus(path)
  const open = (count: number): Message => {
    return { member: 'Open', signature: 'as', body: [Array(count).fill('one')] }
  }
  const { fds } = await invoke(bus, open(16))
  t.equal(new Set(fds).size, 16)
  t.match(await invoke(bus, open(17)), {
    error: { message: 'Expected at most 16 names, got 17' },
  })
  // One that sends too many itself is disconnected by dbus-daemon.
  const closed = once(bus.connection, 'close')
  const tooMany = [...fds, fds[0] ?? -1]
  const { error } = await invoke(bus, fdArray('Describe', tooMany))
  t.match(error, { name: 'ConnectionClosedError' })
  await closed
  closeAll(fds)

  const other = await openBus(path)
  const { fds: more } = await invoke(other, open(1))
  t.equal(more.length, 1, 'the service has noticed nothing')
  closeAll(more)
  await hangUp(other)
})

// Why openBus() closes them.
leakFreeOnBus('dbus-native closes no descriptor', async (t, path) => {
  const { createClient } = packages('dbus-native') as Dbus
  const bus = createClient({ stream: new FdStream(await connect(path)) })
  await bus.getId()
  const came = await sendUnclaimed(bus)
  await bus.getId()
  t.equal(came.map(describeFd).length, 3, 'still open')
  closeAll(came)
  await hangUp(bus)
})

leakFreeOnBus('openBus() closes what reaches no code', async (t, path) => {
  const bus = await openBus(path)
  const before = openFds()
  const came = await sendUnclaimed(bus)
  t.equal(came.length, 3)
  await until('all are closed', () => openFds().length === before.length)
  t.strictSame(openFds(), before)
  await hangUp(bus)
})

leakFreeOnBus(
  'the service closes what it did not ask for',
  async (t, path, service) => {
    const bus = await openBus(path)
    const before = await settledFds(service.pid)
    const file = openSync('package.json', 'r')
    const wrong = [
      fdArray('Nothing', [file, file]),
      fdArray('Describe', [file, file]),
      fdArray('Open', [file]),
      { member: 'Describe', signature: 'h', body: [3], fds: [file] },
      { member: 'Describe' },
      { member: 'Open', signature: 'as', body: [['../one']] },
      { member: 'Open', signature: 'as', body: [['one', '..']] },
      { member: 'Open', signature: 'as', body: [['one', '.']] },
    ]
    const errors = []
    for (const message of wrong) errors.push((await invoke(bus, message)).error)
    t.match(
      errors.map((error) => error?.message),
      [
        /Nothing/,
        'Expected an argument of type h, got "ah"',
        'Expected an argument of type as, got "ah"',
        'Expected a descriptor, got none',
        'Expected an argument of type h, got ""',
        'Expected a name without "/", got "../one"',
        'Expected a name without "/", got ".."',
        'Expected a regular file, got "."',
      ],
    )
    closeAll([file])
    await noMoreFds(t, service, before)
    await hangUp(bus)
  },
)

leakFreeOnBus('descriptors right behind BEGIN', async (t, path) => {
  const { marshall } = packages('dbus-native/lib/message.js') as Marshaller
  const file = openSync('package.json', 'r')
  const bus = 'org.freedesktop.DBus'
  const to = { type: 1, destination: bus, path: '/', interface: bus }
  const hello = marshall({ ...to, serial: 1, member: 'Hello' })
  const call = { ...fdArray('NoSuchMethod', [file]), ...to, serial: 2 }
  const uid = Buffer.from(`${process.getuid?.()}`).toString('hex')
  const authenticated = async (): Promise<UnixConn> => {
    const conn = await connect(path)
    for (const line of [`\0AUTH EXTERNAL ${uid}`, 'NEGOTIATE_UNIX_FD']) {
      await conn.sendFds(`${line}\r\n`, [])
      t.match((await conn.recvFds())?.data.toString(), /^(OK|AGREE_UNIX_FD)/)
    }
    return conn
  }

  const hasty = await authenticated()
  const all = Buffer.concat([Buffer.from('BEGIN\r\n'), hello, marshall(call)])
  await hasty.sendFds(all, [file])
  t.equal(await hasty.recvFds(), null, 'dbus-daemon hung up')
  hasty.close()

  const patient = await authenticated()
  await patient.sendFds(Buffer.concat([Buffer.from('BEGIN\r\n'), hello]), [])
  t.match((await patient.recvFds())?.data.toString('latin1'), /:1\.\d+/)
  await patient.sendFds(marshall(call), [file])
  let answers = ''
  while (!answers.includes('UnknownMethod'))
    answers += (await patient.recvFds())?.data.toString('latin1')
  t.pass('dbus-daemon took them')
  patient.close()
  closeAll([file])
})

t.test('mistakes are told in one line', { skip }, async (t) => {
  const folder = temporaryFolder(t)
  const { env, daemon } = await startBus(t)
  const nowhere = plainEnv({ XDG_RUNTIME_DIR: folder })
  delete nowhere.DBUS_SESSION_BUS_ADDRESS
  const at = (address: string) => {
    return plainEnv({ DBUS_SESSION_BUS_ADDRESS: address })
  }
  const expect = expecting(t)
  const noDaemon = { ...nowhere, PATH: folder }
  await Promise.all([
    expect(SERVICE, [], 2, /Expected 1 argument, got 0\nUsage: /, env),
    expect(
      CLIENT,
      [],
      1,
      /^client.ts: No server on .*dbus.sock: start .*service.ts DIR first\n$/,
      nowhere,
    ),
    expect(
      CLIENT,
      [],
      1,
      /^client.ts: No server on \/nowhere: start the session bus first\n$/,
      at('unix:path=/nowhere'),
    ),
    expect(
      CLIENT,
      [],
      1,
      /^client.ts: Expected unix:path=…, .*, got "tcp:host=a,port=1"\n$/,
      at('tcp:host=a,port=1'),
    ),
    expect(
      CLIENT,
      [],
      1,
      /^client.ts: Expected unix:path=…, .*, got "unix:path=\/%zz"\n$/,
      at('unix:path=/%zz'),
    ),
    expect(
      CLIENT,
      [],
      1,
      /^client.ts: No service on the bus: start .*service.ts DIR first\n$/,
      env,
    ),
    expect(
      SERVICE,
      [folder],
      1,
      /^service.ts: Expected a bus, got exit code 127 of dbus-daemon .*\n$/,
      noDaemon,
    ),
  ])

  const { service } = await startService(t, env)
  daemon.child.kill('SIGTERM')
  t.match(await service.exit, { code: 1 })
  t.equal(service.stderr, 'service.ts: The bus hung up\n')
})

type Dbus = typeof import('dbus-native')
type Marshaller = { marshall(message: Message): Buffer }

/** With a bus on `path` and the service on that bus. */
function leakFreeOnBus(
  name: string,
  body: (t: Test, path: string, service: Running) => Promise<void>,
): void {
  leakFree(
    name,
    async (t) => {
      const { path, env, daemon } = await startBus(t)
      const { service } = await startService(t, env)
      await body(t, path, service)
      for (const { child, exit } of [service, daemon]) {
        child.kill('SIGTERM')
        await exit
      }
    },
    skip,
  )
}

/**
 * Sends `bus` messages with a descriptor each, which no code there gets to see.
 * Resolves with these descriptors once they have come.
 */
async function sendUnclaimed(bus: MessageBus): Promise<number[]> {
  const came: number[] = []
  bus.connection.prependListener('message', ({ fds = [] }: Message) => {
    came.push(...fds)
  })
  const file = openSync('package.json', 'r')
  const messages: Message[] = [
    { type: 1, member: 'NoSuchMethod' },
    { type: 4, member: 'NoSuchSignal' },
    { type: 2, replySerial: 999_999 }, // as of a call that has timed out
  ]
  for (const message of messages) {
    bus.connection.message({
      ...{ destination: bus.name, path: OBJECT, interface: NAME },
      ...{ serial: bus.nextSerial(), signature: 'h', body: [0], fds: [file] },
      ...message,
    })
  }
  closeAll([file])
  await until('they came', () => came.length === messages.length)
  return came
}

async function hangUp(bus: MessageBus): Promise<void> {
  const closed = once(bus.connection, 'close')
  bus.connection.end()
  await closed
}

// examples/fdstore: a service whose connections are kept while it is not
// running. Its manager here is checked against libsystemd on the other side.

import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { UnixDatagram } from '../../lib/index.ts'
import { openFds, settledFds } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { plainEnv, Running, run, script } from '../support/processes.ts'
import { until } from '../support/waiting.ts'
import {
  type Client,
  dial,
  expecting,
  freePort,
  hears,
  noMoreFds,
} from './support.ts'

const MANAGER = 'examples/fdstore/manager.ts'
const SERVICE = 'examples/fdstore/service.ts'

const LOAD = "import ctypes; ctypes.CDLL('libsystemd.so.0')"
const noLibsystemd =
  spawnSync('python3', ['-c', LOAD]).status !== 0 &&
  'python3 with libsystemd.so.0 is not installed'

/** A manager, of a command that is given in full. */
function manage(t: Test, command: readonly string[], ...options: string[]) {
  const folder = temporaryFolder(t)
  const env = plainEnv({ XDG_RUNTIME_DIR: folder })
  const all = [...options, ...command]
  const manager = new Running(t, script(MANAGER, ...all), { env })
  // Before the teardown of `manager`, which would leave its child behind.
  t.teardown(() => {
    manager.child.kill('SIGTERM')
    return manager.exit
  })
  return { manager, folder }
}

/** The service under our manager, ready. */
async function start(t: Test, ...options: string[]) {
  const port = await freePort()
  const command = script(SERVICE, '-p', `${port}`)
  const { manager, folder } = manage(t, command, ...options)
  await manager.printed(/^pid \d+: ready$/m)
  return { manager, folder, port }
}

async function ask(
  client: Client,
  question: string,
  answer: string,
): Promise<void> {
  client.socket.write(question)
  await hears(client, new RegExp(`${answer}$`))
}

const times = (text: string, pattern: RegExp): number =>
  [...text.matchAll(pattern)].length

t.test('clients of a service that is killed notice nothing', async (t) => {
  const { manager, port } = await start(t)
  const one = await dial(t, port)
  await ask(one, 'hello\n', '1: hello\n')
  const two = await dial(t, port)
  await ask(two, 'hello\nhello\n', '2: hello\n')

  for (const count of [2, 3]) {
    one.socket.write('crash\n')
    // Another one comes before there is a service again.
    await manager.printed(
      new RegExp(`(: ended, SIGKILL\n[\\s\\S]*){${count - 1}}`),
    )
    const late = await dial(t, port)
    await ask(late, 'late\n', '1: late\n')
    await ask(one, 'again\n', `${count}: again\n`)
    await ask(two, 'again\n', `${count + 1}: again\n`)
    late.socket.end('quit\n')
    await once(late.socket, 'close')
    t.equal(late.told, '1: late\n2: quit\n')
  }
  t.equal(one.told, '1: hello\n2: again\n3: again\n')

  const stdout = manager.stdout
  t.equal(times(stdout, /^Started pid \d+, descriptors: 0$/gm), 1)
  t.equal(times(stdout, /^Started pid \d+, descriptors: 4$/gm), 2)
  t.equal(times(stdout, /, clients from before: 2$/gm), 2)

  manager.child.kill('SIGTERM')
  await Promise.all([one, two].map(({ socket }) => once(socket, 'close')))
  t.match(await manager.exit, { code: 0, signal: null })
  t.match(manager.stdout, /\nStopped, descriptors closed: 4\n$/)
  t.equal(manager.stderr, '')
})

t.test('a service that is asked to end is started anew', async (t) => {
  const { manager, port } = await start(t)
  const client = await dial(t, port)
  await ask(client, 'hello\n', '1: hello\n')
  const [, pid] = manager.stdout.match(/^Started pid (\d+)/) ?? []
  process.kill(Number(pid), 'SIGTERM')
  await manager.printed(/: ended, exit code 0\n[\s\S]*: ready\n/)
  await ask(client, 'again\n', '2: again\n')
  t.equal(client.told, '1: hello\n2: again\n')
})

t.test('what clients leave is closed, and nothing else', async (t) => {
  const { manager, folder, port } = await start(t)
  const before = await settledFds(manager.pid)
  for (let count = 0; count < 10; count++) {
    const client = await dial(t, port)
    await ask(client, 'hello\n', '1: hello\n')
    client.socket.destroy()
    await until('it is removed', () => {
      return times(manager.stdout, /^Removed client-0,/gm) === count + 1
    })
  }
  await noMoreFds(t, manager, before)
  t.match(readdirSync(folder), [/^fdpass-notify-\d+\.sock$/])
  manager.child.kill('SIGTERM')
  await manager.exit
  t.strictSame(readdirSync(folder), [])
})

t.test('a store has an end', async (t) => {
  const { manager, port } = await start(t, '-m', '3')
  const kept = await dial(t, port)
  await ask(kept, 'hello\n', '1: hello\n')
  const lost = await dial(t, port)
  await ask(lost, 'hello\n', '1: hello\n')
  await manager.printed(/^No room for client-1: the store has 3 descriptors$/m)
  const end = once(lost.socket, 'close')
  kept.socket.write('crash\n')
  await end
  await ask(kept, 'again\n', '2: again\n')
  t.equal(kept.told, '1: hello\n2: again\n')
})

t.test('64 clients at once', async (t) => {
  const { manager, port } = await start(t)
  const clients = []
  for (let count = 0; count < 64; count++) clients.push(await dial(t, port))
  await manager.printed(/^Stored client-63 /m)
  const more = await dial(t, port)
  await once(more.socket, 'close')
  t.equal(more.told, 'Expected fewer clients\n')
  clients[7]?.socket.end()
  await manager.printed(/^Removed client-7,/m)
  const next = await dial(t, port)
  await ask(next, 'hello\n', '1: hello\n')
})

// The command stores a pipe by way of libsystemd and dies. Then it has it back
// by way of libsystemd, and has it removed.
const PYTHON = `
import ctypes, os, signal
lib = ctypes.CDLL('libsystemd.so.0')

def say(*words):
    os.write(1, (' '.join(map(str, words)) + '\\n').encode())

def notify(text, fds=()):
    numbers = (ctypes.c_int * len(fds))(*fds)
    say('notify', lib.sd_pid_notify_with_fds(0, 0, text.encode(), numbers, len(fds)))

names = ctypes.POINTER(ctypes.c_char_p)()
count = lib.sd_listen_fds_with_names(1, ctypes.byref(names))
if count == 0:
    r, w = os.pipe()
    os.write(w, b'kept')
    if os.fork() == 0:
        notify('FDSTORE=1\\nFDNAME=child', [r])
        os._exit(0)
    os.wait()
    notify('FDSTORE=1\\nFDNAME=pipe', [r, w])
    notify('FDSTORE=1\\nFDNAME=a:b', [r])
    os.kill(os.getpid(), signal.SIGKILL)
say([names[i].decode() for i in range(count)])
say(os.read(3, 99), os.get_inheritable(3))
notify('STATUS=here\\nREADY=1\\nFDSTOREREMOVE=1\\nFDNAME=pipe')
say('barrier', lib.sd_notify_barrier(0, ctypes.c_uint64(60_000_000)))
say('removed')
signal.pause()
`

t.test(
  'libsystemd stores, and gets back',
  { skip: noLibsystemd },
  async (t) => {
    const { manager } = manage(t, ['python3', '-c', PYTHON])
    await manager.printed(/^removed$/m)
    const { stdout } = manager
    t.match(stdout, /^\['pipe', 'pipe', 'stored'\]$/m)
    t.match(stdout, /^b'kept' False$/m)
    t.match(stdout, /^pid \d+: ready$/m)
    t.match(stdout, /^barrier 1$/m)
    t.equal(times(stdout, /^notify 1$/gm), 4)
    t.equal(times(stdout, /^Removed pipe, fd \d+$/gm), 2)
    // One that says it is not the service is not.
    t.match(stdout, /^pid \d+: is not the service, ignored$/m)
    t.notMatch(stdout, /Stored child/)
    manager.child.kill('SIGTERM')
    await manager.exit
    t.match(manager.stdout, /\nStopped, descriptors closed: 1\n$/)
    t.equal(manager.stderr, '')
  },
)

t.test('under systemd', async (t) => {
  const systemd = new Running(t, ['sh', 'test/peers/systemd.sh', 'sh'])
  // Where there is no systemd the script ends before it has read what is typed:
  // EPIPE. Its exit status, below, says why.
  systemd.child.stdin?.on('error', () => {})
  const type = (line: string) => systemd.child.stdin?.write(`${line}\n`)
  type('echo ready')
  const ready = await systemd.printed(/^ready$/m).catch(() => undefined)
  if (ready === undefined) {
    t.match(await systemd.exit, { code: 77 }, systemd.stderr)
    t.pass('under systemd', { skip: systemd.stderr.trim() })
    return
  }
  const port = await freePort()
  const properties = ['FileDescriptorStoreMax=66', 'Restart=always']
  const options = [...properties, 'Type=notify'].map((one) => `-p ${one}`)
  const command = script(SERVICE, '-p', `${port}`).join(' ')
  type(`systemd-run --user -q -d -u fds ${options.join(' ')} -- ${command}`)
  const show = 'systemctl --user show fds -p NFileDescriptorStore,MainPID'
  type(`${show}; echo shown`)
  await systemd.printed(/^shown$/m)
  t.match(systemd.stdout, /^NFileDescriptorStore=2$/m)

  const client = await dial(t, port)
  await ask(client, 'hello\n', '1: hello\n')
  client.socket.write('crash\n')
  await ask(client, 'again\n', '2: again\n')
  type('systemctl --user restart fds; echo restarted')
  await systemd.printed(/^restarted$/m)
  await ask(client, 'again\n', '3: again\n')
  type(`${show}; echo shown again`)
  await systemd.printed(/^shown again$/m)
  t.match(systemd.stdout, /^NFileDescriptorStore=3$/m)
  const pids = [...systemd.stdout.matchAll(/^MainPID=(\d+)$/gm)]
  t.equal(new Set(pids.map(([, pid]) => pid)).size, 2)

  const end = once(client.socket, 'close')
  systemd.child.stdin?.end()
  t.match(await systemd.exit, { code: 0 })
  await end
  t.equal(systemd.stderr, '')
})

t.test('what the service says, and to whom', async (t) => {
  const path = join(temporaryFolder(t), 'notify')
  const socket = await UnixDatagram.open({ path, passCredentials: true })
  t.teardown(() => socket.close())
  const port = await freePort()
  const service = new Running(t, script(SERVICE, '-p', `${port}`), {
    env: plainEnv({ NOTIFY_SOCKET: path }),
  })
  const hears = async (text: string, count: number) => {
    const { data, fds = [], credentials } = (await socket.receive()) ?? {}
    t.equal(`${data}`, text)
    t.equal(fds.length, count)
    t.equal(credentials?.pid, service.pid)
    return fds
  }
  const [counts = -1] = await hears('FDSTORE=1\nFDNAME=counts', 1)
  t.match(
    openFds().find((fd) => fd.startsWith(`${counts} `)),
    /memfd:counts/,
  )
  await hears('FDSTORE=1\nFDNAME=listening', 1)
  await hears('READY=1', 0)
  const client = await dial(t, port)
  await hears('FDSTORE=1\nFDNAME=client-0', 1)
  await ask(client, 'hello\n', '1: hello\n')
  client.socket.end()
  await hears('FDSTOREREMOVE=1\nFDNAME=client-0', 0)
  t.equal(service.stderr, '')
})

t.test('on an abstract address', async (t) => {
  const name = `fdpass-${process.pid}-notify`
  const socket = await UnixDatagram.open({ path: `\0${name}` })
  t.teardown(() => socket.close())
  const port = await freePort()
  const env = plainEnv({ NOTIFY_SOCKET: `@${name}` })
  new Running(t, script(SERVICE, '-p', `${port}`), { env })
  const { data } = (await socket.receive()) ?? {}
  t.equal(`${data}`, 'FDSTORE=1\nFDNAME=counts')
})

t.test('a service without a manager serves as well', async (t) => {
  const env = plainEnv({ LISTEN_PID: '1', LISTEN_FDS: '1' })
  delete env.NOTIFY_SOCKET
  const port = await freePort()
  const service = new Running(t, script(SERVICE, '-p', `${port}`), { env })
  await service.printed(/^Server ready on .*, clients from before: 0$/m)
  const client = await dial(t, port)
  await ask(client, 'hello\n', '1: hello\n')
  const end = once(client.socket, 'close')
  service.child.kill('SIGINT')
  t.match(await service.exit, { code: 0, signal: null })
  await end
  t.equal(service.stderr, '')
})

t.test('a manager that is gone does not end its service', async (t) => {
  const path = join(temporaryFolder(t), 'notify')
  const socket = await UnixDatagram.open({ path })
  const port = await freePort()
  const env = plainEnv({ NOTIFY_SOCKET: path })
  const service = new Running(t, script(SERVICE, '-p', `${port}`), { env })
  await service.printed(/^Server ready/m)
  socket.close()
  const client = await dial(t, port)
  await ask(client, 'hello\n', '1: hello\n')
  await service.printed(/^Not told to the manager: sendmsg ECONNREFUSED$/m)
  t.equal(client.told, '1: hello\n')
})

t.test('the scripts say what is wrong', async (t) => {
  const expect = expecting(t)
  await expect(SERVICE, ['--help'], 0, /^Usage: .*service\.ts \[-p PORT\]\n/)
  await expect(SERVICE, ['-p', 'x'], 2, /Expected --port as a number, got "x"/)
  await expect(SERVICE, ['a'], 2, /Unexpected argument 'a'/)
  const port = /^service\.ts: Expected --port from 0 to 65535, got "65536"\n/
  await expect(SERVICE, ['-p', '65536'], 2, port)
  const nobody = plainEnv({ NOTIFY_SOCKET: '/nonesuch' })
  await expect(SERVICE, [], 1, /^service\.ts: connect ENOENT/, nobody)

  await expect(MANAGER, ['--help'], 0, /^Usage: .*manager\.ts \[OPTIONS\]/)
  await expect(MANAGER, [], 2, /Expected COMMAND, got none\n/)
  await expect(MANAGER, ['-m', 'x', 'true'], 2, /Expected --most as a number/)
})

t.test('a service that ends again and again is given up', async (t) => {
  const { manager } = manage(t, ['false'])
  t.match(await manager.exit, { code: 1 })
  t.equal(times(manager.stdout, /^pid \d+: ended, exit code 1$/gm), 5)
  t.equal(
    manager.stderr,
    'manager.ts: Started 5 times in 10 s, not once more\n',
  )
})

t.test('descriptors that are promised and not there', async (t) => {
  const source = 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
  const command = ['sh', '-c', source, 'sh', ...script(SERVICE)]
  const { code, stderr } = await run(t, command, { env: plainEnv() })
  t.equal(code, 1)
  const reason = 'Expected a socket or a file as descriptor 3, got: other'
  t.equal(stderr, `service.ts: ${reason}\n`)
})

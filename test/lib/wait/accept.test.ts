// The accept loop: what it waits for, and which errors it outlives.

import { execFileSync } from 'node:child_process'
import { getEventListeners, once } from 'node:events'
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { constants } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { getSystemErrorMap } from 'node:util'
import type { Test } from 'tap'

import { host } from '../../../lib/layouts.ts'
import { check, systemError } from '../../../lib/libc.ts'
import { socket } from '../../../lib/socket/calls.ts'
import { serviceSocket } from '../../../lib/socket/inet.ts'
import * as unix from '../../../lib/socket/unix.ts'
import { Acceptor, connectionsOn } from '../../../lib/wait/accept.ts'
import { listenAt } from '../../../lib/wait/listen-at.ts'
import * as watch from '../../../lib/wait/watch.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing } from '../../support/missing.ts'
import { plainEnv, Running, run, script } from '../../support/processes.ts'
import { until } from '../../support/waiting.ts'

async function listening(t: Test): Promise<{ path: string; fd: number }> {
  const path = join(temporaryFolder(t), 's')
  const { fd } = await listenAt(path, 'stream')
  return { path, fd }
}

const isLinux = process.platform === 'linux'
// As in proc_pid_fdinfo(5).
const O_NONBLOCK = 0o4000
const O_CLOEXEC = 0o2000000
const BOTH = O_CLOEXEC | O_NONBLOCK

function flagsOf(fd: number): number {
  const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')
  return Number.parseInt(/flags:\s+(\d+)/.exec(info)?.[1] ?? '', 8)
}

async function dial(t: Test, path: string): Promise<Socket> {
  const client = connect(path)
  t.teardown(() => client.destroy())
  await once(client, 'connect')
  client.on('error', () => {})
  return client
}

leakFree('connectionsOn() yields descriptors, until aborted', async (t) => {
  const { path, fd } = await listening(t)
  const stop = new AbortController()
  const connections = connectionsOn(fd, { signal: stop.signal })
  // One that waits already, and one that is waited for.
  const first = await dial(t, path)
  const { value: one = -1 } = await connections.next()
  const next = connections.next()
  const second = await dial(t, path)
  const { value: other = -1 } = await next
  for (const accepted of [one, other]) {
    t.ok(fstatSync(accepted).isSocket())
    if (isLinux) t.equal(flagsOf(accepted) & BOTH, BOTH)
    closeSync(accepted)
  }
  await Promise.all(
    [first, second].map((client) => once(client.resume(), 'close')),
  )

  const end = connections.next()
  setImmediate(() => stop.abort())
  t.match(await end, { done: true, value: undefined })
  t.throws(() => fstatSync(fd), { code: 'EBADF' }, 'and closes the listener')
})

/** What Python says of a socket, which is `s` in the expression. */
function ask(fd: number, expression: string): string {
  const source = `import socket; s = socket.socket(fileno=3); print(${expression})`
  return execFileSync('python3', ['-c', source], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit', fd],
  }).trim()
}

/** A struct timeval, as hexadecimal digits. */
const TIMEOUT = 's.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16).hex()'

leakFree(
  'connections have no timeout, nor has the socket in the end',
  async (t) => {
    const { path, fd } = await listening(t)
    const tcp = serviceSocket('tcp', { host: '127.0.0.1', port: 0 })
    const port = Number(ask(tcp, 's.getsockname()[1]'))
    for (const [listener, address] of [
      [fd, { path }],
      [tcp, { host: '127.0.0.1', port }],
    ] as const) {
      // Another process that has the same socket.
      const kept = unix.duplicate(listener)
      const acceptor = new Acceptor(listener)
      const client = connect(address)
      const accepted = (await acceptor.next()) ?? -1
      t.match(ask(accepted, TIMEOUT), /^0+$/)
      if (isLinux) t.ok(flagsOf(kept) & O_NONBLOCK, 'accept(2) does not wait')
      acceptor.close()
      t.match(ask(kept, TIMEOUT), /^0+$/)
      client.destroy()
      closeSync(accepted)
      closeSync(kept)
    }
  },
  missing('python3'),
)

leakFree('connectionsOn() aborted while nobody asks ends next', async (t) => {
  const never = await listening(t)
  const none = connectionsOn(never.fd, { signal: AbortSignal.abort() })
  t.match(await none.next(), { done: true })

  const { path, fd } = await listening(t)
  const clients = [await dial(t, path), await dial(t, path)]
  const stop = new AbortController()
  const connections = connectionsOn(fd, { signal: stop.signal })
  closeSync((await connections.next()).value ?? -1)
  stop.abort()
  t.match(await connections.next(), { done: true }, 'though one is waiting')
  for (const client of clients) client.destroy()
})

leakFree(
  'connectionsOn() leaves nothing on a signal that goes on',
  async (t) => {
    const { signal } = new AbortController()
    for (let round = 0; round < 3; round++) {
      const { path, fd } = await listening(t)
      const client = await dial(t, path)
      for await (const accepted of connectionsOn(fd, { signal })) {
        closeSync(accepted)
        break
      }
      client.destroy()
    }
    t.equal(getEventListeners(signal, 'abort').length, 0)
  },
)

leakFree(
  'connectionsOn() that is aborted closes its socket once',
  async (t) => {
    const { fd } = await listening(t)
    const stop = new AbortController()
    const next = connectionsOn(fd, { signal: stop.signal }).next()
    stop.abort()
    // The number is free, and whoever opens something gets it.
    const opened: number[] = []
    while (!opened.includes(fd)) opened.push(openSync('package.json', 'r'))
    t.match(await next, { done: true })
    t.ok(fstatSync(fd).isFile(), 'whoever has the number now keeps it')
    for (const each of opened) closeSync(each)
  },
)

leakFree('connectionsOn() throws for what does not listen', async (t) => {
  const expected = { code: 'EINVAL', syscall: 'accept' }
  await t.rejects(connectionsOn(unix.newSocket()).next(), expected)
  const [one, other] = unix.newSocketpair()
  await t.rejects(connectionsOn(one).next(), expected)
  closeSync(other)
})

leakFree('a socket of datagrams is refused at once', async (t) => {
  const { AF_UNIX, SOCK_CLOEXEC } = host.constants
  const SOCK_DGRAM = 2
  const fd = check('socket', socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0))
  const onWarning = (): void => void t.fail('a warning')
  if (watch.hasEpoll) {
    const acceptor = new Acceptor(fd, { address: 'datagrams', onWarning })
    await t.rejects(acceptor.next(), {
      // EOPNOTSUPP has the same number on Linux, and no name in libuv.
      code: 'ENOTSUP',
      syscall: 'accept',
      message: 'accept ENOTSUP datagrams',
    })
    acceptor.close()
  } else {
    const refusal = { code: 'ERR_INVALID_FD_TYPE' }
    t.throws(() => new Acceptor(fd, { onWarning }), refusal)
    closeSync(fd)
  }
})

// In a process of its own: were such a number taken for another, as C would
// take it, that one would be closed in the end.
const NUMBERS = `
  import { Acceptor, connectionsOn } from './lib/wait/accept.ts'
  for (const fd of [Number.NaN, 1.5, 2 ** 32]) {
    try {
      new Acceptor(fd)
    } catch ({ name, message }) {
      console.log(name, message)
    }
    await connectionsOn(fd).next().catch(({ name }) => console.log(name))
  }
`

leakFree('what is no descriptor is not taken for one', async (t) => {
  const command = [...script('--input-type=module', '-e'), NUMBERS]
  const result = await run(t, command, { env: plainEnv() })
  const expected = ['NaN', '1.5', '4294967296'].map((fd) => {
    return `RangeError Expected a file descriptor, got ${fd}\nRangeError\n`
  })
  t.equal(result.stdout, expected.join(''), result.stderr)
  t.equal(result.code, 0)
})

leakFree('next() serves in order; an abort leaves the others', async (t) => {
  const { path, fd } = await listening(t)
  const acceptor = new Acceptor(fd)
  const stops = [0, 1, 2, 3].map(() => new AbortController())
  const order: number[] = []
  const calls = stops.map(async ({ signal }, index) => {
    const accepted = await acceptor.next(signal)
    order.push(index)
    closeSync(accepted ?? -1)
  })
  stops[0]?.abort(new Error('enough'))
  stops[2]?.abort()
  const settled = Promise.allSettled(calls)
  const clients = [await dial(t, path), await dial(t, path)]
  const expected = { name: 'AbortError', code: 'ABORT_ERR' }
  const cause = new Error('enough')
  t.match(await settled, [
    { status: 'rejected', reason: { ...expected, cause } },
    { status: 'fulfilled' },
    { status: 'rejected', reason: expected },
    { status: 'fulfilled' },
  ])
  t.strictSame(order, [1, 3])

  const late = new AbortController()
  const aborted = t.rejects(acceptor.next(late.signal), expected)
  late.abort()
  clients.push(await dial(t, path))
  await aborted
  await t.rejects(acceptor.next(AbortSignal.abort()), expected)
  const accepted = await acceptor.next()
  t.type(accepted, 'number', 'the connection has stayed in the backlog')
  closeSync(accepted ?? -1)
  acceptor.close()
  for (const client of clients) client.destroy()
})

leakFree('what is no signal costs no connection', async (t) => {
  const { path, fd } = await listening(t)
  const acceptor = new Acceptor(fd)
  // The types are no hindrance to code in JavaScript.
  const refused = acceptor.next({} as AbortSignal)
  await t.rejects(refused, { name: 'TypeError' })
  const next = acceptor.next()
  const client = await dial(t, path)
  closeSync((await next) ?? -1)
  client.destroy()
  acceptor.close()

  const other = await listening(t)
  const connections = connectionsOn(other.fd, { signal: {} as AbortSignal })
  await t.rejects(connections.next(), { name: 'TypeError' })
  t.throws(() => fstatSync(other.fd), { code: 'EBADF' }, 'it is closed')
})

leakFree(
  'an Acceptor waits for a free descriptor, and says so once',
  async (t) => {
    const { path, fd } = await listening(t)
    const client = await dial(t, path)
    const warnings: Error[] = []
    const acceptor = new Acceptor(fd, {
      address: path,
      onWarning: (warning) => warnings.push(warning),
    })
    const free = useUpDescriptors(t)
    const next = acceptor.next()
    t.match(warnings, [
      {
        code: 'EMFILE',
        syscall: 'accept',
        message: `accept EMFILE ${path}: accepting goes on after a pause`,
      },
    ])
    const first = free()
    const accepted = await next
    t.equal(accepted, first, 'the one that became free')
    t.equal(warnings.length, 1, 'one warning for all failures')
    closeSync(accepted ?? -1)
    client.destroy()
    acceptor.close()
  },
  missing('prlimit'),
)

leakFree(
  'an Acceptor that pauses is closed, or aborted, at once',
  async (t) => {
    const { path, fd } = await listening(t)
    const client = await dial(t, path)
    const acceptor = new Acceptor(fd, { onWarning: () => {} })
    acceptor.unref()
    const free = useUpDescriptors(t)
    const timers = (): number =>
      process.getActiveResourcesInfo().filter((name) => name === 'Timeout')
        .length
    const before = timers()
    const stop = new AbortController()
    const aborted = acceptor.next(stop.signal)
    const closed = acceptor.next()
    t.equal(timers(), before, 'the pause does not keep the process alive')
    acceptor.ref()
    t.equal(timers(), before + 1)
    acceptor.unref()
    t.equal(timers(), before)
    acceptor.ref()
    stop.abort()
    await t.rejects(aborted, { name: 'AbortError' })
    acceptor.close()
    t.equal(await closed, undefined)
    t.equal(timers(), before, 'and the pause is over')
    t.equal(await acceptor.next(), undefined)
    free()
    client.destroy()
  },
  missing('prlimit'),
)

leakFree(
  'an onWarning that throws is told to whoever waits',
  async (t) => {
    const { path, fd } = await listening(t)
    const client = await dial(t, path)
    const acceptor = new Acceptor(fd, {
      onWarning: () => {
        throw new Error('too many warnings')
      },
    })
    const free = useUpDescriptors(t)
    await t.rejects(acceptor.next(), { message: 'too many warnings' })
    free()
    const accepted = await acceptor.next()
    t.ok(accepted !== undefined, 'it goes on for the next')
    closeSync(accepted ?? -1)
    client.destroy()
    acceptor.close()
  },
  missing('prlimit'),
)

leakFree('an Acceptor lets others have their turn', async (t) => {
  const { path, fd } = await listening(t)
  const clients: Socket[] = []
  // Before the check phase of the event loop there may be one poll phase: two
  // times 64 are accepted by then at most.
  for (let i = 0; i < 150; i++) clients.push(await dial(t, path))
  const acceptor = new Acceptor(fd)
  let accepted = 0
  let atFirstTurn = 0
  setImmediate(() => {
    atFirstTurn = accepted
  })
  while (accepted < clients.length) {
    closeSync((await acceptor.next()) ?? -1)
    accepted++
  }
  t.ok(atFirstTurn > 0 && atFirstTurn < clients.length, `${atFirstTurn}`)
  acceptor.close()
  for (const client of clients) client.destroy()
})

// Opens all that the process may open. Returns what closes the lot again, and
// tells the lowest number that becomes free.
function useUpDescriptors(t: Test): () => number {
  const prlimit = (...args: string[]): string => {
    const pid = ['--pid', String(process.pid)]
    return execFileSync('prlimit', [...pid, ...args], { encoding: 'utf8' })
  }
  const usual = prlimit('--nofile', '-o', 'SOFT', '--noheadings').trim()
  prlimit('--nofile=400:')
  const fillers: number[] = []
  try {
    for (;;) fillers.push(openSync('/dev/null', 'r'))
  } catch (error) {
    t.match(error, { code: 'EMFILE' })
  }
  const free = (): number => {
    const lowest = Math.min(...fillers)
    for (const fd of fillers.splice(0)) closeSync(fd)
    prlimit(`--nofile=${usual}:`)
    return lowest
  }
  t.teardown(free)
  return free
}

const SERVER = `
  import { listen } from './lib/index.ts'
  const listener = await listen(process.argv[1])
  process.on('warning', ({ name, message }) => {
    // Node's, about node:ffi.
    if (name !== 'ExperimentalWarning') console.log('warning: ' + message)
  })
  console.log('ready')
  try {
    await listener.serve(async (conn) => {
      const message = await conn.recvmsg()
      if (String(message?.data) === 'stop') return listener.close()
      await conn.sendmsg('answer')
    })
  } catch (error) {
    console.log('ended: ' + error.code)
  }
`

/** A server for whose accept4(2) strace returns errors. */
async function failingServer(t: Test, inject: string) {
  const path = join(temporaryFolder(t), 's')
  const server = new Running(t, [
    ...['strace', '-f', '-q', '-o', '/dev/null', '-e', 'trace=accept4'],
    ...['-e', `inject=accept4:${inject}`],
    ...script('--input-type=module', '-e'),
    SERVER,
    path,
  ])
  await server.printed(/ready/)
  return { server, path }
}

async function talk(t: Test, path: string, text: string): Promise<string> {
  const client = await dial(t, path)
  client.end(text)
  const chunks = await client.toArray()
  return Buffer.concat(chunks).toString()
}

leakFree(
  'a server outlives what strace makes accept(2) return',
  async (t) => {
    const { server, path } = await failingServer(t, 'error=ENOMEM:when=1..5')
    t.equal(await talk(t, path, 'first'), 'answer')
    t.equal(await talk(t, path, 'second'), 'answer')
    await talk(t, path, 'stop')
    t.equal((await server.exit).code, 0)
    const expected = new RegExp(`^ready\nwarning: accept ENOMEM ${path}: .*\n$`)
    t.match(server.stdout, expected, 'one line for five failures')
  },
  missing('strace'),
)

leakFree(
  'a server ends with what cannot pass',
  async (t) => {
    const { server, path } = await failingServer(t, 'error=ENOTSOCK')
    await talk(t, path, 'first').catch(() => '')
    t.equal((await server.exit).code, 0)
    t.equal(server.stdout, 'ready\nended: ENOTSOCK\n')
  },
  missing('strace'),
)

/**
 * An Acceptor for which accept(2) first returns `errors`. If it is quiet, it
 * notes its warnings.
 */
async function failing(t: Test, fd: number, errors: string[], isQuiet = true) {
  const numbers = new Map<string, number>()
  for (const [errno, [name]] of getSystemErrorMap()) numbers.set(name, errno)
  const warnings: Error[] = []
  const acceptFrom = (fd: number): number =>
    numbers.get(errors.shift() ?? '') ?? unix.acceptFrom(fd)
  const { Acceptor } = await t.mockImport<
    typeof import('../../../lib/wait/accept.ts')
  >('../../../lib/wait/accept.ts', {
    '../../../lib/socket/unix.ts': { ...unix, acceptFrom },
  })
  const onWarning = (warning: Error): void => void warnings.push(warning)
  const acceptor = new Acceptor(fd, isQuiet ? { onWarning } : {})
  return { acceptor, warnings }
}

leakFree('errors of accept(2) that pass are tried again', async (t) => {
  const passing = [
    ...['EINTR', 'EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM', 'EPERM', 'EPROTO'],
    ...['ECONNABORTED', 'ENETDOWN', 'ENOPROTOOPT', 'EHOSTDOWN', 'ENONET'],
    ...['EHOSTUNREACH', 'ENOTSUP', 'ENETUNREACH', 'ETIMEDOUT'],
  ]
  const errors = passing.flatMap((name) => [name, name])
  const { path, fd } = await listening(t)
  const { acceptor, warnings } = await failing(t, fd, errors)
  const client = await dial(t, path)
  closeSync((await acceptor.next()) ?? -1)
  t.strictSame(errors, [])
  t.match(
    warnings,
    passing.map((code) => ({ code, syscall: 'accept' })),
    'one warning for each kind',
  )
  acceptor.close()
  client.destroy()
})

leakFree('unless asked for, a warning is one of the process', async (t) => {
  const { path, fd } = await listening(t)
  const { acceptor } = await failing(t, fd, ['ENFILE'], false)
  const warned = once(process, 'warning')
  const next = acceptor.next()
  const expected = { code: 'ENFILE', syscall: 'accept' }
  t.match(await warned, [expected])
  const client = await dial(t, path)
  closeSync((await next) ?? -1)
  client.destroy()
  acceptor.close()
})

leakFree('errors of accept(2) that cannot pass are thrown', async (t) => {
  for (const code of ['EBADF', 'EINVAL', 'ENOTSOCK', 'EFAULT', 'ENOSYS']) {
    const { fd } = await listening(t)
    const { acceptor, warnings } = await failing(t, fd, [code])
    await t.rejects(acceptor.next(), { code, syscall: 'accept' })
    t.strictSame(warnings, [])
    acceptor.close()
  }
})

leakFree('an error of the watch is that of each next()', async (t) => {
  class Failing {
    wait(): void {
      throw systemError('epoll_ctl', -constants.errno.ENOSPC)
    }
    cancel(): void {}
    end(): void {}
  }
  const { Acceptor } = await t.mockImport<
    typeof import('../../../lib/wait/accept.ts')
  >('../../../lib/wait/accept.ts', {
    '../../../lib/wait/watch.ts': { ...watch, Watch: Failing },
  })
  const { path, fd } = await listening(t)
  const acceptor = new Acceptor(fd)
  const failure = { code: 'ENOSPC', syscall: 'epoll_ctl' }
  await t.rejects(acceptor.next(), failure)
  await t.rejects(acceptor.next(), failure)
  const client = await dial(t, path)
  closeSync((await acceptor.next()) ?? -1)
  client.destroy()
  acceptor.close()
})

leakFree(
  'where there is no descriptor to wait with, it tries again',
  async (t) => {
    let left = 2
    class Failing extends watch.Watch {
      override wait(events: number): void {
        if (left-- > 0)
          throw systemError('epoll_create1', -constants.errno.EMFILE)
        super.wait(events)
      }
    }
    const { Acceptor } = await t.mockImport<
      typeof import('../../../lib/wait/accept.ts')
    >('../../../lib/wait/accept.ts', {
      '../../../lib/wait/watch.ts': { ...watch, Watch: Failing },
    })
    const { path, fd } = await listening(t)
    const warnings: Error[] = []
    const onWarning = (warning: Error): unknown => warnings.push(warning)
    const acceptor = new Acceptor(fd, { onWarning })
    const next = acceptor.next()
    await until('it waits', () => left < 0)
    t.match(warnings, [{ code: 'EMFILE', syscall: 'epoll_create1' }])
    const client = await dial(t, path)
    closeSync((await next) ?? -1)
    client.destroy()
    acceptor.close()
  },
)

// Whether it ends before a client connects, for which a timer without a
// reference sees.
const HOLDS = `
  import { connect } from 'node:net'
  import { Acceptor } from './lib/wait/accept.ts'
  import { listenAt } from './lib/wait/listen-at.ts'
  const [, path, ...calls] = process.argv
  const { fd } = await listenAt(path, 'stream')
  const acceptor = new Acceptor(fd)
  const stop = new AbortController()
  const serve = async () => {
    try {
      const accepted = await acceptor.next(stop.signal)
      console.log(accepted === undefined ? 'closed' : 'accepted')
    } catch ({ name }) {
      console.log(name)
    }
  }
  for (const call of calls) {
    if (call === 'next') serve()
    else if (call === 'abort') stop.abort()
    else acceptor[call]()
  }
  setTimeout(() => {
    console.log('connecting')
    connect(path).unref()
  }, 200).unref()
`

const served = 'connecting\naccepted\n'

for (const [calls, expected] of Object.entries({
  ref: '',
  next: served,
  'next unref': '',
  'unref next': '',
  'unref next ref': served,
  'ref unref ref next': served,
  'next abort': 'AbortError\n',
  'next next abort': 'AbortError\nAbortError\n',
  'next close': 'closed\n',
})) {
  leakFree(`a process ends after: ${calls}`, async (t) => {
    const command = [...script('--input-type=module', '-e'), HOLDS]
    const path = join(temporaryFolder(t), 's')
    const args = [...command, path, ...calls.split(' ')]
    const result = await run(t, args, { env: plainEnv() })
    t.equal(result.stdout, expected, result.stderr)
    t.strictSame([result.code, result.signal], [0, null])
  })
}

// Accepts on the socket that the test has made, says who it is, and answers to
// what it is asked.
const NODE = `
  import { closeSync, writeSync } from 'node:fs'
  import { connectionsOn } from './lib/index.ts'
  process.stdin.on('data', (line) => console.log('answer ' + line))
  process.stdin.on('end', () => process.exit())
  console.log('ready')
  for await (const fd of connectionsOn(3)) {
    writeSync(fd, 'node')
    closeSync(fd)
  }
`
const PYTHON = `
import select, socket, sys, threading
listening = socket.socket(fileno=3)
def accept_all():
    while True:
        if sys.argv[1] == 'always':
            listening.setblocking(True)
        try:
            connection, _ = listening.accept()
        except BlockingIOError:
            if sys.argv[1] == 'asked':
                select.select([listening], [], [])
            continue
        connection.sendall(b'python')
        connection.close()
threading.Thread(target=accept_all, daemon=True).start()
print('ready', flush=True)
for line in sys.stdin:
    listening.setblocking(True)
    print('blocks ' + line, flush=True)
`

/** A server in Node and one in Python, on one open file description. */
async function twoServers(t: Test, when: 'asked' | 'always') {
  const { path, fd } = await listening(t)
  const stdio: ('pipe' | number)[] = ['pipe', 'pipe', 'pipe', fd]
  const command = [...script('--input-type=module', '-e'), NODE]
  const node = new Running(t, command, { stdio, env: plainEnv() })
  const python = new Running(t, ['python3', '-c', PYTHON, when], { stdio })
  closeSync(fd)
  await Promise.all([node, python].map((each) => each.printed(/ready/)))

  const served: Record<string, number> = {}
  const dialAll = async (count: number): Promise<void> => {
    const clients = Array.from({ length: count }, async () => {
      const name = await text(connect(path))
      served[name] = (served[name] ?? 0) + 1
    })
    await Promise.all(clients)
  }
  const order = async (server: Running, line: string): Promise<void> => {
    server.child.stdin?.write(`${line}\n`)
    await server.printed(new RegExp(`^(answer|blocks) ${line}$`, 'm'), 20)
  }
  const end = async (): Promise<void> => {
    node.child.stdin?.end()
    python.child.stdin?.end()
    t.equal((await node.exit).code, 0, node.stderr)
    t.equal((await python.exit).code, 0, python.stderr)
  }
  return { node, python, served, dialAll, order, end }
}

leakFree(
  'where another process has made the socket block, accept does not wait',
  async (t) => {
    const servers = await twoServers(t, 'asked')
    const { node, python, served, dialAll, order, end } = servers
    // Mostly Python is quicker: then there is nothing left to accept.
    for (let wave = 1; wave <= 50 || !served.node || !served.python; wave++) {
      await order(python, String(wave))
      await dialAll(1 + (wave % 10))
      // If it waited in accept(2), it would not answer before the next client.
      await order(node, String(wave))
    }
    t.strictSame(Object.keys(served).sort(), ['node', 'python'])
    await end()
  },
  missing('python3'),
)

leakFree(
  'where another process makes the socket block again and again, too',
  async (t) => {
    const { node, served, dialAll, order, end } = await twoServers(t, 'always')
    for (let wave = 1; wave <= 500 || !served.node || !served.python; wave++) {
      await dialAll(1 + (wave % 10))
      await order(node, String(wave))
    }
    t.strictSame(Object.keys(served).sort(), ['node', 'python'])
    await end()
  },
  missing('python3'),
)

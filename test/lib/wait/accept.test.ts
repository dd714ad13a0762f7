// The accept loop: what it waits for, and which errors it outlives.

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fstatSync, openSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { getSystemErrorMap } from 'node:util'
import type { Test } from 'tap'

import * as unix from '../../../lib/socket/unix.ts'
import { Acceptor, connectionsOn } from '../../../lib/wait/accept.ts'
import { listenAt } from '../../../lib/wait/listen-at.ts'
import {
  leakFree,
  missing,
  Running,
  script,
  temporaryFolder,
} from '../../support.ts'

async function listening(t: Test): Promise<{ path: string; fd: number }> {
  const path = join(temporaryFolder(t), 's')
  return { path, fd: await listenAt(path) }
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
  const connections = connectionsOn(fd, stop.signal)
  // One that waits already, and one that is waited for.
  const first = await dial(t, path)
  const { value: one = -1 } = await connections.next()
  const next = connections.next()
  const second = await dial(t, path)
  const { value: other = -1 } = await next
  for (const accepted of [one, other]) {
    t.ok(fstatSync(accepted).isSocket())
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

leakFree('connectionsOn() aborted while nobody asks ends next', async (t) => {
  const never = await listening(t)
  const none = connectionsOn(never.fd, AbortSignal.abort())
  t.match(await none.next(), { done: true })

  const { path, fd } = await listening(t)
  const clients = [await dial(t, path), await dial(t, path)]
  const stop = new AbortController()
  const connections = connectionsOn(fd, stop.signal)
  closeSync((await connections.next()).value ?? -1)
  stop.abort()
  t.match(await connections.next(), { done: true }, 'though one is waiting')
  for (const client of clients) client.destroy()
})

leakFree('connectionsOn() throws for what does not listen', async (t) => {
  const expected = { code: 'EINVAL', syscall: 'accept' }
  await t.rejects(connectionsOn(unix.newSocket()).next(), expected)
  const [one, other] = unix.newSocketpair()
  await t.rejects(connectionsOn(one).next(), expected)
  closeSync(other)
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
    acceptor.keepAlive(false)
    const free = useUpDescriptors(t)
    const stop = new AbortController()
    const aborted = acceptor.next(stop.signal)
    const closed = acceptor.next()
    acceptor.keepAlive(true)
    stop.abort()
    await t.rejects(aborted, { name: 'AbortError' })
    acceptor.close()
    t.equal(await closed, undefined)
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

async function ask(t: Test, path: string, text: string): Promise<string> {
  const client = await dial(t, path)
  client.end(text)
  const chunks = await client.toArray()
  return Buffer.concat(chunks).toString()
}

leakFree(
  'a server outlives what strace makes accept(2) return',
  async (t) => {
    const { server, path } = await failingServer(t, 'error=ENOMEM:when=1..5')
    t.equal(await ask(t, path, 'first'), 'answer')
    t.equal(await ask(t, path, 'second'), 'answer')
    await ask(t, path, 'stop')
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
    await ask(t, path, 'first').catch(() => '')
    t.equal((await server.exit).code, 0)
    t.equal(server.stdout, 'ready\nended: ENOTSOCK\n')
  },
  missing('strace'),
)

/** An Acceptor for which accept(2) first returns `errors`. */
async function failing(t: Test, fd: number, errors: string[]) {
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
  return { acceptor: new Acceptor(fd, { onWarning }), warnings }
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

leakFree('errors of accept(2) that cannot pass are thrown', async (t) => {
  for (const code of ['EBADF', 'EINVAL', 'ENOTSOCK', 'EFAULT', 'ENOSYS']) {
    const { fd } = await listening(t)
    const { acceptor, warnings } = await failing(t, fd, [code])
    await t.rejects(acceptor.next(), { code, syscall: 'accept' })
    t.strictSame(warnings, [])
    acceptor.close()
  }
})

leakFree('a failure of the watcher is told to whoever waits', async (t) => {
  let fail = (_: Error): void => {}
  class Failing {
    constructor(_: number, onReadable: (failure?: Error) => void) {
      fail = onReadable
    }
    watch(): void {}
    rest(): void {}
    close(): void {}
  }
  const { Acceptor } = await t.mockImport<
    typeof import('../../../lib/wait/accept.ts')
  >('../../../lib/wait/accept.ts', {
    '../../../lib/wait/watcher.ts': { Watcher: Failing },
  })
  const { fd } = await listening(t)
  const acceptor = new Acceptor(fd)
  const next = acceptor.next()
  fail(new Error('no way to wait'))
  await t.rejects(next, { message: 'no way to wait' })
  acceptor.close()
  closeSync(fd)
})

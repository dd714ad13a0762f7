// The life of a socket file, and of the connections behind it.

import {
  chmodSync,
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { t } from 'tap'
import { connect, listen, UnixConn, UnixListener } from '../../../lib/index.ts'
import { acceptFrom, newSocket } from '../../../lib/socket/unix.ts'
import * as accepting from '../../../lib/wait/accept.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing } from '../../support/missing.ts'
import { plainEnv, Running, run, script } from '../../support/processes.ts'
import { missingNobody } from '../../support/users.ts'
import { turns, until } from '../../support/waiting.ts'
import { warningsOf } from '../../support/warnings.ts'

async function accept(listener: UnixListener): Promise<UnixConn> {
  for await (const conn of listener) return conn
  throw new Error('Expected a connection, got none')
}

leakFree('listen(), connect() carry bytes and descriptors', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const listener = await listen(path)
  t.equal(listener.path, path)
  const client = await connect(path)
  const server = await accept(listener)
  await client.sendFds('hello', [0])
  const { data, fds } = (await server.recvFds()) ?? { fds: [] }
  t.equal(data?.toString(), 'hello')
  for (const fd of fds) closeSync(fd)
  const uid = process.getuid?.()
  t.match(server.peerCredentials(), { pid: process.pid, uid })
  t.match(client.peerCredentials(), { pid: process.pid, uid })
  for (const each of [client, server, listener]) each.close()
  t.notOk(existsSync(path), 'the socket file is gone')
})

leakFree('listen() makes the file private, or as it is told', async (t) => {
  const folder = temporaryFolder(t)
  for (const [mode, expected] of [
    [undefined, 0o600],
    [0o666, 0o666],
  ] as const) {
    const path = join(folder, `s${mode}`)
    const listener = await listen(path, mode ? { mode } : {})
    t.equal(statSync(path).mode & 0o777, expected)
    listener.close()
  }
})

leakFree('for await goes round until close(), after break too', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const listener = await listen(path)
  const conns: UnixConn[] = []
  const loop = (async () => {
    for await (const conn of listener) conns.push(conn)
  })()
  for (let i = 0; i < 3; i++) conns.push(await connect(path))
  while (conns.length < 6) await new Promise((resolve) => setImmediate(resolve))
  listener.close()
  await loop
  listener.close()
  for await (const conn of listener)
    t.fail(`no connection after close: ${conn}`)
  for (const conn of conns) conn.close()
})

leakFree('two loops over one listener share the connections', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const listener = await listen(path)
  const accepted = [accept(listener), accept(listener)]
  const clients = [await connect(path), await connect(path)]
  for (const conn of [...(await Promise.all(accepted)), ...clients])
    conn.close()
  listener.close()
  t.pass('both were served')
})

leakFree('abstract names need no file', async (t) => {
  const name = `\0fd-test-${process.pid}`
  const listener = await listen(name)
  const client = await connect(name)
  const server = await accept(listener)
  await client.sendmsg('abstract')
  t.equal((await server.recvmsg())?.data.toString(), 'abstract')
  await t.rejects(listen(name), { code: 'EADDRINUSE', pid: process.pid })
  for (const each of [client, server, listener]) each.close()
  await t.rejects(connect(name), { code: 'ECONNREFUSED' })
  const longest = `\0${'x'.repeat(107)}`
  const other = await listen(longest)
  other.close()
  await t.rejects(listen(`${longest}x`), { code: 'ENAMETOOLONG' })
})

leakFree('a path longer than the system allows names the limit', async (t) => {
  const folder = temporaryFolder(t)
  const longest = join(folder, 'x'.repeat(106 - folder.length))
  t.equal(longest.length, 107)
  const listener = await listen(longest)
  const conn = await connect(longest)
  for (const each of [conn, listener]) each.close()
  for (const call of [listen, connect] as ((
    path: string,
  ) => Promise<unknown>)[]) {
    await t.rejects(call(`${longest}y`), {
      code: 'ENAMETOOLONG',
      message: `Expected a socket path of at most 107 bytes, got 108: ${longest}y`,
    })
  }
  await t.rejects(listen(''), { name: 'TypeError' })
  await t.rejects(connect('a\0b'), { name: 'TypeError' })
})

leakFree('connect() fails as Node does', async (t) => {
  const folder = temporaryFolder(t)
  const path = join(folder, 'nope')
  await t.rejects(connect(path), {
    code: 'ENOENT',
    errno: -2,
    syscall: 'connect',
    message: `connect ENOENT ${path}`,
  })
  writeFileSync(path, '')
  await t.rejects(connect(path), { code: 'ECONNREFUSED' })
})

leakFree('listen() replaces the file of a server that died', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const dying = `
    import { listen } from './lib/index.ts'
    await listen(process.argv[1])
    process.kill(process.pid, 'SIGKILL')
  `
  const { signal } = await run(t, [
    ...script('--input-type=module', '-e'),
    dying,
    path,
  ])
  t.equal(signal, 'SIGKILL')
  t.ok(lstatSync(path).isSocket(), 'its file is left over')
  const listener = await listen(path)
  const conn = await connect(path)
  for (const each of [conn, listener]) each.close()
})

leakFree(
  'listen() refuses where a live server answers, with its pid',
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const listener = await listen(path)
    await t.rejects(listen(path), {
      code: 'EADDRINUSE',
      pid: process.pid,
      message: `bind EADDRINUSE ${path}: process ${process.pid} is listening there`,
    })
    const conn = await connect(path)
    for (const each of [conn, listener]) each.close()
  },
)

leakFree('listen() takes a full backlog for a live server', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const listener = await listen(path, { backlog: 0 })
  const first = await connect(path)
  await t.rejects(listen(path), {
    code: 'EADDRINUSE',
    message: /a server is listening there/,
  })
  const waiting = connect(path)
  const accepted = await accept(listener)
  const second = await waiting
  t.pass('connect() waited for its place')
  for (const each of [first, second, accepted, listener]) each.close()
})

leakFree('listen() never removes what is not a socket', async (t) => {
  const folder = temporaryFolder(t)
  const file = join(folder, 'file')
  writeFileSync(file, 'precious')
  const link = join(folder, 'link')
  symlinkSync(file, link)
  mkdirSync(join(folder, 'directory'))
  for (const name of ['file', 'link', 'directory']) {
    await t.rejects(listen(join(folder, name)), {
      code: 'EADDRINUSE',
      syscall: 'bind',
      message: /exists, and is no socket/,
    })
    t.ok(lstatSync(join(folder, name)))
  }
})

leakFree(
  "close() leaves a socket file that is another server's by now",
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const old = await listen(path)
    unlinkSync(path)
    const successor = await listen(path)
    old.close()
    const conn = await connect(path)
    for (const each of [conn, successor]) each.close()
    t.notOk(existsSync(path))
  },
)

t.test(
  'no permission: EACCES, and the file stays',
  { skip: missing('setpriv') || missingNobody() },
  async (t) => {
    const folder = temporaryFolder(t)
    chmodSync(folder, 0o755)
    const path = join(folder, 's')
    const listener = await listen(path)
    const source = `
    import { connect, listen } from './lib/index.ts'
    for (const call of [connect, listen]) {
      await call(process.argv[1]).catch((error) => console.log(error.message))
    }
  `
    const nobody = [
      'setpriv',
      '--reuid=65534',
      '--regid=65534',
      '--clear-groups',
    ]
    const { stdout } = await run(t, [
      ...nobody,
      ...script('--input-type=module', '-e'),
      source,
      path,
    ])
    t.equal(stdout, `connect EACCES ${path}\nconnect EACCES ${path}\n`)
    t.ok(lstatSync(path).isSocket())
    listener.close()
  },
)

leakFree(
  'without free descriptors connections wait in the backlog',
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const source = `
    import { closeSync, openSync } from 'node:fs'
    import { listen } from './lib/index.ts'
    const listener = await listen(process.argv[1])
    const filler = []
    for (;;) { try { filler.push(openSync('/dev/null')) } catch { break } }
    console.log('full')
    process.stdin.once('data', () => {
      for (const fd of filler) closeSync(fd)
    })
    for await (const conn of listener) {
      console.log('accepted')
      listener.close()
      conn.close()
      process.stdin.destroy()
    }
  `
    const command = [...script('--input-type=module', '-e'), source, path]
    const limited = ['prlimit', '--nofile=200:200', ...command]
    const server = new Running(t, limited, { env: plainEnv() })
    await server.printed(/full/)
    const conn = await connect(path)
    t.equal(server.stdout, 'full\n')
    server.child.stdin?.write('go\n')
    await server.printed(/accepted/)
    t.equal((await server.exit).code, 0)
    conn.close()
  },
  missing('prlimit'),
)

leakFree('ref(), unref(): waiting keeps a process alive, or not', async (t) => {
  const alone = (
    what: string,
  ): Promise<{ code: number | null; stdout: string }> =>
    run(t, [
      ...script('--input-type=module', '-e'),
      `import { listen, socketpair } from './lib/index.ts'
       const path = process.argv[1]
       ${what}`,
      join(temporaryFolder(t), 's'),
    ])
  const results = await Promise.all([
    alone('const [a] = socketpair(); a.unref(); a.recvmsg()'),
    alone('const [a] = socketpair(); a.recvmsg(); a.unref()'),
    alone(
      'const l = await listen(path); l.unref(); l[Symbol.asyncIterator]().next()',
    ),
    alone('socketpair(); await listen(path)'),
  ])
  for (const { code } of results) t.equal(code, 0, 'ends by itself')
  const kept = await Promise.all([
    alone(`const [a, b] = socketpair(); a.unref(); a.ref()
      a.recvmsg().then(() => { console.log('got it'); a.close() })
      setTimeout(() => b.sendmsg('x'), 50).unref()`),
    alone(`const l = await listen(path); l.unref(); l.ref()
      setTimeout(() => { console.log('got it'); l.close() }, 50).unref()
      for await (const conn of l) conn.close()`),
    alone(`const [a, b] = socketpair(); a.unref(); a.recvmsg(); a.ref()
      setTimeout(() => { console.log('got it'); a.close() }, 50).unref()`),
  ])
  for (const { stdout } of kept) t.equal(stdout, 'got it\n', 'waits')
})

leakFree(
  "accept errors that are nobody's fault but ours are thrown",
  async (t) => {
    const fd = newSocket()
    t.match(acceptFrom(fd), -22, 'EINVAL: it does not listen')
    closeSync(fd)
    const listener = UnixListener.adopt(
      newSocket(),
      '\0none',
      'stream',
      undefined,
    )
    await t.rejects(accept(listener), { code: 'EINVAL', syscall: 'accept' })
    listener.close()
  },
)

leakFree('UnixListener ref(), unref() return the listener', async (t) => {
  const listener = await listen(join(temporaryFolder(t), 's'))
  t.equal(listener.unref(), listener)
  t.equal(listener.ref(), listener)
  listener.close()
})

leakFree('accept() gives connections in order, null at last', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const listener = await listen(path)
  t.teardown(() => listener.close())
  const accepted = [listener.accept(), listener.accept(), listener.accept()]
  for (const text of ['one', 'two']) {
    const client = await connect(path)
    t.teardown(() => client.close())
    await client.sendmsg(text)
    const conn = await accepted.shift()
    t.equal((await conn?.recvmsg())?.data.toString(), text)
    conn?.close()
    client.close()
  }
  listener.close()
  t.equal(await accepted[0], null)
  t.equal(await listener.accept(), null, 'after close(), too')
})

leakFree('a connection that cannot be set up ends itself only', async (t) => {
  let made = 0
  const failing = {
    adopt: (fd: number): UnixConn => {
      if (made++ === 0) throw new Error('no room for this one')
      return UnixConn.adopt(fd, 'stream')
    },
  }
  const { listen } = await t.mockImport<
    typeof import('../../../lib/conn/listener.ts')
  >('../../../lib/conn/listener.ts', {
    '../../../lib/conn/conn.ts': { UnixConn: failing },
  })
  const warnings: Error[] = []
  const path = join(temporaryFolder(t), 's')
  const onWarning = (warning: Error): void => void warnings.push(warning)
  const listener = await listen(path, { onWarning })
  t.teardown(() => listener.close())
  const first = await connect(path)
  const second = await connect(path)
  const conn = await listener.accept()
  t.equal(await first.recvmsg(), null, 'closed')
  await conn?.sendmsg('welcome')
  t.equal(String((await second.recvmsg())?.data), 'welcome')
  t.match(warnings, [{ message: 'no room for this one' }])
  for (const each of [first, second, conn, listener]) each?.close()
})

leakFree('listen() that cannot wait leaves no file', async (t) => {
  const { listen } = await t.mockImport<
    typeof import('../../../lib/conn/listener.ts')
  >('../../../lib/conn/listener.ts', {
    '../../../lib/wait/accept.ts': {
      ...accepting,
      Acceptor: class {
        constructor() {
          throw new Error('no way to wait')
        }
      },
    },
  })
  for (const path of [join(temporaryFolder(t), 's'), `\0fd-${process.pid}`]) {
    await t.rejects(listen(path), { message: 'no way to wait' })
    t.notOk(existsSync(path))
  }
})

// Another server may take the path as soon as the socket is closed.
leakFree('the file is removed before the socket is closed', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const wasThere: boolean[] = []
  const { listen } = await t.mockImport<
    typeof import('../../../lib/conn/listener.ts')
  >('../../../lib/conn/listener.ts', {
    '../../../lib/wait/accept.ts': {
      ...accepting,
      Acceptor: class extends accepting.Acceptor {
        override close(): void {
          wasThere.push(existsSync(path))
          super.close()
        }
      },
    },
  })
  const listener = await listen(path)
  t.ok(existsSync(path))
  listener.close()
  t.strictSame(wasThere, [false])
})

leakFree('a socket that does not listen: the error names it', async (t) => {
  const warnings: Error[] = []
  const warn = (warning: Error): void => void warnings.push(warning)
  const path = '/run/s'
  const fd = newSocket()
  const listener = UnixListener.adopt(fd, path, 'stream', undefined, warn)
  const expected = { code: 'EINVAL', message: /^accept EINVAL \/run\/s/ }
  await t.rejects(listener.accept(), expected)
  listener.close()
  t.strictSame(warnings, [], 'it is closed without a warning')
})

t.test('a file that has to stay is one warning, and no more', async (t) => {
  const { listen } = await t.mockImport<
    typeof import('../../../lib/conn/listener.ts')
  >('../../../lib/conn/listener.ts', {
    '../../../lib/wait/listen-at.ts': {
      listenAt: async () => ({
        fd: newSocket(),
        file: { remove: () => new Error('it has to stay') },
      }),
    },
  })
  const warnings: Error[] = []
  const onWarning = (warning: Error): void => void warnings.push(warning)
  const listener = await listen('/run/s', { onWarning })
  listener.close()
  listener.close()
  t.equal(await listener.accept(), null, 'all else is done')
  t.strictSame(
    warnings.map(({ message }) => message),
    ['it has to stay'],
  )
})

leakFree('accept() aborted takes no connection', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const listener = await listen(path)
  t.teardown(() => listener.close())
  const stop = new AbortController()
  const { signal } = stop
  const [aborted, waiting] = [listener.accept({ signal }), listener.accept()]
  stop.abort()
  await t.rejects(aborted, { name: 'AbortError', code: 'ABORT_ERR' })
  await t.rejects(listener.accept({ signal }), { name: 'AbortError' })
  const client = await connect(path)
  t.teardown(() => client.close())
  const conn = await waiting
  t.ok(conn, 'the connection is there for the other call')
  for (const each of [conn, client, listener]) each?.close()
})

leakFree('connect() aborted leaves nothing open', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const listener = await listen(path, { backlog: 0 })
  t.teardown(() => listener.close())
  const aborted = { name: 'AbortError', code: 'ABORT_ERR' }
  await t.rejects(connect(path, { signal: AbortSignal.abort() }), aborted)
  const first = await connect(path)
  t.teardown(() => first.close())
  const stop = new AbortController()
  const waiting = connect(path, { signal: stop.signal })
  setImmediate(() => stop.abort('no patience'))
  await t.rejects(waiting, { ...aborted, cause: 'no patience' })
  const conn = await listener.accept()
  for (const each of [first, conn, listener]) each?.close()
})

leakFree('what is no signal is refused, with nothing connected', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const listener = await listen(path)
  const refusal = { name: 'TypeError', message: /^Expected signal as Abort/ }
  // As JavaScript calls them.
  const options = { signal: JSON.parse('{}') }
  await t.rejects(connect(path, options), refusal)
  await t.rejects(listener.accept(options), refusal)
  const client = await connect(path)
  await client.sendmsg('x')
  const server = await accept(listener)
  t.equal(String((await server.recvmsg())?.data), 'x', 'the first there is')
  for (const each of [client, server, listener]) each.close()
})

leakFree('a listener is disposed of with its handlers', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const first = await listen(path)
  first[Symbol.dispose]()
  t.notOk(existsSync(path))
  const second = await listen(path)
  const ends: string[] = []
  const served = second.serve(async (conn) => {
    await conn.sendmsg('welcome')
    t.equal(await conn.recvmsg(), null)
    await turns()
    ends.push('handler')
  })
  const client = await connect(path)
  t.teardown(() => client.close())
  await client.recvmsg()
  await second[Symbol.asyncDispose]()
  t.strictSame(ends, ['handler'])
  await served
  client.close()
})

leakFree(
  'listen() leaves the path of a datagram server',
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const source =
      'import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM);' +
      "s.bind(sys.argv[1]); print('bound', flush=True); input()"
    const python = new Running(t, ['python3', '-c', source, path])
    await python.printed(/bound/)
    await t.rejects(listen(path), { code: 'EPROTOTYPE', syscall: 'connect' })
    t.ok(lstatSync(path).isSocket(), 'still there')
    python.child.stdin?.end('\n')
    await python.exit
  },
  missing('python3'),
)

// Not leakFree(): the mocked modules have a list of epoll of their own.
t.test('a function for warnings that throws ends nothing', async (t) => {
  const warnings = warningsOf(t)
  const failing = {
    adopt: (): never => {
      throw new Error('no connection')
    },
  }
  const { listen } = await t.mockImport<
    typeof import('../../../lib/conn/listener.ts')
  >('../../../lib/conn/listener.ts', {
    '../../../lib/conn/conn.ts': { UnixConn: failing },
  })
  const path = join(temporaryFolder(t), 's')
  const listener = await listen(path, {
    onWarning: () => {
      throw new Error('no warning')
    },
  })
  const client = await connect(path)
  const accepted = listener.accept()
  t.equal(await client.recvmsg(), null, 'closed')
  await until('a warning', () => warnings.length > 0)
  t.match(warnings, [{ message: 'no warning' }])
  listener.close()
  t.equal(await accepted, null)
  client.close()
})

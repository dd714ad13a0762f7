// server.ts as a user runs it: arguments, clients of every kind, and its end.

import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  lstatSync,
  openSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { t } from 'tap'

import { connect } from '../lib/index.ts'
import { openFds, settledFds } from './support/descriptors.ts'
import { temporaryFolder } from './support/folder.ts'
import { missing } from './support/missing.ts'
import { pipe } from './support/pipes.ts'
import {
  plainEnv,
  Running,
  run,
  script,
  startServer,
} from './support/processes.ts'
import { until } from './support/waiting.ts'

const client = (path: string): string[] => script('client.ts', path)

t.test('-h, unknown options and surplus arguments', async (t) => {
  for (const file of ['server.ts', 'client.ts']) {
    const help = await run(t, script(file, '-h'))
    t.equal(help.code, 0)
    t.match(help.stdout, `Usage: ./${file} [SOCKET]\n`)
    for (const args of [['--nonsense'], ['a', 'b']]) {
      const { code, stdout, stderr } = await run(t, script(file, ...args))
      t.equal(code, 2, args.join(' '))
      t.match(stderr, `Usage: ./${file} [SOCKET]\n`)
      t.equal(stdout, '')
    }
  }
})

t.test("the default path is this user's own", async (t) => {
  const folder = temporaryFolder(t)
  const uid = process.getuid?.()
  for (const [env, path] of [
    [{ XDG_RUNTIME_DIR: folder }, join(folder, 'fdpass.sock')],
    [
      { XDG_RUNTIME_DIR: '', TMPDIR: folder },
      join(folder, `fdpass-${uid}.sock`),
    ],
  ] as const) {
    const server = new Running(t, script('server.ts'), { env: plainEnv(env) })
    const line = await server.printed(/^Server ready on (.*), pid (\d+)\n/m)
    t.strictSame(line.slice(1), [path, `${server.pid}`])
    t.equal(server.stdout.indexOf('Server ready on'), 0, 'the first line')
    t.equal(statSync(path).mode & 0o777, 0o600)
    const { code } = await run(t, script('client.ts'), {
      env: plainEnv(env),
      input: 'x\n',
    })
    t.equal(code, 0)
    server.child.kill('SIGINT')
    await server.exit
  }
})

t.test('XDG_RUNTIME_DIR that names no directory', async (t) => {
  const folder = join(temporaryFolder(t), 'gone')
  for (const file of ['server.ts', 'client.ts']) {
    const env = plainEnv({ XDG_RUNTIME_DIR: folder })
    const { code, stdout, stderr } = await run(t, script(file), { env })
    t.equal(code, 1)
    t.equal(stdout, '')
    const expected = 'Expected a directory as XDG_RUNTIME_DIR, got'
    t.equal(stderr, `${file}: ${expected} ${folder}\n`)
    // It is not asked for where it is not needed.
    const path = join(temporaryFolder(t), 's')
    const named = await run(t, script(file, path, '--help'), { env })
    t.equal(named.code, 0)
  }
})

t.test('a socket that listens as standard input', async (t) => {
  const { path, server } = await startServer(t)
  const listener = createServer().listen(join(temporaryFolder(t), 'l'))
  await once(listener, 'listening')
  const { fd } = Reflect.get(listener, '_handle') as { fd: number }
  const { code, stdout, stderr } = await run(t, client(path), {
    stdio: [fd, 'pipe', 'pipe'],
  })
  listener.close()
  t.equal(code, 1)
  t.equal(stderr, '')
  const reason = 'read EINVAL cannot read this: it is a socket that listens'
  t.match(stdout, `\nServer: ${reason}\n`)
  await server.printed(new RegExp(`^client 1: ${reason}$`, 'm'))
})

// Of a container, say: there the kernel keeps every signal from it that it has
// no handler for.
const noNamespace =
  process.getuid?.() !== 0 ? 'only root can' : missing('unshare', 'sh')

t.test('as process 1, Ctrl-C ends both', { skip: noNamespace }, async (t) => {
  const path = join(temporaryFolder(t), 's')
  const asProcess1 = (file: string) =>
    new Running(
      t,
      ['unshare', '--pid', '--fork', '--kill-child', ...script(file, path)],
      {
        stdio: ['pipe', 'pipe', 'pipe'],
      },
    )
  const server = asProcess1('server.ts')
  await server.printed(/^Server ready on .*, pid 1$/m)
  const lender = asProcess1('client.ts')
  await lender.printed(/^Sent fd 0, pid 1: /m)
  await server.printed(/fd 0 there/)
  // unshare(1) is the parent, and waits for it.
  for (const [running, code] of [
    [lender, 130],
    [server, 0],
  ] as const) {
    const children = `/proc/${running.pid}/task/${running.pid}/children`
    process.kill(Number(readFileSync(children, 'utf8')), 'SIGINT')
    t.match(await running.exit, { code })
  }
})

t.test(
  'a second server names the first; what is no socket stays',
  async (t) => {
    const { path, server } = await startServer(t)
    const second = await run(t, script('server.ts', path))
    t.equal(second.code, 1)
    t.equal(
      second.stderr,
      `server.ts: bind EADDRINUSE ${path}: process ${server.pid} is listening there\n`,
    )
    // The first says nothing of the connection by which the second found it.
    const { code } = await run(t, client(path), { input: '' })
    t.equal(code, 0)
    await server.printed(/client 1: End of input\n/)
    t.match(
      server.stdout,
      /^Server ready on .*\nclient 1: connected, .*\nclient 1: says "Here is my stdin"\n/,
    )
    const file = join(temporaryFolder(t), 'file')
    writeFileSync(file, '')
    const refused = await run(t, script('server.ts', file))
    t.equal(refused.code, 1)
    t.match(refused.stderr, /exists, and is no socket\n$/)
    t.ok(lstatSync(file).isFile())
    const long = await run(t, script('server.ts', `/tmp/${'x'.repeat(200)}`))
    t.equal(long.code, 1)
    t.match(
      long.stderr,
      /^server.ts: Expected a socket path of at most 107 bytes, got 205: /,
    )
  },
)

t.test(
  'SIGINT and SIGTERM hang up on all clients and remove the file',
  async (t) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      const { path, server } = await startServer(t)
      const waiting = [
        new Running(t, client(path)),
        new Running(t, client(path)),
      ]
      for (const each of waiting) await each.printed(/Sent fd 0/)
      await server.printed(/client 2: fd/)
      server.child.kill(signal)
      t.strictSame(await server.exit, { code: 0, signal: null }, signal)
      for (const each of waiting) {
        t.equal((await each.exit).code, 1)
        t.match(each.stderr, 'The server went away')
      }
      t.notOk(existsSync(path))
      t.match(server.stdout, /Server stopped\n$/)
      t.equal(server.stderr, '')
    }
  },
)

t.test('two clients at a time; a silent one delays nobody', async (t) => {
  const { path, server } = await startServer(t)
  const silent = await connect(path)
  const [one, two] = [
    new Running(t, client(path)),
    new Running(t, client(path)),
  ]
  await Promise.all([one.printed(/Sent fd/), two.printed(/Sent fd/)])
  one.child.stdin?.write('a\n')
  const [, first] = await server.printed(/client (\d)> a\n/)
  two.child.stdin?.write('b\n')
  const [, second] = await server.printed(/client (\d)> b\n/)
  t.not(first, second)
  one.child.stdin?.write('c\n')
  await server.printed(new RegExp(`client ${first}> c\n`))
  // One is killed: the server lets go of its pipe, which then has no reader.
  one.child.kill('SIGKILL')
  await server.printed(
    new RegExp(`client ${first}: hung up, its input is closed`),
  )
  two.child.stdin?.end('d\n')
  t.equal((await two.exit).code, 0)
  silent.close()
  server.child.kill('SIGINT')
  await server.exit
  // After some seconds the server tells the silent one that it waited for it.
  const connected = server.stdout.matchAll(/client \d: connected, pid (\d+)/g)
  const pids = [...connected].map(([, pid]) => Number(pid))
  t.strictSame(
    pids.filter((pid) => pid !== process.pid).sort(),
    [one.pid, two.pid].sort(),
  )
})

t.test('who hangs up without a word has no number', async (t) => {
  const { path, server } = await startServer(t)
  const silent = await connect(path)
  silent.close()
  await run(t, client(path), { input: 'a\n' })
  server.child.kill('SIGINT')
  await server.exit
  t.strictSame(server.stdout.match(/client \d: connected/g), [
    'client 1: connected',
  ])
})

t.test(
  'messages with none, several, as many as there may be, and more',
  async (t) => {
    const { path, server } = await startServer(t)
    const before = await settledFds(server.pid)

    const none = await connect(path)
    await none.sendmsg('just words\x1b[2J')
    t.equal((await none.recvmsg())?.data.toString(), 'No descriptor came')
    t.equal(await none.recvmsg(), null, 'and hangs up')
    await server.printed(/client 1: says "just words\\u001b\[2J"\n/)

    const several = await connect(path)
    const files = [
      openSync('LICENSE', 'r'),
      openSync('/dev/null', 'r'),
      openSync('.', 'r'),
    ]
    await several.sendFds('three', files)
    t.match(
      (await several.recvmsg())?.data.toString(),
      'End of input; read EISDIR',
    )
    await server.printed(/client 2: fd \d+ here, another there: directory/)
    await server.printed(/client 2> BSD 2-Clause License/)

    const full = await connect(path)
    await full.sendFds('all', Array(8).fill(files[1]))
    t.equal((await full.recvmsg())?.data.toString(), 'End of input')
    await server.printed(/client 3: End of input\n/)
    t.equal(server.stdout.match(/client 3: fd \d+ here/g)?.length, 8)

    const silent = pipe()
    const twice = await connect(path)
    await twice.sendFds('once', [silent.r])
    await server.printed(/client 4: fd/)
    await twice.sendmsg('again')
    const answer = await twice.recvmsg()
    t.equal(answer?.data.toString(), 'Expected one message, got two')

    const tooMany = await connect(path)
    await tooMany.sendFds('more', Array(253).fill(files[1]))
    const refused = 'Expected at most 8 descriptors, got 253: closed all'
    t.equal((await tooMany.recvmsg())?.data.toString(), refused)
    await server.printed(new RegExp(`client 5: ${refused}\n`))

    for (const conn of [none, several, full, twice, tooMany]) conn.close()
    for (const fd of [...files, silent.r, silent.w]) closeSync(fd)
    t.equal(server.stderr, '')
    await until(
      'as many descriptors as before',
      () => openFds(server.pid).length === before.length,
    )
  },
)

t.test('long lines, and input that never ends', async (t) => {
  const { path, server } = await startServer(t)
  const megabyte = 'x'.repeat(1024 * 1024)
  const { code } = await run(t, client(path), { input: `${megabyte}\nend\n` })
  t.equal(code, 0)
  await server.printed(/client 1: End of input/)
  t.ok(server.stdout.includes(`client 1> ${megabyte}\nclient 1> end\n`))
})

t.test('200 clients of every kind leave no descriptor behind', async (t) => {
  const { path, server } = await startServer(t)
  const file = openSync('package.json', 'r')
  const out = openSync('/dev/null', 'w')
  const directory = openSync('.', 'r')
  const kinds: ((
    conn: Awaited<ReturnType<typeof connect>>,
  ) => Promise<unknown>)[] = [
    async () => {},
    (conn) => conn.sendmsg('no descriptor').then(() => conn.recvmsg()),
    (conn) => conn.sendFds('file', [file]).then(() => conn.recvmsg()),
    (conn) => conn.sendFds('write-only', [out]).then(() => conn.recvmsg()),
    (conn) => conn.sendFds('directory', [directory]).then(() => conn.recvmsg()),
    (conn) => conn.sendFds('gone at once', [file, out, directory]),
    (conn) =>
      conn.sendFds('many', Array(100).fill(file)).then(() => conn.recvmsg()),
    (conn) =>
      conn
        .sendmsg(Buffer.alloc(100_000))
        .then(() => conn.recvmsg())
        .catch(() => {}),
  ]
  const round = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      const conn = await connect(path)
      await kinds[i % kinds.length]?.(conn)
      conn.close()
    }
  }
  const before = await settledFds(server.pid)
  await round(200)
  await until(
    'the table as before',
    () => openFds(server.pid).length === before.length,
  )
  t.strictSame(
    openFds(server.pid).map((fd) => fd.replace(/\d+\]/, ']')),
    before.map((fd) => fd.replace(/\d+\]/, ']')),
  )
  for (const fd of [file, out, directory]) closeSync(fd)
  server.child.kill('SIGINT')
  t.equal((await server.exit).code, 0)
})

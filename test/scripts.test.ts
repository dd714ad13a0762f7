// server.ts and client.ts as a user runs them.

import { type StdioOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
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
import { newSocketpair } from '../lib/socket/unix.ts'
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
import { noTerminal, terminal } from './support/terminal.ts'
import { missingNobody } from './support/users.ts'
import { until } from './support/waiting.ts'

const client = (path: string): string[] => script('client.ts', path)

t.test('--help, unknown options and surplus arguments', async (t) => {
  for (const file of ['server.ts', 'client.ts']) {
    for (const option of ['--help', '-h']) {
      const { code, stdout } = await run(t, script(file, option))
      t.equal(code, 0)
      t.match(stdout, `Usage: ./${file} [SOCKET]\n`)
    }
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

t.test('a client without a server is told which to start', async (t) => {
  const folder = temporaryFolder(t)
  const env = plainEnv({ XDG_RUNTIME_DIR: folder })
  const usual = await run(t, script('client.ts'), { env })
  const other = await run(t, script('client.ts', 'other.sock'), { env })
  t.equal(
    usual.stderr,
    `client.ts: No server on ${folder}/fdpass.sock: start ./server.ts first\n`,
  )
  t.equal(
    other.stderr,
    'client.ts: No server on other.sock: start ./server.ts other.sock first\n',
  )
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

t.test('lines come through a pipe, as they are', async (t) => {
  const { path, server } = await startServer(t)
  const { code, stdout } = await run(t, client(path), {
    input: 'one\nzwölf €\r\n\nlast',
  })
  t.equal(code, 0)
  t.match(
    stdout,
    /^Connected to .*\nSent fd 0, pid \d+: (pipe|socket)\nServer: End of input\n$/,
  )
  const uid = process.getuid?.()
  await server.printed(/client 1: End of input/)
  t.match(
    server.stdout,
    new RegExp(`client 1: connected, pid \\d+, uid ${uid}
client 1: says "Here is my stdin"
client 1: fd \\d+ here, fd 0 there: (pipe|socket)
client 1> one
client 1> zwölf €
client 1>\\s
client 1> last
client 1: End of input
`),
  )
})

t.test('every kind of standard input', async (t) => {
  const { path, server } = await startServer(t)
  const [near, far] = newSocketpair()
  const sender = spawn('sh', ['-c', 'echo over the socket >&3'], {
    stdio: ['ignore', 'ignore', 'inherit', far],
  })
  closeSync(far)
  await once(sender, 'close')
  const folder = temporaryFolder(t)
  writeFileSync(join(folder, 'file'), 'from a file\n')
  const cases: [string, string | number, RegExp, number][] = [
    ['file', openSync(join(folder, 'file'), 'r'), /> from a file\n/, 0],
    ['socket', near, /> over the socket\n/, 0],
    [
      '/dev/null',
      openSync('/dev/null', 'r'),
      /character device\nclient 3: End of input/,
      0,
    ],
    [
      'write-only',
      openSync(join(folder, 'out'), 'w'),
      /client 4: read EBADF cannot read this: it is write-only/,
      1,
    ],
    [
      'directory',
      openSync('.', 'r'),
      /client 5: read EISDIR cannot read this: it is a directory/,
      1,
    ],
  ]
  for (const [name, stdin, expected, exit] of cases) {
    const stdio: StdioOptions = [stdin as number, 'pipe', 'pipe']
    const { code } = await run(t, client(path), { stdio })
    closeSync(stdin as number)
    t.equal(code, exit, name)
    await server.printed(expected)
  }
  // Node puts a /dev/null in the place of a closed one.
  const closed = ['sh', '-c', '"$@" <&-', 'sh', ...client(path)]
  t.equal((await run(t, closed)).code, 0)
  await server.printed(/client 6: End of input/)
})

t.test(
  'a /dev/null that is open for writing, too, is an empty input',
  { skip: missing('python3') },
  async (t) => {
    const { path, server } = await startServer(t)
    const source =
      'import subprocess, sys; sys.exit(subprocess.call(' +
      'sys.argv[1:], stdin=subprocess.DEVNULL))'
    const command = ['python3', '-c', source, ...client(path)]
    const { code, stderr } = await run(t, command)
    t.equal(stderr, '')
    t.equal(code, 0)
    await server.printed(/client 1: End of input/)
  },
)

t.test(
  'the client says that there is no server, or that it went',
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const none = await run(t, client(path))
    t.equal(none.code, 1)
    t.equal(
      none.stderr,
      `client.ts: No server on ${path}: start ./server.ts ${path} first\n`,
    )

    const server = new Running(t, script('server.ts', path))
    await server.printed(/Server ready/)
    const waiting = new Running(t, client(path))
    await waiting.printed(/Sent fd 0/)
    server.child.kill('SIGKILL')
    t.equal((await waiting.exit).code, 1)
    t.equal(waiting.stderr, 'client.ts: The server went away\n')
    await server.exit
    const stale = await run(t, client(path))
    t.equal(
      stale.stderr,
      `client.ts: No server on ${path}: start ./server.ts ${path} first\n`,
    )

    // The file that the killed server left is replaced.
    const next = new Running(t, script('server.ts', path))
    await next.printed(/Server ready/)
  },
)

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
  // Who never said anything is not mentioned, and has no number.
  silent.close()
  server.child.kill('SIGINT')
  await server.exit
  t.strictSame(server.stdout.match(/client \d: connected/g)?.sort(), [
    'client 1: connected',
    'client 2: connected',
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

t.test(
  '100 MB of input in constant memory',
  { skip: missing('yes', 'head') },
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const printed = join(temporaryFolder(t), 'out')
    const out = openSync(printed, 'w')
    const server = new Running(t, script('server.ts', path), {
      stdio: ['ignore', out, 'pipe'],
    })
    closeSync(out)
    await until('the server', () => /ready/.test(readFileSync(printed, 'utf8')))
    const rss = (): number => {
      const status = readFileSync(`/proc/${server.pid}/status`, 'utf8')
      return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) / 1024
    }
    const feed = (bytes: number): Promise<{ code: number | null }> =>
      run(t, [
        'sh',
        '-c',
        `yes "$0" | head -c ${bytes} | "$@"`,
        'a line of text that repeats '.repeat(30),
        ...client(path),
      ])
    t.equal((await feed(10_000_000)).code, 0)
    const warm = rss()
    t.equal((await feed(100_000_000)).code, 0)
    t.ok(
      rss() < warm + 64,
      `peak memory: ${warm} MB after 10 MB of input, ${rss()} MB after 100`,
    )
  },
)

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

t.test('a terminal: typed lines, and Ctrl-D', noTerminal, async (t) => {
  const { path, server } = await startServer(t)
  const { shell, type } = await terminal(t)
  type(`${client(path).join(' ')}\n`)
  await shell.printed(/Sent fd 0, pid \d+: terminal/)
  await server.printed(/client 1: fd \d+ here, fd 0 there: terminal/)
  type('hello\n')
  await server.printed(/client 1> hello\n/)
  type('wörld\n')
  await server.printed(/client 1> wörld\n/)
  type('\x04')
  await shell.printed(/Server: End of input/)
  type('echo exit=$?\n')
  await shell.printed(/exit=0/)
  await server.printed(/client 1: End of input\n$/m)
  t.match(server.stdout, /client 1: End of input\n$/)
})

for (const [how, end] of [
  ['Ctrl-C', (type: (text: string) => void) => type('\x03')],
  ['SIGKILL', (_: unknown, pid: number) => process.kill(pid, 'SIGKILL')],
] as const) {
  t.test(
    `a terminal after ${how}: the shell gets every keystroke`,
    noTerminal,
    async (t) => {
      const { path, server } = await startServer(t)
      const { shell, type } = await terminal(t)
      type('echo before-$(stty -g)-\n')
      const [, mode] = await shell.printed(/before-([0-9a-f:]+)-/)
      type(`${client(path).join(' ')}\n`)
      const [, pid] = await shell.printed(/Sent fd 0, pid (\d+): terminal/)
      await server.printed(/client 1: fd/)
      type('seen by the server\n')
      await server.printed(/client 1> seen by the server/)
      end(type, Number(pid))
      await server.printed(/client 1: hung up, its input is closed/)
      for (let i = 0; i < 20; i++) type(`echo typed-$((${i} + 100))\n`)
      for (let i = 0; i < 20; i++)
        await shell.printed(new RegExp(`typed-${100 + i}`))
      t.notMatch(server.stdout, 'echo typed', 'the server saw none of it')
      type('echo after-$(stty -g)-\n')
      const [, modeAfter] = await shell.printed(/after-([0-9a-f:]+)-/)
      t.equal(modeAfter, mode, 'the mode of the terminal')
    },
  )
}

t.test('a pipe is left as it was for who reads it next', async (t) => {
  const { path, server } = await startServer(t)
  const source = 'cat | ("$@"; cat)'
  const shell = new Running(t, ['sh', '-c', source, 'sh', ...client(path)])
  const [, pid] = await shell.printed(/Sent fd 0, pid (\d+): pipe/)
  shell.child.stdin?.write('first\n')
  await server.printed(/client 1> first\n/)
  process.kill(Number(pid), 'SIGKILL')
  await server.printed(/client 1: hung up, its input is closed/)
  shell.child.stdin?.end('second\n')
  await shell.exit
  t.match(shell.stdout, /\nsecond\n$/)
  t.notMatch(server.stdout, 'second')
})

t.test(
  'a server of another user gets no descriptor',
  {
    skip: missing('setpriv') || missingNobody(),
  },
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const folder = join(path, '..')
    chownSync(folder, 65534, 65534)
    chmodSync(folder, 0o755)
    const nobody = [
      'setpriv',
      '--reuid=65534',
      '--regid=65534',
      '--clear-groups',
    ]
    const server = new Running(t, [...nobody, ...script('server.ts', path)])
    await server.printed(/Server ready/)
    const { code, stderr } = await run(t, client(path), { input: 'secret\n' })
    t.equal(code, 1)
    t.equal(
      stderr,
      "client.ts: Expected a server of this user's, got one of uid 65534\n",
    )
    server.child.kill('SIGTERM')
    await server.exit
    t.notMatch(server.stdout, 'client 1', 'nothing came')
  },
)

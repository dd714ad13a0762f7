// client.ts as a user runs it: each kind of input, and a server that is not there,
// or is not to be trusted.

import { type StdioOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  closeSync,
  openSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { t } from 'tap'

import { newSocketpair } from '../lib/socket/unix.ts'
import { temporaryFolder } from './support/folder.ts'
import { missing } from './support/missing.ts'
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

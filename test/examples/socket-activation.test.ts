// examples/socket-activation/, as a user runs it: our activator and systemd's,
// our service and others. Linux has /proc, where the tests look.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { type Test, t } from 'tap'
import { listenFds } from '../../examples/socket-activation/listen-fds.ts'
import { connect as connectUnix, type UnixConn } from '../../lib/index.ts'
import { openFds, settledFds } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { missing } from '../support/missing.ts'
import { plainEnv, Running, run, script } from '../support/processes.ts'
import { until } from '../support/waiting.ts'
import { freePort, get, noMoreFds } from './support.ts'

const ACTIVATE = 'examples/socket-activation/activate.ts'
const SERVICE = script('examples/socket-activation/service.ts')
const MODULE = './examples/socket-activation/listen-fds.ts'

function activator(t: Test, ...args: string[]): Running {
  return new Running(t, script(ACTIVATE, ...args))
}

/** A command that runs `code` with listenFds() at hand. */
function node(code: string): string[] {
  const source = `import { listenFds } from '${MODULE}'\n${code}`
  const asModule = ['--input-type=module', '-e', source]
  return [process.execPath, '--import', 'tsx', ...asModule]
}

/** A command with LISTEN_PID right and the rest of the variables as given. */
function claiming(variables: string, command: readonly string[]): string[] {
  const fill = `export LISTEN_PID=$$ ${variables}; exec "$@"`
  return ['sh', '-c', fill, 'sh', ...command]
}

/** What the service answers to a request, to a port or a path. */
async function ask(where: number | string): Promise<string> {
  return (await get(where, { path: '/asked' })).body
}

async function dial(where: number | string): Promise<Socket> {
  const socket =
    typeof where === 'number' ? connect(where, '127.0.0.1') : connect(where)
  await once(socket, 'connect')
  socket.on('error', () => {}) // a reset is an end, too
  return socket
}

const isIn = (text: string) => (part: string) => text.includes(part)

async function textOf(socket: Socket): Promise<string> {
  let text = ''
  for await (const chunk of socket) text += chunk
  return text
}

t.test('listenFds() finds nothing where nothing was passed', async (t) => {
  t.strictSame(listenFds({}), [])
  t.strictSame(listenFds({ LISTEN_FDS: '1' }), [])
  t.strictSame(listenFds({ LISTEN_PID: String(process.pid) }), [])
  const theirs = { LISTEN_PID: String(process.ppid), LISTEN_FDS: '1' }
  t.strictSame(listenFds(theirs), [], 'what is for another process')
})

t.test('listenFds() unsets the variables, whatever it finds', async (t) => {
  const names = { LISTEN_FDNAMES: 'web', LISTEN_PIDFDID: '7', HOME: '/' }
  const nothing = { ...names, LISTEN_PID: '1', LISTEN_FDS: '1' }
  t.strictSame(listenFds(nothing), [])
  t.strictSame(nothing, { HOME: '/' })
  const wrong = { ...names, LISTEN_PID: 'x', LISTEN_FDS: '1' }
  t.throws(() => listenFds(wrong))
  t.strictSame(wrong, { HOME: '/' })
  t.strictSame(listenFds(wrong), [], 'a second call finds none')
})

t.test('listenFds() refuses what is no number', async (t) => {
  const pid = String(process.pid)
  for (const text of ['abc', '', '0', '-1', ' 1', '1.5', '99999999999']) {
    t.throws(
      () => listenFds({ LISTEN_PID: text, LISTEN_FDS: '1' }),
      { message: `Expected LISTEN_PID as a number from 1, got '${text}'` },
      `LISTEN_PID='${text}'`,
    )
    t.throws(
      () => listenFds({ LISTEN_PID: pid, LISTEN_FDS: text }),
      { message: `Expected LISTEN_FDS as a number from 1, got '${text}'` },
      `LISTEN_FDS='${text}'`,
    )
  }
})

t.test('listenFds() refuses more or fewer names than sockets', async (t) => {
  const LISTEN_PID = String(process.pid)
  for (const [LISTEN_FDS, LISTEN_FDNAMES, got] of [
    ['1', 'a:b', 2],
    ['2', 'a', 1],
    ['2', '', 1],
  ] as const) {
    t.throws(() => listenFds({ LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES }), {
      message: `Expected as many names as sockets, ${LISTEN_FDS}, got ${got}`,
    })
  }
})

t.test("listenFds() does not take Node's own descriptors", async (t) => {
  // Nothing is passed, so 3 is what Node waits for events with.
  const { code, stdout, stderr } = await run(
    t,
    claiming('LISTEN_FDS=1', SERVICE),
  )
  t.strictSame({ code, stdout }, { code: 1, stdout: '' })
  t.match(stderr, 'LISTEN_FDS=1: expected a socket as descriptor 3, got: other')
})

t.test('listenFds() refuses descriptors that are not there', async (t) => {
  const folder = temporaryFolder(t)
  const path = join(folder, 'a.sock')
  // The shell claims more than it was given.
  const claims = 'LISTEN_FDS=900; exec "$@"'
  const program = ['sh', '-c', claims, 'sh', ...SERVICE]
  const running = activator(t, '-l', path, '--', ...program)
  await running.printed(/Server ready/)
  await dial(path).then((socket) => socket.destroy())
  await running.printed(/LISTEN_FDS=900: expected a socket as descriptor \d+/)
  t.equal((await running.exit).code, 1)
})

t.test('listenFds() gives descriptors in order, with names', async (t) => {
  const folder = temporaryFolder(t)
  const paths = ['a', 'b', 'c'].map((name) => join(folder, name))
  const listen = paths.flatMap((path) => ['-l', path])
  // Close-on-exec is 02000000 in fdinfo. The child must see no socket.
  const code = `
    import { execFileSync } from 'node:child_process'
    import { readFileSync } from 'node:fs'
    const found = listenFds()
    const flags = found.map(({ fd }) =>
      /flags:\\s*(\\d+)/.exec(readFileSync('/proc/self/fdinfo/' + fd))[1])
    const child = 'ls -l /proc/self/fd; env'
    const seen = execFileSync('sh', ['-c', child], { encoding: 'utf8' })
    const kept = / [^012] -> socket:|LISTEN_/.test(seen)
    console.log(JSON.stringify({ found, flags, kept, again: listenFds() }))`
  const names = ['--fdname', 'web::web']
  const running = activator(t, ...listen, ...names, '--', ...node(code))
  await running.printed(/Server ready/)
  const client = await dial(paths[1] ?? '')
  t.teardown(() => client.destroy())
  const [line] = await running.printed(/^\{.*\}$/m)
  t.strictSame(JSON.parse(line), {
    found: [
      { fd: 3, name: 'web' },
      { fd: 4, name: '' },
      { fd: 5, name: 'web' },
    ],
    flags: ['02000002', '02000002', '02000002'], // and O_RDWR, not O_NONBLOCK
    kept: false,
    again: [],
  })
})

t.test('listenFds() calls sockets without names unknown', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const code = 'console.log(JSON.stringify(listenFds()))'
  const running = activator(t, '-l', path, '--', ...node(code))
  await running.printed(/Server ready/)
  const client = await dial(path)
  t.teardown(() => client.destroy())
  await running.printed(/^\[\{"fd":3,"name":"unknown"\}\]$/m)
})

t.test('activate.ts starts the service for its first client', async (t) => {
  const path = join(temporaryFolder(t), 'web.sock')
  const port = await freePort()
  const where = ['-l', String(port), '-l', path, '--fdname', 'web:local']
  const running = activator(t, ...where, '--', ...SERVICE)
  await running.printed(/Server ready on 127\.0\.0\.1:\d+, \/.*, pid \d+/)
  t.notMatch(running.stdout, 'started', 'nobody came, nothing runs')

  const first = await ask(port)
  const [, pid] = await running.printed(/started pid (\d+)\n/)
  t.equal(first, `Hello from web, pid ${pid}: /asked\n`, 'LISTEN_PID was its')
  t.equal(await ask(path), `Hello from local, pid ${pid}: /asked\n`)
  t.equal(await ask(port), first, 'one process for all')
  const passed = openFds(Number(pid)).filter((fd) => /^[34] /.test(fd))
  const sockets = passed.map((fd) => fd.match(/socket:.*/)?.[0] ?? '')
  t.equal(new Set(sockets).size, 2, 'two sockets')
  await until('the activator has let the sockets go', () => {
    return !openFds(running.pid).some((fd) => sockets.some(isIn(fd)))
  })

  running.child.kill('SIGTERM')
  t.strictSame(await running.exit, { code: 0, signal: null })
  t.notOk(existsSync(path), 'the socket file is gone')
})

t.test('activate.ts gives a new environment', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const options = ['-E', 'GIVEN=a=b c', '-E', 'KEPT', '-E', 'ABSENT']
  const args = [...options, '-l', path, '--', 'env']
  const running = new Running(t, script(ACTIVATE, ...args), {
    env: plainEnv({ KEPT: 'yes', DROPPED: 'yes', LISTEN_FDNAMES: 'stale' }),
  })
  await running.printed(/Server ready/)
  const client = await dial(path)
  t.teardown(() => client.destroy())
  t.equal((await running.exit).code, 0)
  t.match(running.stdout, /^GIVEN=a=b c$/m)
  t.match(running.stdout, /^KEPT=yes$/m)
  t.match(running.stdout, /^PATH=/m)
  t.match(running.stdout, /^LISTEN_FDS=1$/m)
  const [, started] = await running.printed(/started pid (\d+)\n/)
  t.match(running.stdout, new RegExp(`^LISTEN_PID=${started}$`, 'm'))
  t.notMatch(running.stdout, /DROPPED|ABSENT|LISTEN_FDNAMES/)
})

t.test(
  'activate.ts starts a service that knows nothing of ours',
  { skip: missing('python3') },
  async (t) => {
    const path = join(temporaryFolder(t), 'a.sock')
    // accept() and recv() have to wait: on a non-blocking socket they would
    // raise. The second client comes later than the second accept().
    const program = `
import os, socket
assert int(os.environ['LISTEN_PID']) == os.getpid()
assert os.environ['LISTEN_FDS'] == '1' and os.environ['LISTEN_FDNAMES'] == 'x'
listener = socket.socket(fileno=3)
for _ in range(2):
    print('accepting', flush=True)
    conn, _ = listener.accept()
    conn.sendall(conn.recv(100).upper())
    conn.close()`
    const command = ['--', 'python3', '-c', program]
    const running = activator(t, '-l', path, '--fdname', 'x', ...command)
    await running.printed(/Server ready/)
    for (const [count, word] of ['first', 'second'].entries()) {
      await running.printed(new RegExp(`(accepting[\\s\\S]*){${count}}`))
      const client = await dial(path)
      client.write(word)
      t.equal(await textOf(client), word.toUpperCase())
    }
    t.equal((await running.exit).code, 0)
  },
)

t.test('activate.ts --accept starts a command per connection', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const port = await freePort()
  const listen = ['-l', String(port), '-l', path, '--accept']
  const echo =
    'echo "$LISTEN_FDS $LISTEN_FDNAMES $LISTEN_PID $$" >&3; cat <&3 >&3'
  const command = ['--fdname', 'conn', '--', 'sh', '-c', echo]
  const running = activator(t, ...listen, ...command)
  await running.printed(/Server ready/)
  await dial(path).then((socket) => textOf(socket.end()))
  await running.printed(/ended: exit 0/)
  const before = await settledFds(running.pid)

  const one = await dial(port)
  const other = await dial(path)
  other.end('second')
  const [, second] =
    (await textOf(other)).match(/^1 conn (\d+) \1\n(.*)$/) ?? []
  one.end('first, and later')
  const first = (await textOf(one)).match(/^1 conn (\d+) \1\nfirst, and later$/)
  t.ok(first && second && first[1] !== second, 'two processes')
  await running.printed(/(ended: exit 0[\s\S]*){3}/)
  await noMoreFds(t, running, before)

  running.child.kill('SIGTERM')
  t.equal((await running.exit).code, 0)
  t.notOk(existsSync(path))
})

t.test('activate.ts --accept turns away more than 64 at once', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const hold = ['--accept', '--', 'sh', '-c', 'exec cat <&3 >&3']
  const running = activator(t, '-l', path, ...hold)
  await running.printed(/Server ready/)
  const clients: Socket[] = []
  t.teardown(() => clients.map((client) => client.destroy()))
  for (let count = 0; count < 64; count++) clients.push(await dial(path))
  const surplus = await dial(path)
  t.equal(await textOf(surplus), '')
  await running.printed(/Turned away from .*: 64 are running/)
  clients[0]?.end('still here')
  t.equal(clients[0] && (await textOf(clients[0])), 'still here')
  running.child.kill('SIGTERM')
  t.equal((await running.exit).code, 0)
})

t.test('activate.ts ends as its command does', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  for (const [command, expected] of [
    [['sh', '-c', 'exit 7'], 7],
    [['sh', '-c', 'kill -USR1 $$'], 138],
    [['/nowhere/service'], 127],
  ] as const) {
    const running = activator(t, '-l', path, '--', ...command)
    await running.printed(/Server ready/)
    const client = await dial(path)
    t.teardown(() => client.destroy())
    t.equal((await running.exit).code, expected, command.join(' '))
    t.notOk(existsSync(path))
  }
})

/** Starts `command` for one client of an abstract name; its lines. */
async function printedBy(
  t: Test,
  activate: readonly string[],
  name: string,
  command: readonly string[],
): Promise<string[]> {
  const running = new Running(t, [...activate, '-l', `@${name}`, ...command])
  await running.printed(/Server ready|Listening on/)
  const client = await unixClient(t, `\0${name}`)
  t.equal((await running.exit).code, 0)
  client.close()
  return running.stdout.split('\n')
}

async function unixClient(t: Test, name: string): Promise<UnixConn> {
  const client = await connectUnix(name)
  t.teardown(() => client.close())
  return client
}

t.test(
  'activate.ts gives COMMAND what systemd-socket-activate gives it',
  { skip: missing('systemd-socket-activate') },
  async (t) => {
    // -E of what is not set makes it empty there, and leaves it out here. Old
    // versions of systemd's do not keep NO_COLOR.
    const options = ['--fdname', 'one', '-E', 'GIVEN=a b', '-E', 'KEPT']
    const env = ['env', '-u', 'NO_COLOR', '-u', 'COLORTERM', 'KEPT=yes']
    const variables = async (tool: string[]): Promise<string[]> => {
      const name = `fdpass-${process.pid}`
      const activate = [...env, ...tool]
      const lines = await printedBy(t, activate, name, [...options, 'env'])
      return lines
        .filter((line) => /^\w+=/.test(line))
        .map((line) => line.replace(/^(LISTEN_PID)=\d+$/, '$1'))
        .sort()
    }
    const theirs = await variables(['systemd-socket-activate'])
    t.strictSame(await variables(script(ACTIVATE)), theirs)
    t.match(theirs.join(), /GIVEN=a b,.*KEPT=yes,LISTEN_FDNAMES=one,LISTEN_FDS/)
  },
)

t.test('activate.ts gives COMMAND the limit it was started with', async (t) => {
  const name = `fdpass-${process.pid}`
  // No shell is left between this limit and activate.ts, nor its parent's.
  const limited = ['sh', '-c', 'ulimit -Sn 123; exec "$@"', 'sh']
  const show = ['sh', '-c', 'echo "soft $(ulimit -Sn)"']
  const program = [...limited, `./${ACTIVATE}`]
  const direct = await printedBy(t, program, name, show)
  t.ok(direct.includes('soft 123'), direct.join())
  // Called through Node, it takes its parent's.
  const child = ['sh', '-c', 'ulimit -Sn 124; "$@"; exit $?', 'sh']
  const lines = await printedBy(t, [...child, ...script(ACTIVATE)], name, show)
  t.ok(lines.includes('soft 124'), lines.join())
})

t.test('activate.ts gives all sockets the only name', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const options = ['-l', path, '--fdname', 'x', 'env']
  const lines = await printedBy(
    t,
    script(ACTIVATE),
    `fdpass-${process.pid}`,
    options,
  )
  t.ok(lines.includes('LISTEN_FDNAMES=x:x'), lines.join())
})

t.test('activate.ts --inetd makes the connection 0 and 1', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const command = ['sh', '-c', 'cat; echo "$LISTEN_FDS$LISTEN_PID."']
  const running = activator(t, '-l', path, '-a', '--inetd', ...command)
  await running.printed(/Server ready/)
  const client = await dial(path)
  client.end('hello\n')
  t.equal(await textOf(client), 'hello\n.\n')
  running.child.kill('SIGTERM')
  t.equal((await running.exit).code, 0)
})

t.test('activate.ts --inetd passes the listening socket', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const show = 'ls -l /proc/self/fd >&2'
  const running = activator(t, '-l', path, '--inetd', 'sh', '-c', show)
  await running.printed(/Server ready/)
  const client = await dial(path)
  t.teardown(() => client.destroy())
  await running.printed(/ 0 -> (socket:\S+)[\s\S]* 1 -> \1/)
  t.equal((await running.exit).code, 0)
})

t.test(
  'activate.ts --datagram leaves the first datagram to COMMAND',
  { skip: missing('python3') },
  async (t) => {
    const read = 'import socket; print(socket.socket(fileno=3).recv(100))'
    const port = await freePort()
    const command = ['python3', '-c', read]
    const running = activator(t, '-d', '-l', `[::1]:${port}`, ...command)
    await running.printed(/Server ready on \[::1\]:\d+/)
    const sender = createSocket('udp6')
    t.teardown(() => sender.close())
    sender.send('first', port, '::1')
    await running.printed(/^b'first'$/m)
    t.equal((await running.exit).code, 0)
  },
)

t.test('activate.ts passes on what it was given, without names', async (t) => {
  const outer = join(temporaryFolder(t), 'a.sock')
  const inner = `fdpass-${process.pid}`
  const show = 'env; ls -l /proc/self/fd; exec 0<&3; exit 9'
  const nested = [...script(ACTIVATE), '-l', `@${inner}`, 'sh', '-c', show]
  const options = ['-E', 'HOME', '--fdname', 'outer', '-l', outer]
  const running = activator(t, ...options, ...nested)
  await running.printed(/Server ready/)
  const client = await dial(outer)
  t.teardown(() => client.destroy())
  // The connection that woke the first activator wakes the second, too.
  await running.printed(/Server ready on fd 3, @/)
  t.equal((await running.exit).code, 9)
  t.match(running.stdout, /^LISTEN_FDS=2$/m)
  t.match(running.stdout, / 3 -> socket:[\s\S]* 4 -> socket:/)
  t.notMatch(running.stdout, /LISTEN_FDNAMES/)
})

t.test(
  'activate.ts --accept outlives a COMMAND that cannot start',
  async (t) => {
    const path = join(temporaryFolder(t), 'a.sock')
    const running = new Running(
      t,
      script(ACTIVATE, '-l', path, '--accept', 'cat'),
      { env: plainEnv({ PATH: '/nowhere' }) },
    )
    await running.printed(/Server ready/)
    const before = await settledFds(running.pid)
    for (let count = 1; count <= 2; count++) {
      t.equal(await textOf(await dial(path)), '', 'hung up on')
      await running.printed(
        new RegExp(`(Could not start COMMAND: .*true[\\s\\S]*){${count}}`),
      )
    }
    await noMoreFds(t, running, before)
    running.child.kill('SIGTERM')
    t.strictSame(await running.exit, { code: 0, signal: null })
  },
)

t.test("activate.ts leaves COMMAND's options to COMMAND", async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const command = [
    'sh',
    '-c',
    'echo "got: $*"',
    'sh',
    '-a',
    '--help',
    '--',
    '-l',
  ]
  const running = activator(t, '-l', path, ...command)
  await running.printed(/Server ready/)
  const client = await dial(path)
  t.teardown(() => client.destroy())
  await running.printed(/^got: -a --help -- -l$/m)
  t.equal((await running.exit).code, 0)
})

t.test('activate.ts ends with Ctrl-C while nobody has come', async (t) => {
  for (const more of [[], ['--accept']]) {
    const path = join(temporaryFolder(t), 'a.sock')
    const running = activator(t, '-l', path, ...more, '--', 'cat')
    await running.printed(/Server ready/)
    t.ok(existsSync(path))
    running.child.kill('SIGINT')
    t.strictSame(await running.exit, { code: 0, signal: null })
    t.notOk(existsSync(path))
  }
})

t.test('activate.ts leaves nothing behind if it cannot listen', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const server = createServer().listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' ? `${address?.port}` : ''
  const { code, stderr } = await run(
    t,
    script(ACTIVATE, '-l', path, '-l', port, '--', 'cat'),
  )
  t.equal(code, 1)
  t.match(stderr, /^activate.ts: (bind|listen) EADDRINUSE 127\.0\.0\.1/)
  t.notOk(existsSync(path))
})

t.test('activate.ts says what is wrong with its command line', async (t) => {
  const wrong: [string[], RegExp][] = [
    [['--', 'cat'], /Expected -l ADDRESS, or sockets passed in, got none/],
    [['-l', '80'], /Expected COMMAND, got none/],
    [['-x', '-l', '80', 'cat'], /Unknown option '-x'/],
    [
      ['-l', 'web', '--', 'cat'],
      /Expected PORT, .* or a path with a slash, got web/,
    ],
    [
      ['-l', '1', '--fdname', 'a:b', '--', 'cat'],
      /Expected 1 name in --fdname, got 2/,
    ],
    [['-l', '1', '-E', '=x', '--', 'cat'], /Expected -E NAME or .* got =x/],
    [['-l', '1', '-E', 'LISTEN_FDNAMES', 'cat'], /Expected -E without LISTEN_/],
    [['-l', '1', '--fdname', 'é', 'cat'], /Expected --fdname in ASCII/],
    [['-l', '1', '-a', '-d', 'cat'], /Expected --accept or --datagram/],
    [
      ['-l', '1', '-l', '2', '--inetd', 'cat'],
      /one socket with --inetd, got 2/,
    ],
    [['-l', './a', '-d', 'cat'], /Expected PORT or ADDR:PORT with --datagram/],
    [['-l', '1', 'a=b'], /Expected COMMAND without '=', got a=b/],
  ]
  const check = async ([args, expected]: [string[], RegExp]) => {
    const { code, stderr } = await run(t, script(ACTIVATE, ...args))
    t.equal(code, 2, args.join(' '))
    t.match(stderr, expected)
  }
  await Promise.all(wrong.map(check))
})

t.test(
  'service.ts runs the same under systemd-socket-activate',
  { skip: missing('systemd-socket-activate') },
  async (t) => {
    const path = join(temporaryFolder(t), 'web.sock')
    const port = await freePort()
    const listen = ['-l', `127.0.0.1:${port}`, '-l', path]
    const tool = ['systemd-socket-activate', ...listen, '--fdname=web:local']
    const running = new Running(t, [...tool, ...SERVICE])
    await running.printed(/Listening on \//)
    const { pid } = running // it becomes the service
    t.equal(await ask(port), `Hello from web, pid ${pid}: /asked\n`)
    t.equal(await ask(path), `Hello from local, pid ${pid}: /asked\n`)
    running.child.kill('SIGTERM')
    t.strictSame(await running.exit, { code: 0, signal: null })
  },
)

t.test(
  'service.ts refuses the surplus name that systemd-socket-activate gives',
  { skip: missing('systemd-socket-activate') },
  async (t) => {
    const path = join(temporaryFolder(t), 'web.sock')
    const tool = ['systemd-socket-activate', '-l', path, '--fdname=a:b']
    const running = new Running(t, [...tool, ...SERVICE])
    await running.printed(/Listening on \//)
    const client = await dial(path)
    t.teardown(() => client.destroy())
    t.equal((await running.exit).code, 1)
    t.match(running.stderr, 'Expected as many names as sockets, 1, got 2')
  },
)

t.test('service.ts says that it cannot listen on a connection', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const running = activator(t, '-l', path, '--accept', '--', ...SERVICE)
  await running.printed(/Server ready/)
  const client = await dial(path)
  t.teardown(() => client.destroy())
  await running.printed(
    /Expected a socket that listens as unknown, got .*EINVAL/,
  )
  await running.printed(/ended: exit 1/)
})

t.test(
  'service.ts opens a port of its own if nothing was passed',
  async (t) => {
    const running = new Running(t, [...SERVICE, '0'])
    const [, port] = await running.printed(/Server ready on port (\d+)/)
    t.equal(
      await ask(Number(port)),
      `Hello from own, pid ${running.pid}: /asked\n`,
    )
    running.child.kill('SIGINT')
    t.strictSame(await running.exit, { code: 0, signal: null })

    const { code, stderr } = await run(t, SERVICE)
    t.equal(code, 2)
    t.match(stderr, 'Expected sockets from an activator, or a PORT\n')
    const other = await run(t, [...SERVICE, '65536'])
    t.equal(other.code, 2)
    t.match(other.stderr, 'Expected PORT from 0 to 65535, got "65536"\n')
  },
)

t.test('service.ts under a wrapper that does not exec it', async (t) => {
  const path = join(temporaryFolder(t), 'web.sock')
  const wrapper = ['sh', '-c', '"$@"; exit $?', 'sh', ...SERVICE]
  const running = activator(t, '-l', path, '--', ...wrapper)
  await running.printed(/Server ready/)
  const client = await dial(path)
  t.teardown(() => client.destroy())
  const [, pid] = await running.printed(/started pid (\d+)/)
  t.equal((await running.exit).code, 2)
  const expected = 'Expected sockets from an activator, or a PORT: LISTEN_PID='
  t.match(running.stderr, `${expected}${pid} is another process than this, `)
  t.match(running.stderr, '; a wrapper has to exec it\n')
})

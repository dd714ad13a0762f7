// examples/file-broker: files of one directory, and nothing else.

import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  closeSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { type Frame, framesOf, sendFrame } from '../../lib/conn/frames.ts'
import { connect, describeFd, type UnixConn } from '../../lib/index.ts'
import { openFds, settledFds } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { lacksPassRights, missing } from '../support/missing.ts'
import { Running, run, script } from '../support/processes.ts'
import { missingNobody } from '../support/users.ts'
import { until } from '../support/waiting.ts'
import { expecting, noMoreFds } from './support.ts'

const SERVER = 'examples/file-broker/server.ts'
const CLIENT = 'examples/file-broker/client.ts'
const isRoot = process.getuid?.() === 0
const refusesFds = lacksPassRights() === false
const noProc = process.platform !== 'linux' && 'there is no /proc/self/fd'

type Broker = {
  readonly server: Running
  readonly folder: string
  readonly path: string
  get(name: string): ReturnType<typeof run>
}

/** A broker of a new folder, that has a file `hello` in it. */
async function broker(
  t: Test,
  args: string[] = [],
  wrapper: string[] = [],
): Promise<Broker> {
  const parent = temporaryFolder(t)
  const folder = join(parent, 'files')
  const path = join(parent, 's')
  mkdirSync(folder)
  writeFileSync(join(folder, 'hello'), 'Hello\n', { mode: 0o600 })
  const command = script(SERVER, ...args, folder, path)
  const server = new Running(t, [...wrapper, ...command])
  await server.printed(/^Server ready on .*\n/)
  const get = (name: string): ReturnType<typeof run> =>
    run(t, script(CLIENT, '-s', path, '--', name))
  return { server, folder, path, get }
}

/** The answers to `requests`, which go out in one piece. */
async function ask(
  path: string,
  requests: readonly object[],
  count = requests.length,
): Promise<Frame[]> {
  const conn = await connect(path)
  await Promise.all(requests.map((request) => sendFrame(conn, request)))
  const answers = []
  for await (const frame of framesOf(conn, { maxFds: 1 })) {
    answers.push(frame)
    if (answers.length === count) break
  }
  conn.close()
  return answers
}

t.test('client.ts NAME writes the file to its output', async (t) => {
  const { server, folder, path, get } = await broker(t)
  t.match(server.stdout, `Server ready on ${path}, pid ${server.pid}`)
  t.match(await get('hello'), { code: 0, stdout: 'Hello\n', stderr: '' })
  await server.printed(/^client 1: connected, pid \d+, uid \d+$/m)
  await server.printed(/^client 1: "hello": granted, 6 bytes$/m)

  const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i & 255))
  writeFileSync(join(folder, 'ä b'), bytes)
  const copy = join(folder, '..', 'copy')
  const shell = ['sh', '-c', '"$@" >"$0"', copy]
  const client = script(CLIENT, '--socket', path, 'ä b')
  t.match(await run(t, [...shell, ...client]), { code: 0, stderr: '' })
  t.ok(readFileSync(copy).equals(bytes), 'every byte of it')
})

t.test('client.ts --list shows what would be granted', async (t) => {
  const { folder, path } = await broker(t)
  symlinkSync('hello', join(folder, 'link'))
  mkdirSync(join(folder, 'directory'))
  writeFileSync(join(folder, 'empty'), '')
  const result = await run(t, script(CLIENT, '-s', path, '--list'))
  t.match(result, { code: 0, stderr: '' })
  t.strictSame(result.stdout.split('\n').sort(), [
    '',
    '         0 empty',
    '         6 hello',
  ])
})

t.test('what is passed can be read, and only that', async (t) => {
  const { path } = await broker(t)
  const [first, second] = await ask(path, [
    { name: 'hello' },
    { name: 'hello' },
  ])
  t.match(first?.value, { name: 'hello', size: 6 })
  const fds = [...(first?.fds ?? []), ...(second?.fds ?? [])]
  for (const fd of fds) {
    t.strictSame(describeFd(fd), { kind: 'file', access: 'read' })
    t.throws(() => writeSync(fd, 'x'), { code: 'EBADF' })
    t.equal(readFileSync(fd, 'utf8'), 'Hello\n', 'each from its beginning')
    closeSync(fd)
  }
  t.equal(fds.length, 2)
})

t.test('no trick with a path gets out of the directory', async (t) => {
  const { server, folder, path } = await broker(t)
  const secret = join(folder, '..', 'secret')
  writeFileSync(secret, 'Secret\n', { mode: 0o600 })
  symlinkSync(secret, join(folder, 'link'))
  symlinkSync('hello', join(folder, 'inner-link'))
  symlinkSync('..', join(folder, 'up'))
  linkSync(secret, join(folder, 'hard'))
  mkdirSync(join(folder, 'sub'))
  writeFileSync(join(folder, 'sub', 'file'), 'x')
  const refusals: Record<string, string> = {
    '..': 'without "/"',
    '.': 'without "/"',
    '': 'without "/"',
    '../secret': 'without "/"',
    [secret]: 'without "/"',
    '/etc/passwd': 'without "/"',
    'up/secret': 'without "/"',
    'sub/file': 'without "/"',
    '../hello': 'without "/"',
    'hello\0': 'without "/"',
    link: 'ELOOP',
    'inner-link': 'ELOOP',
    up: 'ELOOP',
    hard: 'Expected a file of one name, got 2',
    sub: 'Expected a regular file',
    nothing: 'ENOENT',
    ['x'.repeat(300)]: 'ENAMETOOLONG',
  }
  const names = Object.keys(refusals)
  for (const name of names) {
    const [answer] = await ask(path, [{ name }])
    t.strictSame(answer?.fds, [])
    const { error } = answer?.value ?? {}
    t.match(error, refusals[name], `${JSON.stringify(name)}: ${error}`)
  }
  for (const name of [undefined, null, 7, ['hello']]) {
    const [answer] = await ask(path, [{ name }])
    t.match(answer?.value, { error: /the name of a file/ })
  }
  t.equal(openFds(server.pid).filter((fd) => /fd-/.test(fd)).length, 1)
})

t.test('what is no file does not hold the server up', async (t) => {
  const { server, folder, path, get } = await broker(t)
  const refusal = async (name: string): Promise<unknown> =>
    (await ask(path, [{ name }]))[0]?.value.error
  execFileSync('mkfifo', [join(folder, 'fifo')])
  t.equal(await refusal('fifo'), '"fifo": Expected a regular file')
  const socket = createServer().listen(join(folder, 'socket'))
  await until('it listens', () => socket.listening)
  t.equal(await refusal('socket'), '"socket": Expected a regular file')
  socket.close()
  if (isRoot) {
    execFileSync('mknod', [join(folder, 'null'), 'c', '1', '3'])
    t.equal(await refusal('null'), '"null": Expected a regular file')
  }
  const before = await settledFds(server.pid)
  const requests = Array.from({ length: 16 }, () => ({ name: 'fifo' }))
  t.equal((await ask(path, requests)).length, 16, 'more than there are threads')
  t.match(await get('hello'), { code: 0 })
  await noMoreFds(t, server, before)
})

t.test(
  'a FIFO that is refused does not wake its writer',
  {
    skip: noProc,
  },
  async (t) => {
    const { folder, path } = await broker(t)
    const fifo = join(folder, 'fifo')
    execFileSync('mkfifo', [fifo])
    const writer = new Running(t, ['sh', '-c', 'echo hello > "$0"', fifo])
    // It waits in open(2) for a reader. The kernel says so where it may tell.
    await until('the writer waits', () => {
      const state = readFileSync(`/proc/${writer.pid}/stat`, 'utf8')
      return /\) S /.test(state)
    })
    const [answer] = await ask(path, [{ name: 'fifo' }])
    t.match(answer?.value, { error: '"fifo": Expected a regular file' })
    const listed = await run(t, script(CLIENT, '-s', path, '--list'))
    t.match(listed, { code: 0, stdout: '         6 hello\n' })
    const reader = new Running(t, ['cat', fifo])
    t.match(await writer.exit, { code: 0 }, 'its first reader is this one')
    t.equal(writer.stderr, '')
    await reader.printed(/hello/)
  },
)

t.test('a list ends when its client has left', async (t) => {
  const { server, folder, path } = await broker(t)
  for (let n = 0; n < 2000; n++) symlinkSync('hello', join(folder, `link${n}`))
  // It is stopped until the client has left.
  server.child.kill('SIGSTOP')
  const conn = await connect(path)
  await sendFrame(conn, { list: true })
  conn.close()
  server.child.kill('SIGCONT')
  const [, looks] = await server.printed(/^client 1: list: EPIPE after (\d+)/m)
  t.ok(Number(looks) < 2000, `it looked at ${looks} of 2001`)
})

t.test('a list has every name, whatever is in it', async (t) => {
  const { server, folder, path, get } = await broker(t)
  const names = ['\x1b[2J', 'a\rb', '\u009b2J', '\u202eabc', 'ä"ö']
  for (const name of names)
    writeFileSync(join(folder, name), 'x', { mode: 0o600 })
  for (let n = 0; n < 100; n++)
    writeFileSync(join(folder, `n${n}`), '', { mode: 0o600 })
  const { stdout } = await run(t, script(CLIENT, '-s', path, '--list'))
  const lines = stdout.split('\n').slice(0, -1)
  t.equal(lines.length, 106)
  const shown = ['\\u001b[2J', 'a\\rb', '\\u009b2J', '\\u202eabc', 'ä\\"ö']
  t.strictSame(
    lines.filter((line) => / 1 /.test(line)).sort(),
    shown.map((name) => `         1 ${name}`).sort(),
  )
  const { stderr } = await get('\u009b\u202e')
  for (const { fds } of await ask(
    path,
    names.map((name) => ({ name })),
  )) {
    t.equal(readFileSync(fds[0] ?? -1, 'utf8'), 'x')
    closeSync(fds[0] ?? -1)
  }
  const log = server.stdout + stderr
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are meant
  t.notMatch(log, /[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/)
})

t.test('one user cannot take all the places of a public broker', async (t) => {
  const longer = ['--patience', '600']
  const { server, path, get } = await broker(t, ['--public', ...longer])
  const before = await settledFds(server.pid)
  const held: UnixConn[] = []
  for (let n = 0; n < 8; n++) held.push(await connect(path))
  await server.printed(/^client 8: connected/m)
  t.match(await get('hello'), {
    code: 1,
    stderr: 'client.ts: Expected at most 8 clients of one user\n',
  })
  if (!missingNobody()) {
    chmodSync(join(path, '..'), 0o711)
    const other = script(CLIENT, '-s', path, 'hello')
    const nobody = { uid: 65534, gid: 65534 }
    t.match(await run(t, other, nobody), { code: 0, stdout: 'Hello\n' })
  }
  for (const conn of held) conn.close()
  await noMoreFds(t, server, before)
  t.match(await get('hello'), { code: 0, stdout: 'Hello\n' })
})

t.test('only small, young files which others cannot change', async (t) => {
  const limits = ['--max-size', '9', '--max-age', '60']
  const { folder, path } = await broker(t, limits)
  const file = join(folder, 'hello')
  const refusal = async (): Promise<unknown> => {
    const [answer] = await ask(path, [{ name: 'hello' }])
    for (const fd of answer?.fds ?? []) closeSync(fd)
    return answer?.value.error
  }
  t.equal(await refusal(), undefined)
  truncateSync(file, 10)
  t.match(await refusal(), /at most 9 bytes, got 10/)
  truncateSync(file, 9)
  t.equal(await refusal(), undefined)
  const then = Date.now() / 1000 - 100
  utimesSync(file, then, then)
  t.match(await refusal(), /at most 60 s, got 1\d\d/)
  utimesSync(file, then + 100, then + 100)
  t.equal(await refusal(), undefined)
  for (const mode of [0o666, 0o602, 0o664, 0o620]) {
    chmodSync(file, mode)
    t.match(await refusal(), /only its owner can write/, mode.toString(8))
  }
  chmodSync(file, 0o644)
  t.equal(await refusal(), undefined)
  if (!isRoot) return
  chownSync(file, 65534, 0)
  t.match(
    await refusal(),
    /who is root or this server's user, got one of uid 6/,
  )
})

t.test(
  'a file that others may write is not given to them to reopen',
  {
    skip: noProc || missingNobody(),
  },
  async (t) => {
    const { folder, path } = await broker(t, ['--public'])
    chmodSync(join(folder, '..'), 0o711)
    chmodSync(folder, 0o700)
    const file = join(folder, 'hello')
    const source = `
import json, os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.send(b'{"name":"hello","fds":0}\\n')
data, fds, _, _ = socket.recv_fds(s, 4096, 4)
print(json.loads(data).get('error', 'granted'))
for fd in fds:
    try: os.write(os.open(f'/proc/self/fd/{fd}', os.O_WRONLY), b'taken')
    except PermissionError: print('not for writing')`
    const nobody = { uid: 65534, gid: 65534, cwd: '/' }
    const ask = ['/usr/bin/python3', '-c', source, path]
    t.equal((await run(t, ask, nobody)).stdout, 'granted\nnot for writing\n')
    chownSync(file, 0, 65534)
    chmodSync(file, 0o660)
    t.match((await run(t, ask, nobody)).stdout, /only its owner can write/)
    chownSync(file, 65534, 0)
    chmodSync(file, 0o600)
    t.match((await run(t, ask, nobody)).stdout, /only its owner can write/)
    t.equal(readFileSync(file, 'utf8'), 'Hello\n')
  },
)

t.test(
  'a directory that is replaced changes nothing',
  { skip: noProc },
  async (t) => {
    const { folder, get } = await broker(t)
    renameSync(folder, `${folder}-moved`)
    const other = `${folder}-other`
    mkdirSync(other)
    writeFileSync(join(other, 'secret'), 'Secret\n')
    symlinkSync(other, folder)
    t.match(await get('secret'), { code: 1, stderr: /"secret": ENOENT/ })
    t.match(await get('hello'), { code: 0, stdout: 'Hello\n' })
  },
)

// A race cannot be proven away. A check of the path loses this one, within some
// hundred requests. The pause is for the file to be given away at all.
t.test('a file that is replaced again and again is checked', async (t) => {
  const { folder, path } = await broker(t, ['--patience', '600'])
  const secret = join(folder, '..', 'secret')
  writeFileSync(secret, 'Secret\n', { mode: 0o600 })
  const swap = `umask 022; while :; do
    for i in 1 2 3 4 5 6 7 8; do
      ln -s ../secret new; mv new file; echo Public > new; mv new file
    done
    sleep 0.2
  done`
  new Running(t, ['sh', '-c', swap], { cwd: folder })
  t.strictSame(await whatComes(path, folder, 'Public\n'), ['Public\n'])
})

t.test(
  'a link that is gone once it is open is no way out',
  {
    skip: missing('python3'),
  },
  async (t) => {
    const { folder, path } = await broker(t, ['--patience', '600'])
    writeFileSync(join(folder, '..', 'secret'), 'Secret\n', { mode: 0o600 })
    const link = `
import os
while True:
    os.link('../secret', 'file')
    os.unlink('file')`
    new Running(t, ['python3', '-c', link], { cwd: folder })
    t.strictSame(await whatComes(path, folder), [])
  },
)

/**
 * The texts that come when `file` is asked for by many, many times, and until
 * `awaited` was among them.
 */
async function whatComes(
  path: string,
  folder: string,
  awaited?: string,
): Promise<string[]> {
  await until('there is a file', () => {
    const file = join(folder, 'file')
    return lstatSync(file, { throwIfNoEntry: false }) !== undefined
  })
  const seen = new Set<string>()
  const client = async (): Promise<void> => {
    const requests = Array.from({ length: 16 }, () => ({ name: 'file' }))
    for (const { value, fds } of await ask(path, requests)) {
      const [fd = -1] = fds
      seen.add(fd < 0 ? String(value.error) : readFileSync(fd, 'utf8'))
      if (fd >= 0) closeSync(fd)
    }
  }
  const isDone = (): boolean => awaited === undefined || seen.has(awaited)
  for (let round = 0; round < 2 || !isDone(); round++) {
    await Promise.all(Array.from({ length: 20 }, client))
  }
  return [...seen].filter((text) => !text.startsWith('"file": E'))
}

t.test(
  'hundreds of requests at once work within the descriptor limit',
  { skip: missing('prlimit') },
  async (t) => {
    const { server, path } = await broker(
      t,
      [],
      ['prlimit', '--nofile=128:128'],
    )
    const before = await settledFds(server.pid)
    const clients = Array.from({ length: 400 }, () =>
      ask(path, [{ name: 'hello' }]),
    )
    let granted = 0
    for (const [answer] of await Promise.all(clients)) {
      for (const fd of answer?.fds ?? []) {
        if (readFileSync(fd, 'utf8') === 'Hello\n') granted++
        closeSync(fd)
      }
    }
    t.equal(granted, 400)
    await noMoreFds(t, server, before)
  },
)

t.test('a bad client gets one line, and costs nobody else', async (t) => {
  const { server, path, get } = await broker(t, ['--patience', '3'])
  const before = await settledFds(server.pid)
  const silent = await connect(path)
  const rubbish = await connect(path)
  await rubbish.sendFds('GET / HTTP/1.1\r\n\r\n', [])
  t.match((await rubbish.recvFds())?.data.toString(), /"Expected a JSON object/)
  t.equal(await rubbish.recvFds(), null)

  const endless = await connect(path)
  await endless.sendFds('x'.repeat(5000), [])
  t.match((await endless.recvFds())?.data.toString(), /at most 4096 bytes/)

  const generous = await connect(path)
  const gift = generous.sendFds('{"name":"hello","fds":1}\n', [0])
  if (refusesFds) await t.rejects(gift, { code: 'EPERM' })
  else {
    await gift
    const refused = await generous.recvFds()
    t.match(refused?.data.toString(), /"error":"ERR_TOO_MANY_FDS"/)
  }

  const many = Array.from({ length: 17 }, () => ({ name: 'nothing' }))
  const answers = await ask(path, many)
  t.match(answers.at(-1)?.value, {
    error: 'Expected at most 16 requests, got more',
  })

  t.match(await get('hello'), { code: 0 })
  await server.printed(/^client 1: Expected to be done in 3 s, hung up$/m)
  t.equal(await silent.recvFds(), null)
  for (const conn of [silent, rubbish, endless, generous]) conn.close()
  await noMoreFds(t, server, before)
})

t.test('a client that never reads is cut off', async (t) => {
  const { server, path, get } = await broker(t, ['--patience', '5'])
  const greedy = await connect(path)
  const requests = Array.from({ length: 16 }, () => ({ name: 'hello' }))
  await Promise.all(requests.map((request) => sendFrame(greedy, request)))
  await server.printed(/(client 1: "hello": granted, 6 bytes\n){16}/)
  t.match(await get('hello'), { code: 0 })
  await server.printed(/^client 1: Expected to be done in 5 s, hung up$/m)
  greedy.close()
})

t.test(
  'the kernel refuses descriptors that a client sends',
  {
    skip: missing('python3') || lacksPassRights(),
  },
  async (t) => {
    const { path } = await broker(t)
    const source = `
import errno, os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try: socket.send_fds(s, [b'{"name":"hello","fds":1}\\n'], [0])
except OSError as error: print(errno.errorcode[error.errno])
s.send(b'{"name":"hello","fds":0}\\n')
print(os.read(socket.recv_fds(s, 4096, 4)[1][0], 9))`
    const { stdout, stderr } = await run(t, ['python3', '-c', source, path])
    t.equal(stdout + stderr, "EPERM\nb'Hello\\n'\n")
  },
)

t.test(
  'a Python client may cut and join its requests as it likes',
  { skip: missing('python3') },
  async (t) => {
    const { path } = await broker(t)
    const source = `
import json, os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
requests = b'{"name":"nothing","fds":0}\\n{"name":"hello","fds":0}\\n' * 2
for at in range(0, 60): s.send(requests[at:at + 1])
s.send(requests[60:])
text, files = b'', []
while text.count(b'\\n') < 4:
    data, fds, flags, _ = socket.recv_fds(s, 4096, 4)
    text += data
    files += fds
for line in text.splitlines():
    answer = json.loads(line)
    fds, files = files[:answer['fds']], files[answer['fds']:]
    print(answer.get('size'), [os.read(fd, 9) for fd in fds])
`
    const { stdout, stderr } = await run(t, ['python3', '-c', source, path])
    const one = "None []\n6 [b'Hello\\n']\n"
    t.equal(stdout + stderr, one + one)
  },
)

t.test(
  'a user who cannot enter the directory gets the file',
  { skip: missingNobody() },
  async (t) => {
    const { server, folder, path } = await broker(t, ['--public'])
    chmodSync(join(folder, '..'), 0o711)
    chmodSync(folder, 0o700)
    const nobody = { uid: 65534, gid: 65534 }
    const direct = await run(t, ['cat', join(folder, 'hello')], nobody)
    t.match(direct, { code: 1, stdout: '' })
    const client = script(CLIENT, '-s', path, 'hello')
    t.match(await run(t, client, nobody), { code: 0, stdout: 'Hello\n' })
    await server.printed(/uid 65534$/m)
  },
)

t.test(
  'without --public other users are kept out',
  { skip: missingNobody() },
  async (t) => {
    const { folder, path } = await broker(t)
    chmodSync(join(folder, '..'), 0o711)
    const nobody = { uid: 65534, gid: 65534 }
    const client = script(CLIENT, '-s', path, 'hello')
    t.match(await run(t, client, nobody), { code: 1, stderr: /EACCES/ })
  },
)

t.test('Ctrl-C ends the server, with clients connected', async (t) => {
  const { server, path } = await broker(t)
  const conn = await connect(path)
  await server.printed(/client 1: connected/)
  server.child.kill('SIGINT')
  t.match(await server.exit, { code: 0, signal: null })
  t.match(server.stdout, /Server stopped\n$/)
  t.equal(server.stderr, '')
  t.throws(() => statSync(path), { code: 'ENOENT' })
  t.equal(await conn.recvFds(), null)
  conn.close()
})

t.test('mistakes are told in one line', async (t) => {
  const folder = temporaryFolder(t)
  const path = join(folder, 's')
  const expect = expecting(t)
  await Promise.all([
    expect(SERVER, [], 2, /Expected 1 to 2 arguments, got 0/),
    expect(SERVER, ['--max-age', 'x', folder], 2, /--max-age .*, got "x"/),
    expect(SERVER, ['package.json', path], 1, /ENOTDIR/),
    expect(CLIENT, ['-s', path], 2, /Expected either NAME or --list/),
    expect(CLIENT, ['-s', path, '-l', 'hello'], 2, /either NAME or --list/),
    expect(CLIENT, ['-s', path, 'hello'], 1, /No server on .* first\n$/),
  ])
})

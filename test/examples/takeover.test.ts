// examples/takeover/: two servers as a user starts them, and one of them
// against a peer made here that hangs, errs or lies.

import { once } from 'node:events'
import { chmodSync, closeSync, existsSync, openSync, statSync } from 'node:fs'
import { Agent, type RequestOptions } from 'node:http'
import { createServer, connect as dial } from 'node:net'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { type Frame, framesOf, sendFrame } from '../../lib/conn/frames.ts'
import { ListeningSocket } from '../../lib/conn/listening.ts'
import { connect, socketpair, UnixConn } from '../../lib/index.ts'
import { duplicate } from '../../lib/socket/unix.ts'
import { connectionsOn } from '../../lib/wait/accept.ts'
import { settledFds } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { lacksPassRights, missing } from '../support/missing.ts'
import { Running, run, script } from '../support/processes.ts'
import { until } from '../support/waiting.ts'
import { freePort, get, noMoreFds } from './support.ts'

const SERVER = 'examples/takeover/server.ts'
const NOBODY = 65534

type Place = {
  readonly folder: string
  readonly control: string
  readonly unix: string
  readonly port: number
}

async function place(t: Test): Promise<Place> {
  const folder = temporaryFolder(t)
  const control = join(folder, 'control.sock')
  return {
    folder,
    control,
    unix: join(folder, 'web.sock'),
    port: await freePort(),
  }
}

/** A server that is in no hurry, unless `more` says otherwise. */
function begin(t: Test, { control, unix, port }: Place, ...more: string[]) {
  const addresses = ['-l', String(port), '-l', unix]
  const late = ['--deadline', '600', '--patience', '600']
  const options = ['-c', control, ...addresses, ...late, ...more]
  return new Running(t, script(SERVER, ...options))
}

async function start(t: Test, where: Place, ...more: string[]) {
  const running = begin(t, where, ...more)
  await running.printed(/Server ready/)
  return running
}

type Answer = { pid: number; connection: string | undefined }

/** Who answers a request, to a port or a path. */
async function ask(
  where: number | string,
  options: RequestOptions = {},
): Promise<Answer> {
  const { body, headers } = await get(where, options)
  const pid = Number(/^Hello from process (\d+)\n$/.exec(body)?.[1])
  return { pid, connection: headers.connection }
}

/** A connection that stays open, for one request after the other. */
function keepAlive(t: Test): Agent {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  t.teardown(() => agent.destroy())
  return agent
}

/** Resolves when `running` has accepted what came to `address` so far. */
async function acceptedBefore(
  t: Test,
  running: Running,
  address: number | string,
): Promise<void> {
  // Asked on a connection that is accepted later.
  t.equal((await ask(address)).pid, running.pid)
}

async function endsWell(t: Test, running: Running): Promise<void> {
  t.strictSame(await running.exit, { code: 0, signal: null })
  t.match(running.stdout, `Server stopped, pid ${running.pid}`)
  t.equal(running.stderr, '')
}

t.test('the second server takes over, the first one leaves', async (t) => {
  const where = await place(t)
  const old = await start(t, where)
  t.equal((await ask(where.port)).pid, old.pid)
  t.equal((await ask(where.unix)).pid, old.pid)

  const next = await start(t, where)
  t.match(next.stdout, `Took over from process ${old.pid}`)
  await endsWell(t, old)
  t.match(old.stdout, `Takeover: process ${next.pid} serves now`)
  await next.printed(new RegExp(`Process ${old.pid} is gone`))
  t.equal((await ask(where.port)).pid, next.pid)
  t.equal((await ask(where.unix)).pid, next.pid, 'the path is still there')

  next.child.kill('SIGTERM')
  await endsWell(t, next)
  t.notOk(existsSync(where.unix), 'the last one removes the paths')
  t.notOk(existsSync(where.control))
  await t.rejects(ask(where.port), { code: 'ECONNREFUSED' })
})

t.test('each server names the one before it, not the first', async (t) => {
  const where = await place(t)
  const first = await start(t, where)
  const second = await start(t, where)
  await endsWell(t, first)
  const third = await start(t, where)
  await endsWell(t, second)
  t.match(third.stdout, `Took over from process ${second.pid}\n`)
  await third.printed(new RegExp(`^Process ${second.pid} is gone$`, 'm'))
})

t.test('a takeover loses no request, however they come', async (t) => {
  const where = await place(t)
  const old = await start(t, where)
  const answers: Answer[] = []
  let asking = true
  const client = async (target: number | string, agent: Agent | false) => {
    while (asking) answers.push(await ask(target, { agent }))
  }
  const clients = [where.port, where.unix].flatMap((target) => [
    client(target, keepAlive(t)),
    client(target, keepAlive(t)),
    client(target, false),
    client(target, false),
  ])
  const next = await start(t, where)
  const burst = Array.from({ length: 200 }, (_, index) =>
    ask(index % 2 ? where.port : where.unix),
  )
  await old.exit
  await until('answers', () => answers.at(-1)?.pid === next.pid)
  asking = false
  await Promise.all(clients) // a single failure would reject
  for (const { pid } of await Promise.all(burst)) t.not(pid, 0)
  const pids = new Set(answers.map(({ pid }) => pid))
  t.strictSame(pids, new Set([old.pid, next.pid]))
})

t.test('what is open is finished by the old one', async (t) => {
  const where = await place(t)
  const old = await start(t, where)
  const slow = ask(where.unix, { path: '/?delay=2500' })
  await acceptedBefore(t, old, where.unix)
  const order: string[] = []
  void slow.then(() => order.push('answer'))
  void old.exit.then(() => order.push('exit'))
  const next = await start(t, where)
  t.equal((await slow).pid, old.pid)
  await endsWell(t, old)
  t.strictSame(order, ['answer', 'exit'])
  t.equal((await ask(where.unix)).pid, next.pid)
})

t.test('the deadline ends what takes too long', async (t) => {
  const where = await place(t)
  const old = await start(t, where, '--deadline', '0.2')
  const stuck = ask(where.port, { path: '/?delay=60000' })
  const failed = t.rejects(stuck, { code: 'ECONNRESET' })
  await acceptedBefore(t, old, where.port)
  await start(t, where)
  await endsWell(t, old)
  await failed
})

t.test('a second signal ends what takes too long', async (t) => {
  const where = await place(t)
  const old = await start(t, where)
  const failed = t.rejects(ask(where.port, { path: '/?delay=60000' }))
  await acceptedBefore(t, old, where.port)
  old.child.kill('SIGTERM')
  await until('no path', () => !existsSync(where.unix))
  old.child.kill('SIGTERM')
  await endsWell(t, old)
  await failed
})

t.test('addresses are matched: some go, some stay, some come', async (t) => {
  const where = await place(t)
  const [gone, come] = ['gone', 'come'].map((name) => join(where.folder, name))
  const old = await start(t, where, '-l', `${gone}`, '-l', '[::1]:0')
  const next = await start(t, where, '-l', `${come}`, '-l', '[::1]:0')
  await endsWell(t, old)
  t.notOk(existsSync(`${gone}`), 'given up, so closed and removed')
  t.equal((await ask(`${come}`)).pid, next.pid)
  t.equal((await ask(where.unix)).pid, next.pid)
  t.equal((await ask(where.port)).pid, next.pid)
})

t.test('a new server that crashes changes nothing', async (t) => {
  const where = await place(t)
  const old = await start(t, where)
  const before = await settledFds(old.pid)
  const fresh = join(where.folder, 'fresh')
  // It has the sockets when it finds that this address is nobody's here.
  const crashing = begin(t, where, '-l', fresh, '-l', '192.0.2.1:80')
  t.strictSame(await crashing.exit, { code: 1, signal: null })
  t.match(crashing.stderr, 'EADDRNOTAVAIL')
  t.notOk(existsSync(fresh), 'what it opened itself is gone')

  await old.printed(new RegExp(`No takeover by process ${crashing.pid}`))
  t.equal((await ask(where.port)).pid, old.pid)
  t.equal((await ask(where.unix)).pid, old.pid)
  await noMoreFds(t, old, before)
  const next = await start(t, where)
  await endsWell(t, old)
  t.equal((await ask(where.unix)).pid, next.pid)
})

/** The new server's half of the talk, as far as the test goes. */
async function candidate(t: Test, { control }: Place) {
  const conn = await connect(control)
  const frames = framesOf(conn, { maxFds: 10 })
  t.teardown(() => conn.close())
  const answer = async (): Promise<Frame | undefined> => {
    const { value } = await frames.next()
    for (const fd of value?.fds ?? []) closeSync(fd)
    return value ?? undefined
  }
  return { conn, answer }
}

t.test('a candidate that hangs, errs or lies changes nothing', async (t) => {
  const where = await place(t)
  const old = await start(t, where, '--patience', '3')
  const before = await settledFds(old.pid)
  const refused = async (count: number) => {
    await old.printed(new RegExp(`(No takeover[\\s\\S]*){${count}}`))
    t.equal((await ask(where.port)).pid, old.pid)
    t.equal((await ask(where.unix)).pid, old.pid)
    await noMoreFds(t, old, before)
  }
  const sockets = {
    value: {
      addresses: [where.control, `127.0.0.1:${where.port}`, where.unix],
      fds: 3,
    },
  }

  const silent = await candidate(t, where)
  t.match(await silent.answer(), { value: { error: /./ } })
  await refused(1)

  const hanging = await candidate(t, where)
  await sendFrame(hanging.conn, { takeover: 1 })
  t.match(await hanging.answer(), sockets)
  t.match(await hanging.answer(), { value: { error: /within 3000 ms/ } })
  await refused(2)

  const leaving = await candidate(t, where)
  await sendFrame(leaving.conn, { takeover: 1 })
  t.match(await leaving.answer(), sockets)
  leaving.conn.close()
  await refused(3)

  const wrong = await candidate(t, where)
  await sendFrame(wrong.conn, { takeover: 2 })
  t.match(await wrong.answer(), { value: { error: /Expected .*"takeover":1/ } })
  await refused(4)

  const rubbish = await candidate(t, where)
  await rubbish.conn.sendmsg('GET / HTTP/1.1\r\n\r\n')
  t.match(await rubbish.answer(), { value: { error: /Expected a JSON/ } })
  await refused(5)

  const generous = await candidate(t, where)
  const gift = sendFrame(generous.conn, { takeover: 1 }, [0])
  if (lacksPassRights()) await gift
  else await t.rejects(gift, { code: 'EPERM' })
  const error = lacksPassRights() ? /0 descriptors, got 1/ : /within 3000 ms/
  t.match(await generous.answer(), { value: { error } })
  await refused(6)

  const hasty = await candidate(t, where)
  await sendFrame(hasty.conn, { takeover: 1 })
  t.match(await hasty.answer(), sockets)
  await sendFrame(hasty.conn, { ready: 'soon' })
  t.match(await hasty.answer(), { value: { error: /Expected .*"ready":true/ } })
  await refused(7)

  await start(t, where)
  await endsWell(t, old)
})

/** The talk to its end. The sockets are closed, so nobody accepts any more. */
async function takeAway(t: Test, where: Place) {
  const { conn, answer } = await candidate(t, where)
  await sendFrame(conn, { takeover: 1 })
  t.match(await answer(), { value: { fds: 3 } })
  await sendFrame(conn, { ready: true })
  t.match(await answer(), { value: { yours: true } })
  return { answer }
}

t.test('an idle connection gets one more answer, and "close"', async (t) => {
  const where = await place(t)
  const old = await start(t, where)
  const agent = keepAlive(t)
  const early = { pid: old.pid, connection: 'keep-alive' }
  t.strictSame(await ask(where.port, { agent }), early)
  await takeAway(t, where)
  const late = { pid: old.pid, connection: 'close' }
  t.strictSame(await ask(where.port, { agent }), late)
  await endsWell(t, old)
})

t.test('only one takeover at a time', async (t) => {
  const where = await place(t)
  const old = await start(t, where)
  const first = await candidate(t, where)
  await sendFrame(first.conn, { takeover: 1 })
  await old.printed(/asks for it/)
  const second = begin(t, where)
  t.strictSame(await second.exit, { code: 1, signal: null })
  t.match(second.stderr, 'another takeover is under way')

  first.conn.close()
  await old.printed(new RegExp(`No takeover by process ${process.pid}:`))
  const { answer } = await takeAway(t, where)
  await endsWell(t, old)
  t.equal(await answer(), undefined, 'its end is the end of the talk')
  t.ok(existsSync(where.unix), "the paths are another server's by then")
})

t.test('SIGTERM during a talk is the end, with no successor', async (t) => {
  const where = await place(t)
  const old = await start(t, where)
  const { conn, answer } = await candidate(t, where)
  await sendFrame(conn, { takeover: 1 })
  t.match(await answer(), { fds: { length: 3 } })
  old.child.kill('SIGTERM')
  t.equal(await answer(), undefined)
  await endsWell(t, old)
  t.notOk(existsSync(where.unix))
})

t.test('a server that died is replaced without a talk', async (t) => {
  const where = await place(t)
  const old = await start(t, where)
  old.child.kill('SIGKILL')
  await old.exit
  t.ok(existsSync(where.control))
  const next = await start(t, where)
  t.notMatch(next.stdout, 'Took over')
  t.equal((await ask(where.unix)).pid, next.pid)
  next.child.kill('SIGINT')
  await endsWell(t, next)
})

/** An old server made here: what it does with each connection. */
async function pretend(
  t: Test,
  { control }: Place,
  serve: (conn: UnixConn, socket: ListeningSocket) => Promise<unknown>,
): Promise<void> {
  const socket = await ListeningSocket.open(control)
  const end = new AbortController()
  t.teardown(() => {
    end.abort()
    socket.close()
  })
  const accept = async () => {
    for await (const fd of connectionsOn(duplicate(socket.fd), {
      signal: end.signal,
    })) {
      const conn = UnixConn.fromFd(fd)
      t.teardown(() => conn.close())
      serve(conn, socket).catch((error) => t.fail(String(error)))
    }
  }
  void accept()
}

t.test('the new server refuses an old one that errs or lies', async (t) => {
  const file = openSync('/dev/null', 'r')
  t.teardown(() => closeSync(file))
  const wrong: [string, number[], RegExp][] = [
    ['{"fds":0}', [], /Expected 0 addresses, got undefined/],
    ['{"addresses":["/a","/b"],"fds":1}', [file], /Expected 1 addresses/],
    ['{"addresses":["/a"],"fds":1}', [], /Expected "fds" as one of 0 to 0/],
    ['{"addresses":["/a"],"fds":1}', [file], /Expected a socket, got/],
    [
      '{"error":"not today","fds":0}',
      [],
      /The other server refuses: not today/,
    ],
  ]
  const check = async ([line, fds, expected]: (typeof wrong)[number]) => {
    const where = await place(t)
    await pretend(t, where, async (conn) => {
      await framesOf(conn).next()
      await conn.sendFds(`${line}\n`, fds)
    })
    const next = begin(t, where)
    t.equal((await next.exit).code, 1, line)
    t.match(next.stderr, expected)
    t.ok(existsSync(where.control))
    t.notOk(existsSync(where.unix))
  }
  await Promise.all(wrong.map(check))
})

t.test('the new server does not wait for ever', async (t) => {
  const where = await place(t)
  await pretend(t, where, async () => {})
  const next = begin(t, where, '--patience', '0.3')
  t.equal((await next.exit).code, 1)
  t.match(next.stderr, "Expected the other server's frame within 300 ms")
})

t.test('the new server steps back if "ready" has no answer', async (t) => {
  const where = await place(t)
  const tcp = await ListeningSocket.open(String(where.port))
  const unix = await ListeningSocket.open(where.unix)
  t.teardown(() => [tcp, unix].map((socket) => socket.close()))
  await pretend(t, where, async (conn, control) => {
    const frames = framesOf(conn)
    await frames.next()
    const sockets = [unix, control, tcp]
    const addresses = sockets.map(({ address }) => address)
    const fds = sockets.map(({ fd }) => fd)
    await sendFrame(conn, { addresses }, fds)
    t.match(await frames.next(), { value: { value: { ready: true } } })
    conn.close() // too late, for whatever reason
  })
  const next = begin(t, where)
  t.equal((await next.exit).code, 1)
  t.match(next.stderr, 'Expected an answer, got a hang-up')
  t.ok(existsSync(where.unix), "the path is the other server's")
  t.ok(existsSync(where.control))
})

t.test(
  'sockets are passed within one user only',
  {
    skip:
      missing('python3') ||
      (process.getuid?.() !== 0 && 'only root can start others'),
  },
  async (t) => {
    const where = await place(t)
    const old = await start(t, where)
    // The file's mode is the first barrier, this is about the second.
    t.equal(statSync(where.control).mode & 0o777, 0o600)
    for (const path of [where.folder, where.control]) chmodSync(path, 0o777)
    const stranger = `
import socket, sys
conn = socket.socket(socket.AF_UNIX)
conn.connect(sys.argv[1])
data, fds, _, _ = socket.recv_fds(conn, 1000, 9)
print(data.decode().strip(), len(fds))`
    const python = ['/usr/bin/python3', '-c', stranger, where.control]
    const { stdout } = await run(t, python, { uid: NOBODY, gid: NOBODY })
    t.match(stdout, /Expected a process of uid 0, got \d+ of uid 65534.* 0$/m)
    t.equal((await ask(where.port)).pid, old.pid)

    const other = await place(t)
    chmodSync(other.folder, 0o777)
    const impostor = `
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print('listening', flush=True)
conn, _ = listener.accept()
print('asked', conn.recv(100), flush=True)`
    const fake = new Running(
      t,
      ['/usr/bin/python3', '-c', impostor, other.control],
      { uid: NOBODY, gid: NOBODY },
    )
    await fake.printed(/listening/)
    const next = begin(t, other)
    t.equal((await next.exit).code, 1)
    t.match(next.stderr, /Expected a process of uid 0, got \d+ of uid 65534/)
    await fake.printed(/asked b''/)
  },
)

t.test(
  'the kernel refuses descriptors on the control socket',
  {
    skip: missing('python3') || lacksPassRights(),
  },
  async (t) => {
    const where = await place(t)
    await start(t, where)
    const next = await start(t, where) // with the socket of the first
    const source = `
import errno, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try: socket.send_fds(s, [b'{"takeover":1,"fds":1}\\n'], [0])
except OSError as error: print(errno.errorcode[error.errno])`
    const python = ['python3', '-c', source, where.control]
    t.match(await run(t, python), { stdout: 'EPERM\n', stderr: '' })
    await next.printed(/No takeover by process/)
  },
)

t.test('a listening socket in flight keeps its clients', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock')
  const socket = await ListeningSocket.open(path)
  const [sender, receiver] = socketpair()
  const early = dial(path)
  await once(early, 'connect')
  await sender.sendFds('!', [socket.fd])
  socket.close()
  const late = dial(path) // nobody holds the socket but the message
  await once(late, 'connect')

  const message = await receiver.recvFds({ maxFds: 1 })
  const server = createServer((client) => client.end('welcome'))
  server.listen({ fd: message?.fds[0] ?? -1 })
  for (const client of [early, late]) {
    let text = ''
    for await (const chunk of client) text += chunk
    t.equal(text, 'welcome')
  }
  server.close()
  sender.close()
  receiver.close()
  t.ok(existsSync(path), 'closing an adopted server leaves the file')
  socket.unlink()
  t.notOk(existsSync(path))
})

t.test('says what is wrong with its command line', async (t) => {
  const wrong: [string[], RegExp][] = [
    [['-l', 'web'], /Expected PORT, .* or a path with a slash, got web/],
    [['-l', '80', '-l', '127.0.0.1:80'], /Expected different addresses/],
    [['-d', 'soon'], /Expected --deadline in seconds, got "soon"/],
  ]
  const check = async ([args, expected]: (typeof wrong)[number]) => {
    const { code, stderr } = await run(t, script(SERVER, ...args))
    t.equal(code, 2, args.join(' '))
    t.match(stderr, expected)
  }
  await Promise.all(wrong.map(check))
})

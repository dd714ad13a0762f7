// examples/idle-container: connections that change their process and notice
// nothing.

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readSync, statSync, writeSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Test, t } from 'tap'

import { framesOf, sendFrame } from '../../lib/conn/frames.ts'
import { connect, listen, waitReadable } from '../../lib/index.ts'
import { linesOf } from '../../lib/script/lines.ts'
import { newSocketpair } from '../../lib/socket/unix.ts'
import { openFds, settledFds } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { missing } from '../support/missing.ts'
import { Running, run, script } from '../support/processes.ts'
import { until } from '../support/waiting.ts'
import { expecting, freePort, noMoreFds, tcpSocket } from './support.ts'

const CONTAINER = 'examples/idle-container/container.ts'
const FRONT = 'examples/idle-container/front.ts'

async function startContainer(
  t: Test,
  path: string,
  ...args: string[]
): Promise<Running> {
  const container = new Running(t, script(CONTAINER, ...args, path))
  await container.printed(/^Container ready on .*\n/)
  return container
}

async function startFront(
  t: Test,
  path: string,
  idle: number,
  ...more: string[]
): Promise<{ front: Running; port: number }> {
  const port = await freePort()
  const args = ['--port', `${port}`, '--idle', `${idle}`, ...more, path]
  const front = new Running(t, script(FRONT, ...args))
  await front.printed(/^Front ready on .*\n/m)
  return { front, port }
}

/** A peer: say() returns the answer to a line. */
async function startPeer(t: Test, port: number) {
  const socket = (await tcpSocket(t, port)).setNoDelay()
  const lines = linesOf(socket)
  const read = async (): Promise<string | undefined> =>
    (await lines.next()).value ?? undefined
  const say = (line: string): Promise<string | undefined> => {
    socket.write(`${line}\n`)
    return read()
  }
  return { socket, read, say }
}

t.test('an idle connection is parked, and wakes with its state', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const container = await startContainer(t, path)
  const { front, port } = await startFront(t, path, 0.2)
  await container.printed(/^front 1: connected, pid \d+$/m)
  const before = {
    container: await settledFds(container.pid),
    front: await settledFds(front.pid),
  }

  const peer = await startPeer(t, port)
  t.equal(await peer.say('hello'), '1: hello')
  await front.printed(/^connection 1: idle, parked, 1 parked, 0 live$/m)
  await container.printed(
    /^front 1: parked fd \d+, tag "{\\"id\\":1,\\"lines\\":1}", 1 held$/m,
  )
  await noMoreFds(t, front, before.front)
  await until('the container has one descriptor more', () => {
    return openFds(container.pid).length === before.container.length + 1
  })

  t.equal(await peer.say('again'), '2: again', 'the count goes on')
  await front.printed(/^connection 1: woke as fd \d+$/m)
  await container.printed(/^front 1: woke fd \d+, tag .*, 0 held$/m)

  // It is parked a second time, and then its peer goes.
  await front.printed(/(idle, parked[\s\S]*){2}/)
  peer.socket.end()
  await front.printed(/^connection 1: hung up$/m)
  t.equal(await peer.read(), undefined)
  await noMoreFds(t, front, before.front)
  await noMoreFds(t, container, before.container)
})

t.test('no byte is lost or changes its place', async (t) => {
  const path = join(temporaryFolder(t), 's')
  await startContainer(t, path)
  const { front, port } = await startFront(t, path, 0.02)
  await front.printed(/^Container on/m)
  const parked = () => front.stdout.match(/idle, parked/g)?.length ?? 0
  const talk = async (seed: number): Promise<string[]> => {
    const peer = await startPeer(t, port)
    const sent: string[] = []
    for (let n = 1; n <= 12 || parked() <= 50; n++) {
      const line = `${seed}-${n} ${'x'.repeat((seed * n * 997) % 9000)}`
      sent.push(`${n}: ${line}`)
      // In pieces, with rests around the time at which it would be parked.
      const cut = (seed * n) % line.length
      peer.socket.write(line.slice(0, cut))
      if (n % 3 === 0) await sleep(18 + ((seed + n) % 6))
      peer.socket.write(`${line.slice(cut)}\n`)
      await sleep(18 + ((seed * n) % 6))
    }
    const got: (string | undefined)[] = []
    for (const _ of sent) got.push(await peer.read())
    peer.socket.destroy()
    return sent.filter((line, index) => line !== got[index])
  }
  const seeds = Array.from({ length: 40 }, (_, index) => index + 1)
  const wrong = await Promise.all(seeds.map(talk))
  t.strictSame(wrong.flat(), [])
  t.ok(parked() > 50, `they were parked ${parked()} times`)
})

t.test('a connection is not parked within a line', async (t) => {
  const path = join(temporaryFolder(t), 's')
  await startContainer(t, path)
  const { front, port } = await startFront(t, path, 0.1)
  await front.printed(/^Container on/m)
  const [half, whole] = [await startPeer(t, port), await startPeer(t, port)]
  half.socket.write('hel')
  t.equal(await whole.say('hello'), '1: hello')
  await front.printed(/^connection 2: idle, parked, 1 parked, 1 live$/m)
  t.equal(await half.say('lo'), '1: hello')
  t.equal(await half.say('quit'), '2: quit')
  t.equal(await half.read(), undefined, 'which hangs up')
  await front.printed(/^connection 1: hung up$/m)
  half.socket.destroy()

  const endless = await startPeer(t, port)
  endless.socket.on('error', () => {})
  endless.socket.write('x'.repeat(40_000))
  await front.printed(/^connection 3: Expected a shorter line$/m)
})

t.test('without a container all go on, and a new one is found', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const { front, port } = await startFront(t, path, 0.1)
  await front.printed(
    /^No container: connect ENOENT .*; connections stay live$/m,
  )
  const first = await startPeer(t, port)
  t.equal(await first.say('hello'), '1: hello')

  const container = await startContainer(t, path)
  await front.printed(
    new RegExp(`^Container on .*, pid ${container.pid}$`, 'm'),
  )
  await front.printed(/^connection 1: idle, parked, 1 parked, 0 live$/m)
  const second = await startPeer(t, port)
  const third = await startPeer(t, port)
  // The answer comes when both are within the next line, and so live.
  second.socket.write('one\nhe')
  third.socket.write('one\nh')
  t.equal(await second.read(), '1: one')
  t.equal(await third.read(), '1: one')
  container.child.kill('SIGKILL')
  await front.printed(
    /^Container gone: .*; the 1 that it held are lost, 2 live ones go on$/m,
  )
  t.equal(await first.read(), undefined, 'the parked one is lost')
  t.equal(await second.say('llo'), '2: hello')
  t.equal(await third.say('i'), '2: hi')

  await startContainer(t, path)
  await front.printed(/(^Container on [\s\S]*){2}^connection 3: idle, parked/m)
  t.equal(await second.say('again'), '3: again')
  t.equal(await third.say('again'), '3: again')
})

t.test('if the front dies the container closes what it holds', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const container = await startContainer(t, path)
  const before = await settledFds(container.pid)
  const { front, port } = await startFront(t, path, 0.1)
  await front.printed(/^Container on/m)
  const peers: Socket[] = []
  for (let i = 0; i < 20; i++) peers.push((await startPeer(t, port)).socket)
  await front.printed(/20 parked, 0 live$/m)
  front.child.kill('SIGKILL')
  await Promise.all(peers.map((peer) => once(peer.resume(), 'close')))
  await container.printed(/^front 1: hung up, closed its 20$/m)
  await noMoreFds(t, container, before)
})

t.test('a front gets back its own, and nothing else', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const container = await startContainer(t, path)
  const fronts = [await connect(path), await connect(path)] as const
  const frames = fronts.map((conn) => framesOf(conn, { maxFds: 1 }))
  const pairs = [newSocketpair(), newSocketpair()] as const
  for (const index of [0, 1] as const) {
    const [fd] = pairs[index]
    await sendFrame(fronts[index], { tag: `of ${index}` }, [fd])
    closeSync(fd)
  }
  await container.printed(/2 held$/m)
  for (const [, peer] of pairs) writeSync(peer, 'hello')
  for (const index of [0, 1]) {
    const { value } = (await frames[index]?.next()) ?? {}
    t.strictSame(value?.value, { woke: `of ${index}`, fds: 1 })
    const bytes = Buffer.alloc(9)
    t.equal(readSync(value?.fds[0] ?? -1, bytes), 5, 'the container read none')
    closeSync(value?.fds[0] ?? -1)
  }
  await container.printed(/^front \d: woke .*, 0 held$/m)
  // The first goes and comes again: what it left is closed, not handed on.
  const [fd, peer] = newSocketpair()
  await sendFrame(fronts[0], { tag: 'left' }, [fd])
  closeSync(fd)
  await container.printed(/tag "left", 1 held$/m)
  fronts[0].close()
  await container.printed(/closed its 1$/m)
  await waitReadable(peer) // It is closed in libuv's pool, after that line.
  t.equal(readSync(peer, Buffer.alloc(1)), 0, 'end of file')
  const again = await connect(path)
  const [next, nextPeer] = newSocketpair()
  await sendFrame(again, { tag: 'new' }, [next])
  closeSync(nextPeer)
  const answer = await framesOf(again, { maxFds: 1 }).next()
  t.match(answer.value?.value, { woke: 'new' }, 'a peer that went is news too')
  closeSync(answer.value?.fds[0] ?? -1)
  for (const each of [next, peer, pairs[0][1], pairs[1][1]]) closeSync(each)
  for (const conn of [again, fronts[1]]) conn.close()
})

t.test('a full container passes back at once', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const container = await startContainer(t, path, '--most', '2')
  const front = await connect(path)
  const frames = framesOf(front, { maxFds: 1 })
  const pairs = [newSocketpair(), newSocketpair(), newSocketpair()]
  for (const [index, [fd]] of pairs.entries()) {
    await sendFrame(front, { tag: `${index}` }, [fd])
  }
  const { value } = await frames.next()
  t.match(value?.value, { woke: '2' })
  closeSync(value?.fds[0] ?? -1)
  await until('it has two', () => /2 held$/m.test(container.stdout))
  front.close()
  await container.printed(/closed its 2$/m)
  for (const fd of pairs.flat()) closeSync(fd)
})

t.test('a bad front gets one line, and costs nobody else', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const container = await startContainer(t, path)
  const before = await settledFds(container.pid)
  const good = await connect(path)
  const [fd, peer] = newSocketpair()
  await sendFrame(good, { tag: 'good' }, [fd])
  closeSync(fd)
  await container.printed(/1 held$/m)

  const file = openSync('package.json', 'r')
  const complaint = async (text: string, fds: number[]): Promise<void> => {
    const bad = await connect(path)
    await bad.sendFds(text, fds)
    t.equal(await bad.recvFds(), null)
    bad.close()
  }
  await complaint('hello\n', [])
  await container.printed(
    /^front 2: Expected a JSON object, .*, closed its 0$/m,
  )
  await complaint('{"tag":"x","fds":1}\n', [file])
  await container.printed(
    /^front 3: Expected a connection, got a file, closed its 0$/m,
  )
  await complaint('{"tag":7,"fds":1}\n', [file])
  await container.printed(/^front 4: Expected a tag, got 7, closed its 0$/m)
  await complaint('{"tag":"x","fds":0}\n', [])
  await container.printed(/^front 5: Expected a descriptor, got none/m)
  await complaint('{"tag":"x","fds":1}\n', [file, file])
  await container.printed(/^front 6: Expected at most 1 descriptors, got 2/m)
  await complaint('x'.repeat(5000), [])
  await container.printed(/^front 7: Expected a line of at most 4096 bytes/m)
  closeSync(file)

  writeSync(peer, 'x')
  const { value } = await framesOf(good, { maxFds: 1 }).next()
  t.match(value?.value, { woke: 'good' })
  closeSync(value?.fds[0] ?? -1)
  closeSync(peer)
  good.close()
  await noMoreFds(t, container, before)
})

/** `count` peers, each of which says its name. */
async function startPeers(t: Test, port: number, count: number, from = 1) {
  const names = Array.from({ length: count }, (_, index) => from + index)
  const start = async (name: number) => {
    const peer = await startPeer(t, port)
    peer.socket.write(`I am ${name}\n`)
    return { ...peer, name }
  }
  return Promise.all(names.map(start))
}

/** Reads a line of each, which is `text` and its name. */
async function allRead(
  t: Test,
  peers: Awaited<ReturnType<typeof startPeers>>,
  text: string,
): Promise<void> {
  const expected = peers.map(({ name }) => `${text} ${name}`)
  t.strictSame(await Promise.all(peers.map(({ read }) => read())), expected)
}

t.test('a tag stays with its connection if the container stalls', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const container = await startContainer(t, path)
  const late = ['--patience', '1']
  const { front, port } = await startFront(t, path, 0.2, ...late)
  await front.printed(/^Container on/m)
  container.child.kill('SIGSTOP')
  t.teardown(() => container.child.kill('SIGCONT'))

  const peers = await startPeers(t, port, 600)
  // More than fit into the container's socket: some are parked, the next one
  // is on its way for as long as the container stalls, the others wait.
  const parked = () => front.stdout.match(/idle, parked/g)?.length ?? 0
  await until('some are parked', () => parked() > 100)
  // Newcomers are served meanwhile, under descriptors that became free.
  peers.push(...(await startPeers(t, port, 400, 601)))
  await front.printed(/^connection 1000: accepted$/m)
  // This one lasts for several times of being idle.
  const half = await startPeer(t, port)
  half.socket.write('ha')
  t.equal(await half.read(), undefined)

  container.child.kill('SIGCONT')
  await allRead(t, peers, '1: I am')
  for (const count of [2, 3]) {
    for (const { socket, name } of peers) socket.write(`Still ${name}\n`)
    await allRead(t, peers, `${count}: Still`)
  }
  // The number of the connection is in the tag, the name comes from the peer.
  const names = new Map<string, Set<string>>()
  const line = /^connection (\d+): line \d: "\w+ (?:am )?(\d+)"$/gm
  await until('every line is shown', () => {
    return front.stdout.match(line)?.length === 3000
  })
  for (const [, id = '', name = ''] of front.stdout.matchAll(line)) {
    names.set(id, (names.get(id) ?? new Set()).add(name))
  }
  t.equal(names.size, 1000)
  t.strictSame(
    [...names].filter(([, { size }]) => size !== 1),
    [],
  )
})

t.test(
  'a lost descriptor costs nobody else',
  {
    skip: missing('prlimit'),
  },
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const container = await startContainer(t, path)
    const before = await settledFds(container.pid)
    const front = await connect(path)
    t.teardown(() => front.close())
    const frames = framesOf(front, { maxFds: 1 })
    const pairs = [newSocketpair(), newSocketpair(), newSocketpair()]
    t.teardown(() => pairs.flat().forEach((fd) => void closeSync(fd)))
    for (const [index, [fd]] of pairs.slice(0, 2).entries()) {
      await sendFrame(front, { tag: `${index}` }, [fd])
    }
    await container.printed(/2 held$/m)
    // Not a single one more.
    const fds = await settledFds(container.pid)
    const numbers = fds.map((fd) => Number.parseInt(fd, 10))
    const next = numbers.findIndex((fd, index) => fd !== index)
    const limit = next < 0 ? numbers.length : next
    const pid = `${container.pid}`
    execFileSync('prlimit', ['--pid', pid, `--nofile=${limit}`])
    await sendFrame(front, { tag: 'lost' }, [pairs[2]?.[0] ?? -1])
    const woken: unknown[] = []
    for await (const { value, fds } of frames) {
      woken.push(value.woke)
      for (const fd of fds) closeSync(fd)
    }
    t.strictSame(woken, ['0', '1'], 'those that it held come back')
    await container.printed(/^front 1: Expected whole .*, closed its 0$/m)
    await noMoreFds(t, container, before)
  },
)

t.test(
  'the container keeps within its limit of descriptors',
  {
    skip: missing('prlimit'),
  },
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const small = ['prlimit', '--nofile=100:100', ...script(CONTAINER, path)]
    t.match(await run(t, small), {
      code: 1,
      stderr: 'container.ts: Expected a limit of open descriptors above 100 ',
    })

    const limited = ['prlimit', '--nofile=130:130', ...script(CONTAINER, path)]
    const container = new Running(t, limited)
    await container.printed(/^Container ready on .*, holds up to 30\n/)
    const conns = await Promise.all(
      Array.from({ length: 40 }, () => connect(path)),
    )
    t.teardown(() => conns.forEach((conn) => void conn.close()))
    await container.printed(/^front 16: connected/m)
    const [front] = conns
    if (front === undefined) throw new Error('no front')
    const frames = framesOf(front, { maxFds: 1 })
    const pairs = Array.from({ length: 35 }, () => newSocketpair())
    t.teardown(() => pairs.flat().forEach((fd) => void closeSync(fd)))
    for (const [index, [fd]] of pairs.entries()) {
      await sendFrame(front, { tag: `${index}` }, [fd])
    }
    const woken: unknown[] = []
    for await (const { value, fds } of frames) {
      woken.push(value.woke)
      for (const fd of fds) closeSync(fd)
      if (woken.length === 5) break
    }
    t.strictSame(woken, ['30', '31', '32', '33', '34'])
    // Each front that leaves makes a place for one that waits.
    for (const conn of conns) conn.close()
    await container.printed(/^front 40: hung up, closed its 0$/m)
    await container.printed(/^front 1: hung up, closed its 30$/m)
  },
)

t.test('half a line does not keep a connection live for ever', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const late = ['--patience', '0.5']
  const { front, port } = await startFront(t, path, 0.1, ...late)
  const silent = await startPeer(t, port)
  silent.socket.write('hel')
  t.equal(await silent.read(), undefined, 'hung up on')
  const expected = 'Expected the rest of a line, or answers read, in 0.5 s'
  await front.printed(new RegExp(`^connection 1: ${expected}$`, 'm'))

  const slow = await startPeer(t, port)
  slow.socket.on('error', () => {})
  const trickle = setInterval(() => slow.socket.write('x'), 20)
  t.teardown(() => clearInterval(trickle))
  t.equal(await slow.read().catch(() => undefined), undefined)
  await front.printed(new RegExp(`^connection 2: ${expected}$`, 'm'))

  const deaf = await startPeer(t, port)
  deaf.socket.on('error', () => {}).pause()
  deaf.socket.write(`${'x'.repeat(16_000)}\n`.repeat(1000))
  await front.printed(new RegExp(`^connection 3: ${expected}$`, 'm'))
})

t.test('a front shows what comes back, and survives it', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const container = await listen(path)
  t.teardown(() => container.close())
  const { front } = await startFront(t, path, 600)
  const conn = await container.accept()
  if (conn === null) throw new Error('Expected the front, got none')
  t.teardown(() => conn.close())
  await front.printed(/^Container on/m)
  const before = await settledFds(front.pid)

  // Of this no net.Socket can be made.
  const file = openSync('LICENSE', 'r')
  const woke = JSON.stringify({ id: '\u009b2J\r9', lines: 0 })
  await sendFrame(conn, { woke }, [file])
  closeSync(file)
  await front.printed(/^connection \\u009b2J\\r9: woke as fd \d+$/m)
  await front.printed(/^connection \\u009b2J\\r9: .*Unsupported fd type/m)

  const [near, far] = newSocketpair()
  t.teardown(() => closeSync(far))
  await sendFrame(conn, { woke: '{"id":7,"lines":1}' }, [near])
  closeSync(near)
  writeSync(far, 'hello\n')
  await front.printed(/^connection 7: line 2: "hello"$/m)
  await until('the file is closed', () => {
    return openFds(front.pid).length === before.length + 1
  })
  t.notMatch(front.stdout, 'Container gone')
  t.equal(front.stderr, '')
})

t.test(
  'a front at its limit of descriptors loses nobody',
  {
    skip: missing('prlimit'),
  },
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    await startContainer(t, path)
    const port = await freePort()
    const args = ['--port', `${port}`, '--idle', '0.1', path]
    const limited = ['prlimit', '--nofile=120:120', ...script(FRONT, ...args)]
    const front = new Running(t, limited)
    await front.printed(/^Container on/m)
    const peers = await startPeers(t, port, 15)
    await allRead(t, peers, '1: I am')
    await front.printed(/ 15 parked, 0 live$/m)
    // As many live ones as it takes, and more that wait to be accepted.
    const others: Awaited<ReturnType<typeof startPeer>>[] = []
    for (let index = 0; index < 120; index++) {
      others.push(await startPeer(t, port))
      others[index]?.socket.write('qu')
    }
    await front.printed(/^connection 35: accepted$/m)
    for (const { socket, name } of peers) socket.write(`Still ${name}\n`)
    for (const { socket } of others) socket.write('it\n')
    await allRead(t, peers, '2: Still')
    for (const { read } of others) t.equal(await read(), '1: quit')
  },
)

t.test(
  'a Python front may cut and join its messages as it likes',
  { skip: missing('python3') },
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    await startContainer(t, path)
    const source = `
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
pairs = [socket.socketpair() for _ in range(3)]
# A descriptor rides on the first byte of its line, wherever that ends up.
socket.send_fds(s, [b'{"tag":"0"'], [pairs[0][0].fileno()])
s.send(b',"fds":1}\\n')
socket.send_fds(s, [b'{"tag":"1","fds":1}\\n'], [pairs[1][0].fileno()])
socket.send_fds(s, [b'{'], [pairs[2][0].fileno()])
for byte in b'"tag":"2","fds":1}\\n': s.send(bytes([byte]))
for n in (2, 0, 1):
    pairs[n][1].send(b'byte %d' % n)
    data, fds, _, _ = socket.recv_fds(s, 4096, 1)
    print(json.loads(data)['woke'], socket.socket(fileno=fds[0]).recv(99))
`
    const { stdout, stderr } = await run(t, ['python3', '-c', source, path])
    t.equal(stderr + stdout, "2 b'byte 2'\n0 b'byte 0'\n1 b'byte 1'\n")
  },
)

t.test('Ctrl-C ends either, with connections', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const container = await startContainer(t, path)
  const { front, port } = await startFront(t, path, 0.1)
  await front.printed(/^Container on/m)
  const parked = await startPeer(t, port)
  // So many that Node would warn, if all listened to one signal.
  for (let count = 1; count < 12; count++) await startPeer(t, port)
  await front.printed(/12 parked, 0 live$/m)
  const live = await startPeer(t, port)
  // The answer comes when it is within the next line, and so is not parked.
  live.socket.write('one\nhel')
  t.equal(await live.read(), '1: one')
  container.child.kill('SIGINT')
  t.match(await container.exit, { code: 0, signal: null })
  t.match(container.stdout, /^Container stopped$/m)
  t.throws(() => statSync(path), { code: 'ENOENT' })
  t.equal(await parked.read(), undefined)
  t.equal(await live.say('lo'), '2: hello')

  front.child.kill('SIGTERM')
  t.match(await front.exit, { code: 0, signal: null })
  t.match(front.stdout, /Front stopped\n$/)
  t.equal(front.stderr + container.stderr, '')
  t.equal(await live.read(), undefined)
})

t.test('mistakes are told in one line', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.teardown(() => taken.close())
  const address = taken.address()
  const port = typeof address === 'object' ? `${address?.port}` : ''
  const expect = expecting(t)
  await Promise.all([
    expect(
      CONTAINER,
      ['--most', 'x'],
      2,
      /Expected --most as a number, got "x"/,
    ),
    expect(CONTAINER, ['-m', '0'], 2, /Expected --most from 1 to .*, got "0"/),
    expect(CONTAINER, ['package.json'], 1, /EADDRINUSE package.json/),
    expect(FRONT, ['--idle', '0'], 2, /Expected --idle from .*, got "0"\n/),
    expect(
      FRONT,
      ['--idle', '1e3'],
      2,
      /Expected --idle in seconds, got "1e3"/,
    ),
    expect(FRONT, ['--port', 'x'], 2, /Expected --port as a number, got "x"/),
    expect(FRONT, ['--port', port, path], 1, /EADDRINUSE .* port \d+\n$/),
  ])
})

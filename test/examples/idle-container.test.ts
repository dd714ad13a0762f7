// examples/idle-container: connections that change their process and notice
// nothing.

import { once } from 'node:events'
import { closeSync, openSync, readSync, statSync, writeSync } from 'node:fs'
import { createServer, connect as dial, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Test, t } from 'tap'

import { framesOf, sendFrame } from '../../lib/conn/frames.ts'
import { connect } from '../../lib/index.ts'
import { linesOf } from '../../lib/script/lines.ts'
import { newSocketpair } from '../../lib/socket/unix.ts'
import {
  missing,
  openFds,
  Running,
  run,
  script,
  settledFds,
  temporaryFolder,
  until,
} from '../support.ts'

const CONTAINER = 'examples/idle-container/container.ts'
const FRONT = 'examples/idle-container/front.ts'

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const address = probe.address()
  probe.close()
  await once(probe, 'close')
  return typeof address === 'object' ? (address?.port ?? 0) : 0
}

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
): Promise<{ front: Running; port: number }> {
  const port = await freePort()
  const args = ['--port', `${port}`, '--idle', `${idle}`, path]
  const front = new Running(t, script(FRONT, ...args))
  await front.printed(/^Front ready on .*\n/m)
  return { front, port }
}

/** A peer: say() returns the answer to a line. */
async function startPeer(t: Test, port: number) {
  const socket = dial(port, '127.0.0.1').setNoDelay()
  t.teardown(() => socket.destroy())
  await once(socket, 'connect')
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
  await until('the front has nothing of it left', () => {
    return openFds(front.pid).length === before.front.length
  })
  t.equal(openFds(container.pid).length, before.container.length + 1)

  t.equal(await peer.say('again'), '2: again', 'the count goes on')
  await front.printed(/^connection 1: woke as fd \d+$/m)
  await container.printed(/^front 1: woke fd \d+, tag .*, 0 held$/m)

  // It is parked a second time, and then its peer goes.
  await front.printed(/(idle, parked[\s\S]*){2}/)
  peer.socket.end()
  await front.printed(/^connection 1: hung up$/m)
  t.equal(await peer.read(), undefined)
  await until('nothing is left of it', () => {
    return (
      openFds(front.pid).length === before.front.length &&
      openFds(container.pid).length === before.container.length
    )
  })
})

t.test('no byte is lost or changes its place', async (t) => {
  const path = join(temporaryFolder(t), 's')
  await startContainer(t, path)
  const { front, port } = await startFront(t, path, 0.02)
  await front.printed(/^Container on/m)
  const talk = async (seed: number): Promise<string[]> => {
    const peer = await startPeer(t, port)
    const sent: string[] = []
    for (let n = 1; n <= 12; n++) {
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
  const parked = front.stdout.match(/idle, parked/g)?.length ?? 0
  t.ok(parked > 50, `they were parked ${parked} times`)
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
  const third = startPeer(t, port)
  // Within a line, and so live.
  second.socket.write('he')
  container.child.kill('SIGKILL')
  await front.printed(
    /^Container gone: .*; the \d that it held are lost, \d live ones go on$/m,
  )
  t.equal(await first.read(), undefined, 'the parked one is lost')
  t.equal(await second.say('llo'), '1: hello')
  t.equal(await (await third).say('hi'), '1: hi')

  await startContainer(t, path)
  await front.printed(/(^Container on [\s\S]*){2}/m)
  await front.printed(/^connection 3: idle, parked/m)
  t.equal(await second.say('again'), '2: again')
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
  t.strictSame(openFds(container.pid), before)
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
  // The first goes and comes again: what it left is closed, not handed on.
  const [fd, peer] = newSocketpair()
  await sendFrame(fronts[0], { tag: 'left' }, [fd])
  closeSync(fd)
  await container.printed(/tag "left", 1 held$/m)
  fronts[0].close()
  await container.printed(/closed its 1$/m)
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
  await container.printed(/^front 3: epoll_ctl EPERM .*, closed its 0$/m)
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
  await until('all is closed', () => {
    return openFds(container.pid).length === before.length
  })
})

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
  await front.printed(/1 parked, 0 live$/m)
  const live = await startPeer(t, port)
  live.socket.write('hel')
  await front.printed(/^connection 2: accepted$/m)
  container.child.kill('SIGINT')
  t.match(await container.exit, { code: 0, signal: null })
  t.match(container.stdout, /^Container stopped$/m)
  t.throws(() => statSync(path), { code: 'ENOENT' })
  t.equal(await parked.read(), undefined)
  t.equal(await live.say('lo'), '1: hello')

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
  const expect = async (
    file: string,
    args: string[],
    code: number,
    text: RegExp,
  ): Promise<void> => {
    const result = await run(t, script(file, ...args))
    t.equal(result.code, code, args.join(' '))
    t.match(code === 0 ? result.stdout : result.stderr, text)
  }
  await Promise.all([
    expect(CONTAINER, ['--help'], 0, /^Usage: /),
    expect(FRONT, ['--help'], 0, /^Usage: /),
    expect(
      CONTAINER,
      ['--most', 'x'],
      2,
      /Expected --most as a number, got "x"/,
    ),
    expect(CONTAINER, ['package.json'], 1, /EADDRINUSE package.json/),
    expect(FRONT, ['--idle', '0'], 2, /Expected --idle in seconds, got "0"/),
    expect(FRONT, ['--port', 'x'], 2, /Expected --port as a number, got "x"/),
    expect(FRONT, ['--port', port, path], 1, /EADDRINUSE .* port \d+\n$/),
  ])
})

// Connections of messages: each arrives as it was sent, or not at all.

import { closeSync } from 'node:fs'
import { join } from 'node:path'
import { t } from 'tap'

import {
  connect,
  FdStream,
  listen,
  pairForChild,
  socketpair,
  UnixConn,
  unixCredentials,
  unixRights,
} from '../../../lib/index.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { lacksPassRights, missing } from '../../support/missing.ts'
import { Running } from '../../support/processes.ts'

const skip = process.platform === 'darwin' && 'macOS has no such sockets'

const type = 'seqpacket'

type Message = { readonly data: Buffer; readonly fds: readonly number[] }

/** A message as text, its descriptors closed: `"data" count`. */
function taken(message: Message | null): string {
  for (const fd of message?.fds ?? []) closeSync(fd)
  return message ? `"${message.data}" ${message.fds.length}` : 'end'
}

async function all(conn: UnixConn, options = {}): Promise<string[]> {
  const seen: string[] = []
  for await (const message of conn.messages(options)) seen.push(taken(message))
  return seen
}

leakFree(
  'by default a message is taken whole, and of a stream 64 KiB',
  async (t) => {
    for (const [pair, lengths] of [
      [socketpair({ type }), [100_000]],
      [socketpair(), [65_536, 34_464]],
    ] as const) {
      const [a, b] = pair
      await a.sendmsg(Buffer.alloc(100_000))
      for (const length of lengths)
        t.equal((await b.recvFds())?.data.length, length)
      for (const conn of pair) conn.close()
    }
  },
  skip,
)

leakFree(
  'messages keep their boundaries, by calls and by loops',
  async (t) => {
    const [a, b] = socketpair({ type })
    t.equal(a.type, type)
    const texts = Array.from({ length: 100 }, (_, i) => 'x'.repeat(i + 1))
    const send = () => Promise.all(texts.map((text) => a.sendmsg(text)))
    const sent = send()
      .then(send)
      .then(() => a.close())
    const expected = texts.map((text) => `"${text}" 0`)
    const calls: string[] = []
    while (calls.length < texts.length) calls.push(taken(await b.recvFds()))
    t.strictSame(calls, expected)
    t.strictSame(await all(b, { maxBytes: 1000 }), expected)
    await sent
    b.close()
  },
  skip,
)

leakFree(
  'descriptors come with their own message, with or without bytes',
  async (t) => {
    const [a, b] = socketpair({ type })
    await a.sendmsg('plain')
    await a.sendFds('two', [0, 1])
    await a.sendFds('', [0])
    await a.sendmsg('', unixRights(0, 1))
    a.close()
    t.strictSame(await all(b), ['"plain" 0', '"two" 2', '"" 1', '"" 2'])
    b.close()
  },
  skip,
)

leakFree(
  'an empty message is one',
  async (t) => {
    const [a, b] = socketpair({ type })
    // Behind the last one nothing comes, but its sender is there still.
    const texts = ['1', '', '2', '']
    for (const text of texts) await a.sendmsg(text)
    for (const text of texts) t.equal(taken(await b.recvFds()), `"${text}" 0`)
    a.close()
    t.equal(await b.recvFds(), null)
    b.close()
  },
  skip,
)

leakFree(
  'an empty message of a peer that has gone hides none behind it',
  async (t) => {
    const texts = ['1', '', '2', '3', '', '', '4']
    const expected = texts.map((text) => `"${text}" 0`)
    for (const way of ['calls', 'a loop']) {
      const [a, b] = socketpair({ type })
      for (const text of texts) await a.sendmsg(text)
      a.close()
      const seen: string[] = []
      if (way === 'calls') {
        for (;;) {
          const message = await b.recvFds()
          if (message === null) break
          seen.push(taken(message))
        }
      } else {
        seen.push(...(await all(b, { maxBytes: 1000 })))
      }
      t.strictSame(seen, expected, way)
      t.equal(await b.recvFds(), null, 'and the end stays the end')
      b.close()
    }
  },
  skip,
)

leakFree(
  'a message longer than maxBytes is an error, and the next one comes',
  async (t) => {
    const [a, b] = socketpair({ type })
    for (const text of ['longer', 'next', 'longer', 'last']) {
      await a.sendFds(text, [0])
    }
    const tooLong = {
      code: 'ERR_MESSAGE_TRUNCATED',
      message: 'Expected a message of at most 4 bytes, got a longer one',
      data: Buffer.from('long'),
    }
    await t.rejects(b.recvmsg({ maxBytes: 4 }), tooLong)
    t.equal(taken(await b.recvFds({ maxBytes: 4 })), '"next" 1')
    await t.rejects(all(b, { maxBytes: 4 }), tooLong)
    t.equal(taken(await b.recvFds()), '"last" 1')
    for (const conn of [a, b]) conn.close()
  },
  skip,
)

leakFree(
  'a message too large for the socket says how large is too large',
  async (t) => {
    const [a, b] = socketpair({ type })
    const sends = [10_000_000, 5].map((length) =>
      a.sendmsg(Buffer.alloc(length)),
    )
    const [large, small] = await Promise.allSettled(sends)
    t.match(large, { status: 'rejected', reason: { code: 'EMSGSIZE' } })
    t.match(large, {
      reason: { message: /10000000 bytes, of at most \d+ \(SO_SNDBUF\)$/ },
    })
    t.equal(small?.status, 'fulfilled')
    t.equal((await b.recvmsg())?.data.length, 5)
    for (const conn of [a, b]) conn.close()
  },
  skip,
)

leakFree(
  'a full socket: messages wait for room, and come whole',
  async (t) => {
    const [a, b] = socketpair({ type })
    const sends = Array.from({ length: 300 }, (_, i) =>
      a.sendmsg(Buffer.alloc(10_000 + i, i)),
    )
    const sent = Promise.all(sends).then(() => a.close())
    let count = 0
    for await (const { data } of b) {
      const i = count++
      if (!data.equals(Buffer.alloc(10_000 + i, i))) t.fail(`message ${i}`)
    }
    await sent
    t.equal(count, 300)
    b.close()
  },
  skip,
)

leakFree(
  'listen(), connect() make them, and tell the types apart',
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const listener = await listen(path, { type })
    await t.rejects(connect(path), {
      code: 'EPROTOTYPE',
      message: /expected a stream socket, got one of another type$/,
    })
    const client = await connect(path, { type })
    const server = await listener.accept()
    t.equal(server?.type, type)
    await client.sendmsg('1')
    await client.sendmsg('2')
    client.close()
    t.strictSame(server && (await all(server)), ['"1" 0', '"2" 0'])
    for (const each of [server, listener]) each?.close()
  },
  skip,
)

leakFree(
  'fromFd() sees what it gets; streams are refused on it',
  async (t) => {
    const [one, other] = newSocketpair({ type })
    const [a, b] = [UnixConn.fromFd(one), UnixConn.fromFd(other)]
    t.equal(a.type, type)
    t.throws(() => new FdStream(a), { name: 'TypeError' })
    await t.rejects(a.readExactly(1), { name: 'TypeError' })
    for (const conn of [a, b]) conn.close()
    for (const fd of newSocketpair({ type: 'datagram' })) {
      t.throws(() => UnixConn.fromFd(fd), {
        code: 'EPROTOTYPE',
        syscall: 'getsockopt',
        message: /type stream or seqpacket, got type 2$/,
      })
      closeSync(fd)
    }
    const wrong = JSON.parse('{ "type": "raw" }')
    t.throws(() => socketpair(wrong), { name: 'RangeError' })
  },
  skip,
)

leakFree(
  'Python gets, and sends, the same messages',
  async (t) => {
    const { conn, childFd } = pairForChild({ type })
    const source = `
import socket
s = socket.socket(fileno=3)
while True:
  data, fds, _, _ = socket.recv_fds(s, 1000, 9)
  if not data: break
  socket.send_fds(s, [data.upper()], fds)
`
    const python = new Running(t, ['python3', '-c', source], {
      stdio: ['ignore', 'inherit', 'inherit', childFd],
    })
    closeSync(childFd)
    await Promise.all([conn.sendFds('one', [0]), conn.sendFds('two', [0, 0])])
    t.equal(taken(await conn.recvFds()), '"ONE" 1')
    t.equal(taken(await conn.recvFds()), '"TWO" 2')
    await conn.end()
    t.equal(await conn.recvFds(), null)
    await python.exit
    conn.close()
  },
  skip || missing('python3'),
)

for (const type of ['stream', 'seqpacket'] as const) {
  leakFree(
    `passCredentials tells who sent it: ${type}`,
    async (t) => {
      const [a, b] = socketpair({ type, passCredentials: true })
      const [pid, uid, gid] = [
        process.pid,
        process.getuid?.() ?? 0,
        process.getgid?.() ?? 0,
      ]
      await a.sendFds('x', [0])
      const { data, fds = [], credentials } = (await b.recvFds()) ?? {}
      t.equal(`${data}`, 'x')
      t.equal(fds.length, 1)
      for (const fd of fds) closeSync(fd)
      t.strictSame(credentials, { pid, uid, gid })
      await a.sendmsg('y', unixCredentials({ pid, uid, gid }))
      t.strictSame((await b.recvFds())?.credentials, { pid, uid, gid })
      a.close()
      t.equal(await b.recvFds(), null, 'and the end is the end')
      b.close()
    },
    (type === 'seqpacket' && skip) ||
      (process.platform !== 'linux' && 'SO_PASSCRED is of Linux'),
  )
}

t.test('refuseFds', { skip: skip || lacksPassRights() }, async (t) => {
  const [a, b] = socketpair({ type, refuseFds: true })
  await t.rejects(a.sendFds('x', [0]), { code: 'EPERM', syscall: 'sendmsg' })
  await a.sendmsg('plain')
  t.equal(taken(await b.recvFds()), '"plain" 0')
  for (const conn of [a, b]) conn.close()
})

// A connection: what arrives, in which order, and who owns it.

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net'
import { join } from 'node:path'
import {
  pairForChild,
  parseControlMessages,
  parseUnixRights,
  socketpair,
  UnixConn,
  unixRights,
  waitReadable,
} from '../../../lib/index.ts'
import * as unix from '../../../lib/socket/unix.ts'
import * as watching from '../../../lib/wait/watch.ts'
import { leakFree, openFds } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing } from '../../support/missing.ts'
import { pipe } from '../../support/pipes.ts'

leakFree('sendmsg(), recvmsg() pass one descriptor beside bytes', async (t) => {
  const [a, b] = socketpair()
  const file = openSync('package.json', 'r')
  await a.sendmsg('Here is a file', unixRights(file))
  const message = await b.recvmsg()
  t.equal(message?.data.toString(), 'Here is a file')
  const items = parseControlMessages(message?.control ?? Buffer.alloc(0))
  t.equal(items.length, 1)
  const [fd = -1, ...others] = items.flatMap((item) => parseUnixRights(item))
  t.strictSame(others, [])
  t.equal(fstatSync(fd).ino, fstatSync(file).ino, 'the same file')
  t.not(fd, file, 'under another number')
  for (const each of [fd, file]) closeSync(each)
  for (const conn of [a, b]) conn.close()
})

leakFree(
  'a received descriptor shares the open file description',
  async (t) => {
    const path = join(temporaryFolder(t), 'file')
    writeFileSync(path, '0123456789')
    const [a, b] = socketpair()
    const file = openSync(path, 'r')
    readSync(file, Buffer.alloc(5))
    await a.sendFds('x', [file])
    const { fds: [fd = -1] = [] } = (await b.recvFds()) ?? {}
    unlinkSync(path)
    const bytes = Buffer.alloc(3)
    readSync(fd, bytes)
    t.equal(bytes.toString(), '567', 'goes on where the sender stopped')
    readSync(file, bytes.subarray(0, 2))
    t.equal(bytes.toString(), '897', 'and moves the offset of the sender')
    t.throws(() => writeSync(fd, 'x'), { code: 'EBADF' }, 'remains read-only')
    for (const each of [fd, file]) closeSync(each)
    for (const conn of [a, b]) conn.close()
  },
)

leakFree(
  'received descriptors are close-on-exec, and so are ours',
  async (t) => {
    const [a, b] = socketpair()
    const { r, w } = pipe()
    await a.sendFds('x', [r])
    const { fds: [fd = -1] = [] } = (await b.recvFds()) ?? {}
    for (const each of [fd, a.fd, b.fd]) {
      const flags = readFileSync(`/proc/self/fdinfo/${each}`, 'utf8')
      t.match(flags, /flags:\s+0?2\d{6}\b/, 'FD_CLOEXEC')
    }
    const inherited = spawnSync('sh', ['-c', 'ls -l /proc/self/fd'])
    t.notMatch(inherited.stdout.toString(), new RegExp(` ${fd} ->`))
    for (const each of [fd, r, w]) closeSync(each)
    for (const conn of [a, b]) conn.close()
  },
)

leakFree('sendFds() keeps the order of many descriptors', async (t) => {
  const [a, b] = socketpair()
  const pipes = Array.from({ length: 10 }, () => pipe())
  await a.sendFds(
    'x',
    pipes.map(({ r }) => r),
  )
  const { fds = [] } = (await b.recvFds()) ?? {}
  t.strictSame(
    fds.map((fd) => fstatSync(fd).ino),
    pipes.map(({ r }) => fstatSync(r).ino),
  )
  for (const fd of fds) closeSync(fd)
  for (const { r, w } of pipes) for (const fd of [r, w]) closeSync(fd)
  for (const conn of [a, b]) conn.close()
})

leakFree('sendFds() without descriptors is a plain send', async (t) => {
  const [a, b] = socketpair()
  await a.sendFds('plain', [])
  t.strictSame(await b.recvFds(), { data: Buffer.from('plain'), fds: [] })
  await a.sendmsg('rights to nothing', unixRights())
  const message = await b.recvmsg()
  t.equal(message?.control.length, 0)
  for (const conn of [a, b]) conn.close()
})

leakFree(
  'what sendmsg() got as control may be used again at once',
  async (t) => {
    const [a, b] = socketpair()
    const file = openSync('package.json', 'r')
    const control = unixRights(file)
    const sends = [a.sendmsg('first', control)]
    control.set(unixRights(0))
    sends.push(a.sendmsg('second', control))
    control.fill(0)
    await Promise.all(sends)
    const { fds: [first = -1] = [] } = (await b.recvFds()) ?? {}
    const { fds: [second = -1] = [] } = (await b.recvFds()) ?? {}
    t.equal(fstatSync(first).ino, fstatSync(file).ino)
    t.equal(fstatSync(second).ino, fstatSync(0).ino)
    for (const each of [file, first, second]) closeSync(each)
    for (const conn of [a, b]) conn.close()
  },
)

leakFree('sendmsg() refuses descriptors without a byte of data', async (t) => {
  const [a, b] = socketpair()
  const refusal = { name: 'RangeError', message: /at least one byte/ }
  await t.rejects(a.sendFds('', [0]), refusal)
  await t.rejects(a.sendmsg('', unixRights(0)), refusal)
  await a.sendmsg('')
  await a.sendmsg('done')
  t.equal((await b.recvmsg())?.data.toString(), 'done')
  for (const conn of [a, b]) conn.close()
})

leakFree(
  'sendmsg() refuses bad arguments before anything is sent',
  async (t) => {
    const [a, b] = socketpair()
    const send = (json: string): Promise<void> => a.sendmsg(JSON.parse(json))
    for (const data of ['null', '{}', '5', '[1]']) {
      await t.rejects(send(data), { name: 'TypeError' }, `data ${data}`)
    }
    const sendControl = (json: string): Promise<void> =>
      a.sendmsg('x', JSON.parse(json))
    for (const control of ['{}', '5', '"x"']) {
      await t.rejects(sendControl(control), { name: 'TypeError' }, control)
    }
    const sendFds = (json: string): Promise<void> =>
      a.sendFds('x', JSON.parse(json))
    for (const fds of ['[1.5]', '["3"]', '[null]', '[-1]', '[{}]']) {
      await t.rejects(sendFds(fds), { name: 'RangeError' }, `fds ${fds}`)
    }
    // Linux would take these and leave the descriptors behind, or say EINVAL.
    const rights = unixRights(0)
    for (const size of [1, 8, 15]) {
      const control = rights.subarray(0, size)
      const sending = a.sendmsg('x', control)
      await t.rejects(sending, { name: 'RangeError' }, `${size}`)
    }
    await t.rejects(
      a.sendmsg('x', rights.subarray(0, 18)),
      /Expected a cmsg_len/,
    )
    await t.rejects(a.sendmsg('x', Buffer.concat(Array(99).fill(rights))), {
      name: 'RangeError',
    })
    await a.sendmsg('done')
    t.equal((await b.recvmsg())?.data.toString(), 'done')
    for (const conn of [a, b]) conn.close()
  },
)

leakFree('recvmsg() refuses bad sizes and leaves the data', async (t) => {
  const [a, b] = socketpair()
  await a.sendmsg('queued')
  for (const maxBytes of [0, -1, 1.5, Number.NaN, 2 ** 53]) {
    await t.rejects(b.recvmsg({ maxBytes }), { name: 'RangeError' })
  }
  for (const maxFds of [-1, 1.5, Number.NaN]) {
    await t.rejects(b.recvmsg({ maxFds }), { name: 'RangeError' })
  }
  t.equal((await b.recvmsg())?.data.toString(), 'queued')
  for (const conn of [a, b]) conn.close()
})

leakFree('sendmsg() fails as Node does, and sends nothing', async (t) => {
  const [a, b] = socketpair()
  const { r, w } = pipe()
  const shape = {
    code: 'EBADF',
    errno: -9,
    syscall: 'sendmsg',
    message: 'sendmsg EBADF descriptor 99999',
  }
  await t.rejects(a.sendFds('x', [w, 99999]), shape)
  closeSync(w)
  t.equal(readSync(r, Buffer.alloc(1)), 0, 'no hidden reference to the pipe')
  await a.sendmsg('done')
  t.equal((await b.recvmsg())?.data.toString(), 'done')
  closeSync(r)
  for (const conn of [a, b]) conn.close()
})

leakFree('calls are served in order, whatever waits', async (t) => {
  const [a, b] = socketpair()
  const { r, w } = pipe()
  // Far more than the socket holds, so that all but the first must wait.
  const big = Buffer.alloc(1_000_000, 'a')
  const sends = [
    a.sendmsg(big),
    a.sendFds('B', [r]),
    a.sendmsg('c'),
    a.sendFds('D', [w]),
    a.sendmsg('e'),
  ]
  let bytes = ''
  const seen: string[] = []
  while (bytes.length < big.length + 4) {
    const message = await b.recvFds()
    if (message === null) break
    bytes += message.data
    for (const fd of message.fds) {
      const which = fstatSync(fd).ino === fstatSync(r).ino ? 'pipe' : 'other'
      seen.push(`${which} by ${bytes.length - big.length}`)
      closeSync(fd)
    }
  }
  await Promise.all(sends)
  t.equal(bytes.slice(big.length), 'BcDe')
  t.equal(bytes.length, big.length + 4)
  t.equal(seen.length, 2)
  for (const fd of [r, w]) closeSync(fd)
  for (const conn of [a, b]) conn.close()
})

leakFree('recvmsg() calls queue in order', async (t) => {
  const [a, b] = socketpair()
  const receives = [
    b.recvmsg(),
    b.recvmsg({ maxBytes: 2 }),
    b.recvmsg(),
    b.recvmsg(),
  ]
  await a.sendFds('one', [0])
  await a.sendFds('two', [0])
  a.close()
  const got = await Promise.all(receives)
  t.strictSame(
    got.map((message) => message?.data.toString()),
    ['one', 'tw', 'o', undefined],
  )
  for (const message of got) {
    for (const item of parseControlMessages(
      message?.control ?? Buffer.alloc(0),
    )) {
      for (const fd of parseUnixRights(item)) closeSync(fd)
    }
  }
  t.equal(await b.recvmsg(), null, 'the end of file remains')
  b.close()
})

leakFree('recvmsg() takes the first message alone', async (t) => {
  const [a, b] = socketpair()
  await Promise.all([a.sendFds('1', [0]), a.sendFds('2', [0])])
  const before = openFds().length
  const first = await b.recvFds()
  t.equal(openFds().length, before + 1, 'the second stays in the kernel')
  for (const fd of first?.fds ?? []) closeSync(fd)
  for (const conn of [a, b]) conn.close()
})

// The descriptors that came, by either call.
const calls = {
  recvFds: async (conn: UnixConn, maxFds: number) =>
    (await conn.recvFds({ maxFds }))?.fds ?? [],
  recvmsg: async (conn: UnixConn, maxFds: number) => {
    const message = await conn.recvmsg({ maxFds })
    const items = parseControlMessages(message?.control ?? Buffer.alloc(0))
    return items.flatMap((item) => parseUnixRights(item))
  },
}

for (const [name, receive] of Object.entries(calls)) {
  leakFree(`${name}() closes descriptors beyond maxFds`, async (t) => {
    const [a, b] = socketpair()
    for (const [sent, maxFds] of [
      [2, 1],
      [3, 2],
      [1, 0],
    ] as const) {
      const { r, w } = pipe()
      await a.sendFds('bytes', Array(sent).fill(w))
      closeSync(w)
      await t.rejects(receive(b, maxFds), {
        code: 'ERR_TOO_MANY_FDS',
        message: `Expected at most ${maxFds} descriptors, got ${sent}: closed all`,
        data: Buffer.from('bytes'),
      })
      await waitReadable(r)
      t.equal(readSync(r, Buffer.alloc(1)), 0, 'they are closed')
      closeSync(r)
    }
    await a.sendFds('still works', [0])
    const fds = await receive(b, 1)
    t.equal(fds.length, 1)
    for (const fd of fds) closeSync(fd)
    for (const conn of [a, b]) conn.close()
  })
}

leakFree(
  'close() wakes receivers with null and senders with an error',
  async (t) => {
    const [a, b] = socketpair()
    const receive = [b.recvmsg(), b.recvFds()]
    b.close()
    t.strictSame(await Promise.all(receive), [null, null])
    const send = [a.sendmsg('x'), a.sendmsg('y')]
    a.close()
    const closed = {
      code: 'ERR_SOCKET_CLOSED',
      message: 'The connection is closed',
    }
    for (const each of send) await t.rejects(each, closed)
    await t.rejects(a.sendmsg('later'), closed)
    t.equal(await a.recvmsg(), null)
    t.equal(a.fd, -1)
  },
)

leakFree(
  'close() in the middle of a blocked send rejects it once',
  async (t) => {
    const [a, b] = socketpair()
    const sends = [a.sendmsg(Buffer.alloc(4_000_000)), a.sendFds('x', [0])]
    const results = Promise.allSettled(sends)
    await b.recvmsg()
    a.close()
    for (const result of await results) t.equal(result.status, 'rejected')
    while ((await b.recvmsg()) !== null);
    b.close()
  },
)

leakFree(
  'close() twice leaves the newcomer under the same number',
  async (t) => {
    const [a, b] = socketpair()
    const number = a.fd
    a.close()
    const file = openSync('package.json', 'r')
    t.equal(file, number, 'the number was free and is taken again')
    a.close()
    t.ok(fstatSync(file).isFile(), 'still open')
    closeSync(file)
    b.close()
  },
)

leakFree('a connection is disposed of', async (t) => {
  const [a, b] = socketpair()
  a[Symbol.dispose]()
  t.equal(a.fd, -1)
  t.equal(await b.recvmsg(), null)
  b.close()
})

leakFree('a peer that is gone: null to read, EPIPE to write', async (t) => {
  const [a, b] = socketpair()
  await a.sendFds('last words', [0])
  a.close()
  const message = await b.recvFds()
  t.equal(message?.data.toString(), 'last words')
  for (const fd of message?.fds ?? []) closeSync(fd)
  await t.rejects(b.sendmsg('x'), { code: 'EPIPE', syscall: 'sendmsg' })
  await t.rejects(b.sendFds('x', [0]), { code: 'EPIPE' })
  t.equal(await b.recvmsg(), null, 'receiving still works')
  b.close()
})

leakFree(
  'a peer that leaves our bytes unread: ECONNRESET, then null',
  async (t) => {
    const [a, b] = socketpair()
    await b.sendmsg('nobody reads this')
    const receive = b.recvmsg()
    a.close()
    await t.rejects(receive, { code: 'ECONNRESET', syscall: 'recvmsg' })
    t.equal(await b.recvmsg(), null)
    b.close()
  },
)

leakFree('a blocked sender whose peer dies is told', async (t) => {
  const [a, b] = socketpair()
  const sends = [
    a.sendmsg(Buffer.alloc(4_000_000)),
    a.sendFds('x', [0]),
    a.sendmsg('y'),
  ]
  const results = Promise.allSettled(sends)
  await b.recvmsg()
  b.close()
  for (const result of await results) {
    t.equal(result.status, 'rejected')
    if (result.status === 'rejected')
      t.match(result.reason.code, /EPIPE|ECONNRESET/)
  }
  a.close()
})

leakFree('fromFd() adopts a descriptor that was just received', async (t) => {
  const [a, b] = socketpair()
  const [one, other] = unix.newSocketpair()
  await a.sendFds('x', [other])
  closeSync(other)
  const { fds: [fd = -1] = [] } = (await b.recvFds()) ?? {}
  const far = UnixConn.fromFd(fd)
  const near = UnixConn.fromFd(one)
  await near.sendmsg('hello')
  t.equal((await far.recvmsg())?.data.toString(), 'hello')
  for (const conn of [a, b, near, far]) conn.close()
})

leakFree('fromFd() refuses what is no Unix socket', async (t) => {
  const file = openSync('package.json', 'r')
  t.throws(() => UnixConn.fromFd(file), { code: 'ENOTSOCK' })
  t.throws(() => UnixConn.fromFd(99999), { code: 'EBADF' })
  t.throws(() => UnixConn.fromFd(-1), { code: 'EBADF' })
  t.ok(fstatSync(file).isFile(), 'it remains open')
  closeSync(file)

  // TCP would take the bytes and drop the descriptors.
  const server = createServer((socket) => socket.end()).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const before = openFds()
  const socket = connectTcp((server.address() as AddressInfo).port, '127.0.0.1')
  await once(socket, 'connect')
  const tcp = openFds().filter((fd) => !before.includes(fd))
  t.ok(tcp.length > 0)
  for (const fd of tcp) {
    t.throws(() => UnixConn.fromFd(Number.parseInt(fd, 10)), {
      code: 'EPROTOTYPE',
      message: /expected a Unix socket \(family 1\), got family 2$/,
    })
  }
  socket.destroy()
  server.close()
  await once(server, 'close')
})

leakFree('fromFd() adopts a connected pair whose peer is gone', async (t) => {
  const [one, other] = unix.newSocketpair()
  writeSync(other, 'foo')
  closeSync(other)
  const conn = UnixConn.fromFd(one)
  t.equal((await conn.recvmsg())?.data.toString(), 'foo')
  t.equal(await conn.recvmsg(), null)
  conn.close()
})

leakFree('an unconnected socket fails clearly', async (t) => {
  const conn = UnixConn.fromFd(unix.newSocket())
  await t.rejects(conn.sendmsg('x'), { code: 'ENOTCONN' })
  await t.rejects(conn.recvmsg(), { code: 'EINVAL', syscall: 'recvmsg' })
  conn.close()
})

leakFree('a socket can be sent over itself', async (t) => {
  const [a, b] = socketpair()
  await a.sendFds('x', [b.fd])
  const { fds: [fd = -1] = [] } = (await b.recvFds()) ?? {}
  const again = UnixConn.fromFd(fd)
  await a.sendmsg('to both')
  t.equal((await again.recvmsg())?.data.toString(), 'to both')
  for (const conn of [a, b, again]) conn.close()
})

leakFree('peerCredentials() tells who made the pair', async (t) => {
  const [a, b] = socketpair()
  const us = {
    pid: process.pid,
    uid: process.getuid?.(),
    gid: process.getgid?.(),
  }
  t.strictSame(a.peerCredentials(), us)
  t.strictSame(b.peerCredentials(), us)
  for (const conn of [a, b]) conn.close()
  t.throws(() => a.peerCredentials(), { code: 'EBADF', syscall: 'getsockopt' })
})

leakFree('framed messages each get their own descriptors', async (t) => {
  const [a, b] = socketpair()
  const { r, w } = pipe()
  const inode = fstatSync(r).ino
  let state = 42
  const random = (below: number): number => {
    state = (state * 1103515245 + 12345) % 2 ** 31
    return state % below
  }
  const messages = Array.from({ length: 60 }, () => ({
    size: 1 + random(random(4) === 0 ? 200_000 : 500),
    fds: random(6),
  }))
  const send = async (): Promise<void> => {
    const sends = messages.map(({ size, fds }) => {
      const head = Buffer.alloc(8)
      head.writeUInt32LE(size)
      head.writeUInt32LE(fds, 4)
      return a.sendFds(
        Buffer.concat([head, Buffer.alloc(size, fds)]),
        Array(fds).fill(r),
      )
    })
    await Promise.all(sends)
    a.close()
  }
  const sending = send()
  let bytes = Buffer.alloc(0)
  const fds: number[] = []
  let wrong = 0
  let next = 0
  for (;;) {
    const message = await b.recvFds({ maxBytes: 1 + random(70_000) })
    if (message === null) break
    bytes = Buffer.concat([bytes, message.data])
    fds.push(...message.fds)
    while (bytes.length >= 8) {
      const size = bytes.readUInt32LE(0)
      const count = bytes.readUInt32LE(4)
      if (bytes.length < 8 + size) break
      const own = fds.splice(0, count)
      if (size !== messages[next]?.size || count !== messages[next]?.fds)
        wrong++
      if (own.length !== count || bytes[8 + size - 1] !== count) wrong++
      for (const fd of own) {
        if (fstatSync(fd).ino !== inode) wrong++
        closeSync(fd)
      }
      bytes = bytes.subarray(8 + size)
      next++
    }
  }
  await sending
  t.equal(next, messages.length)
  t.equal(wrong, 0)
  t.strictSame(fds, [], 'none is left over')
  for (const fd of [r, w]) closeSync(fd)
  b.close()
})

leakFree('a flood does not keep others from their turn', async (t) => {
  const [a, b] = socketpair()
  let stop = false
  let timers = 0
  const flood = async (): Promise<void> => {
    while (!stop) await a.sendmsg('x')
    a.close()
  }
  const drain = async (): Promise<void> => {
    while ((await b.recvmsg()) !== null);
    b.close()
  }
  const both = [flood(), drain()]
  for (; timers < 5; timers++)
    await new Promise((resolve) => setTimeout(resolve, 1))
  stop = true
  await Promise.all(both)
  t.equal(timers, 5)
})

leakFree(
  'a receiver with plenty to receive lets others in between',
  async (t) => {
    const [a, b] = socketpair()
    const size = 5000
    await a.sendmsg(Buffer.alloc(size))
    let turned = -1
    let received = 0
    setImmediate(() => {
      turned = received
    })
    for (; received < size; received++) await b.recvmsg({ maxBytes: 1 })
    t.ok(turned > 0 && turned < size, `after ${turned} of ${size}`)
    for (const conn of [a, b]) conn.close()
  },
)

leakFree('end() comes behind all that was sent before', async (t) => {
  const [a, b] = socketpair()
  const long = Buffer.alloc(2_000_000, '-')
  const sends = [a.sendmsg(long), a.sendFds('last', [0]), a.end()]
  const late = { code: 'ERR_STREAM_WRITE_AFTER_END', syscall: 'sendmsg' }
  await t.rejects(a.sendmsg('late'), late)
  await t.rejects(a.end(), late)
  let text = ''
  let count = 0
  for await (const { data, fds } of b) {
    text += data
    count += fds.length
    for (const fd of fds) closeSync(fd)
  }
  await Promise.all(sends)
  t.equal(text, `${long}last`)
  t.equal(count, 1)
  await b.sendmsg('an answer')
  t.equal((await a.recvmsg())?.data.toString(), 'an answer')
  await b.end()
  t.equal(await a.recvmsg(), null)
  for (const conn of [a, b]) conn.close()
  await t.rejects(a.end(), { code: 'ERR_SOCKET_CLOSED' })
})

leakFree('end() that waits for room is rejected by close()', async (t) => {
  const [a, b] = socketpair()
  const calls = [a.sendmsg(Buffer.alloc(2_000_000)), a.end()]
  const results = Promise.allSettled(calls)
  await b.recvmsg()
  a.close()
  for (const result of await results) {
    const reason = { code: 'ERR_SOCKET_CLOSED' }
    t.match(result, { status: 'rejected', reason })
  }
  b.close()
})

leakFree('readExactly() gives so many bytes, however they come', async (t) => {
  const [a, b] = socketpair()
  const sends = [
    a.sendFds('head', [0]),
    a.sendmsg('er|'),
    a.sendFds('body', [0, 0]),
    a.sendmsg('|rest'),
    a.end(),
  ]
  const header = await b.readExactly(7, { maxFds: 1 })
  t.equal(`${header?.data}`, 'header|')
  t.equal(header?.fds.length, 1)
  const body = await b.readExactly(5)
  t.equal(`${body?.data}`, 'body|')
  t.equal(body?.fds.length, 2)
  for (const fd of [...(header?.fds ?? []), ...(body?.fds ?? [])]) closeSync(fd)
  t.equal(`${(await b.readExactly(4))?.data}`, 'rest')
  t.equal(await b.readExactly(4), null, 'the end of file')
  await Promise.all(sends)
  for (const conn of [a, b]) conn.close()
})

leakFree('readExactly() that gets less closes what came', async (t) => {
  const [a, b] = socketpair()
  await a.sendFds('half', [0])
  await a.end()
  await t.rejects(b.readExactly(8), {
    code: 'ERR_STREAM_PREMATURE_CLOSE',
    message: 'Expected 8 bytes, got 4 and the end of file',
    data: Buffer.from('half'),
  })
  const [c, d] = socketpair()
  await c.sendFds('one', [0])
  await c.sendFds('two', [0])
  const tooMany = { code: 'ERR_TOO_MANY_FDS' }
  await t.rejects(d.readExactly(6, { maxFds: 1 }), tooMany)
  const { signal } = new AbortController()
  await c.sendFds('x', [0])
  const stop = new AbortController()
  const waiting = d.readExactly(2, { signal: stop.signal })
  setImmediate(() => stop.abort())
  await t.rejects(waiting, { name: 'AbortError' })
  for (const size of [0, -1, 1.5]) {
    const bad = { name: 'RangeError', message: /^Expected size / }
    await t.rejects(d.readExactly(size, { signal }), bad)
  }
  await c.sendmsg('works on')
  t.equal(`${(await d.readExactly(8))?.data}`, 'works on')
  for (const conn of [a, b, c, d]) conn.close()
})

leakFree('pairForChild() gives a child an end that blocks', async (t) => {
  const { conn, childFd } = pairForChild()
  const info = readFileSync(`/proc/self/fdinfo/${childFd}`, 'utf8')
  const [, flags = ''] = /flags:\s+(\d+)/.exec(info) ?? []
  t.equal(Number.parseInt(flags, 8) & constants.O_NONBLOCK, 0)
  const child = spawn('cat', { stdio: [childFd, childFd, 'inherit'] })
  closeSync(childFd)
  const ended = once(child, 'close')
  await conn.sendmsg('there and back')
  t.equal(`${(await conn.recvmsg())?.data}`, 'there and back')
  await conn.end()
  t.equal(await conn.recvmsg(), null)
  await ended
  conn.close()
})

// Where the kernel dropped it, it would close the descriptor in recvmsg(2), and
// wait for whatever that may take.
leakFree(
  'a byte that is sent out of band comes in its place',
  async (t) => {
    const { conn, childFd } = pairForChild()
    const source = `
import array, socket
s = socket.socket(fileno=3)
s.send(b'one')
rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0]))
s.sendmsg([b'!'], [rights], socket.MSG_OOB)
s.send(b'two')
`
    const stdio = ['pipe', 'inherit', 'inherit', childFd] as const
    const child = spawn('python3', ['-c', source], { stdio: [...stdio] })
    closeSync(childFd)
    await once(child, 'close')
    let text = ''
    let count = 0
    for await (const { data, fds } of conn) {
      text += data
      count += fds.length
      for (const fd of fds) closeSync(fd)
    }
    t.equal(text, 'one!two')
    t.equal(count, 1)
    conn.close()
  },
  (process.platform !== 'linux' && 'MSG_OOB is of Linux') || missing('python3'),
)

leakFree('an error has the line of its caller in its stack', async (t) => {
  const [a, b] = socketpair()
  b.close()
  async function sendsToNobody(): Promise<void> {
    await a.sendFds('x', [0])
  }
  async function sendsMessage(): Promise<void> {
    await a.sendmsg('x')
  }
  for (const send of [sendsToNobody, sendsMessage]) {
    const error: unknown = await send().catch((reason) => reason)
    t.match(error, { code: 'EPIPE' })
    t.match((error as Error).stack, new RegExp(send.name))
  }
  a.close()
})

leakFree(
  'a pair whose options cannot be set leaves nothing open',
  async (t) => {
    const failing = {
      ...unix,
      applyOptions: (): never => {
        throw new Error('no such option')
      },
    }
    const { pairForChild, socketpair } = await t.mockImport<
      typeof import('../../../lib/conn/conn.ts')
    >('../../../lib/conn/conn.ts', { '../../../lib/socket/unix.ts': failing })
    const options = { passCredentials: true }
    t.throws(() => socketpair(options), { message: 'no such option' })
    t.throws(() => pairForChild(options), { message: 'no such option' })
  },
)

leakFree(
  'a pair whose other end cannot be watched leaves nothing open',
  async (t) => {
    let watched = 0
    class SecondFails extends watching.Watch {
      constructor(...args: ConstructorParameters<typeof watching.Watch>) {
        if (++watched === 2) throw new Error('no way to wait')
        super(...args)
      }
    }
    const { socketpair } = await t.mockImport<
      typeof import('../../../lib/conn/conn.ts')
    >('../../../lib/conn/conn.ts', {
      '../../../lib/wait/watch.ts': { ...watching, Watch: SecondFails },
    })
    t.throws(() => socketpair(), { message: 'no way to wait' })
    t.equal(watched, 2)
  },
)

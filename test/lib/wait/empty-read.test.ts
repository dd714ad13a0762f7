// The read into an empty buffer: what the event loop tells by it, and what
// becomes of those who wait if a Node does something else with such a buffer.

import { closeSync, fstatSync, openSync, writeSync } from 'node:fs'
import * as net from 'node:net'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import * as libc from '../../../lib/libc.ts'
import { receiveNow } from '../../../lib/message.ts'
import { pipe } from '../../../lib/socket/memory.ts'
import {
  closeFd,
  connectTo,
  newSocket,
  newSocketpair,
} from '../../../lib/socket/unix.ts'
import { EmptyRead, emptyReadOf } from '../../../lib/wait/empty-read.ts'
import { listenAt } from '../../../lib/wait/listen-at.ts'
import { leakFree, openFds } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { turns, until } from '../../support/waiting.ts'

/** An EmptyRead that counts, and what it must not report. */
function counting(t: Test, fd: number) {
  const seen = { calls: 0 }
  const read = new EmptyRead(
    fd,
    () => seen.calls++,
    (reason) => t.fail(reason.message),
  )
  return { read, seen }
}

leakFree(
  'it tells again and again, until pause(), and reads nothing',
  async (t) => {
    const [one, other] = newSocketpair()
    const { read, seen } = counting(t, one)
    await turns()
    t.equal(seen.calls, 0, 'nothing was sent')
    writeSync(other, 'still there')
    await until('three calls', () => seen.calls >= 3)
    read.pause()
    const { calls } = seen
    await turns()
    t.equal(seen.calls, calls, 'none while it pauses')
    read.resume()
    await until('more', () => seen.calls > calls)
    t.match(receiveNow(one, 100), { data: Buffer.from('still there') })
    read.close()
    read.close()
    t.throws(() => fstatSync(one), { code: 'EBADF' }, 'it owned its descriptor')
    closeSync(other)
  },
)

leakFree('it tells of the end of file', async (t) => {
  const [one, other] = newSocketpair()
  const { read, seen } = counting(t, one)
  closeSync(other)
  await until('the call', () => seen.calls > 0)
  t.match(receiveNow(one, 100), { data: Buffer.alloc(0) })
  read.close()
})

leakFree('it tells of a connection that waits', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const { fd } = await listenAt(path, 'stream')
  const { read, seen } = counting(t, fd)
  await turns()
  t.equal(seen.calls, 0)
  const client = newSocket()
  libc.check('connect', connectTo(client, path))
  await until('the call', () => seen.calls > 0)
  t.ok(seen.calls)
  read.close()
  closeSync(client)
})

leakFree('ref() and unref() are those of a handle', async (t) => {
  const [one, other] = newSocketpair()
  const held = (): number => process.getActiveResourcesInfo().length
  const before = held()
  const { read } = counting(t, one)
  t.equal(held(), before, 'without a reference at first')
  read.ref()
  t.equal(held(), before + 1)
  read.unref()
  t.equal(held(), before)
  read.close()
  closeSync(other)
})

leakFree('what is no socket and no pipe remains the caller’s', async (t) => {
  const fd = openSync('package.json', 'r')
  t.throws(() => counting(t, fd), { code: 'ERR_INVALID_FD_TYPE' })
  t.ok(fstatSync(fd).isFile())
  closeSync(fd)
})

leakFree('the writing end of a pipe has nothing to tell', async (t) => {
  const { read, write } = pipe()
  const { read: watch, seen } = counting(t, write)
  await turns()
  t.equal(seen.calls, 0)
  watch.close()
  closeSync(read)
})

leakFree('emptyReadOf() takes one descriptor, and no other', async (t) => {
  const [one, other] = newSocketpair()
  const open = openFds()
  let calls = 0
  const fail = (reason: Error): void => void t.fail(reason.message)
  const watch = emptyReadOf(one, () => calls++, fail)
  t.equal(openFds().length, open.length + 1)
  t.equal(fstatSync(watch.fd).ino, fstatSync(one).ino)
  await turns()
  t.equal(calls, 0, 'nothing was sent')
  writeSync(other, 'x')
  await until('the call', () => calls > 0)
  watch.close()
  t.strictSame(openFds(), open)
  for (const fd of [one, other]) closeSync(fd)
  t.throws(() => emptyReadOf(99_999, () => {}, fail), { code: 'EBADF' })
})

// From here on Node is one that does something else with an empty buffer.

/** Reports an error, or the end of file, as soon as it has begun to read. */
function otherSocket(got: 'EINVAL' | 'end of file'): typeof net.Socket {
  return class extends net.Socket {
    constructor(options?: net.SocketConstructorOpts) {
      super(options)
      setImmediate(() => {
        if (got === 'end of file') this.emit('end')
        else this.destroy(Object.assign(new Error(got), { code: got }))
      })
    }
  }
}

type Conn = typeof import('../../../lib/conn/conn.ts')
type Wait = typeof import('../../../lib/wait/watch.ts')
type Accept = typeof import('../../../lib/wait/accept.ts')

const ways = process.platform === 'linux' ? ['', 'sockets'] : ['sockets']

for (const way of ways) {
  for (const got of ['EINVAL', 'end of file'] as const) {
    const name = way === '' ? 'with epoll' : 'without epoll'

    /** A module for which `Socket` is another, and all that it imports. */
    const importOther = <T>(t: Test, file: string): Promise<T> => {
      const usual = process.env.FDPASS_WAIT
      process.env.FDPASS_WAIT = way
      t.teardown(() => {
        if (usual === undefined) delete process.env.FDPASS_WAIT
        else process.env.FDPASS_WAIT = usual
      })
      return t.mockImport<T>(`../../../lib/${file}`, {
        'node:net': { ...net, Socket: otherSocket(got) },
        // With node:ffi the list is watched in another way.
        '../../../lib/libc.ts': { ...libc, engineName: 'ffi-rs' },
      })
    }
    const expected = {
      message:
        `Expected ENOBUFS for a read into an empty buffer, got ${got}: Node ` +
        `${process.version} cannot wait for a socket without reading it`,
    }

    t.test(
      `${name}, ${got}: a connection says why it cannot wait`,
      async (t) => {
        const { socketpair } = await importOther<Conn>(t, 'conn/conn.ts')
        const [one, other] = socketpair()
        await other.sendmsg('before')
        t.match(await one.recvmsg(), { data: Buffer.from('before') })
        const waiting = [one.recvmsg(), one.recvmsg()]
        for (const call of waiting) await t.rejects(call, expected)
        await t.rejects(one.recvmsg(), expected, 'at once')
        await other.sendmsg('after')
        t.match(await one.recvmsg(), { data: Buffer.from('after') })
        one.close()
        other.close()
      },
    )

    t.test(`${name}, ${got}: waitReadable() says so`, async (t) => {
      const { waitReadable } = await importOther<Wait>(t, 'wait/watch.ts')
      const [one, other] = newSocketpair()
      // It may resolve in vain, but whoever tries again does not do so for ever.
      const tryAgain = async (): Promise<void> => {
        for (let wait = 0; wait < 10; wait++) await waitReadable(one)
      }
      await t.rejects(tryAgain(), expected)
      closeSync(one)
      closeSync(other)
    })

    t.test(`${name}, ${got}: an Acceptor says so`, async (t) => {
      const { Acceptor } = await importOther<Accept>(t, 'wait/accept.ts')
      const path = join(temporaryFolder(t), 's')
      const { fd } = await listenAt(path, 'stream')
      const acceptor = new Acceptor(fd)
      const waiting = [acceptor.next(), acceptor.next()]
      for (const call of waiting) await t.rejects(call, expected)
      await t.rejects(acceptor.next(), expected)
      const client = newSocket()
      libc.check('connect', connectTo(client, path))
      const accepted = await acceptor.next()
      t.type(accepted, 'number', 'what need not wait is served')
      closeFd(accepted ?? -1)
      closeFd(client)
      acceptor.close()
    })
  }
}

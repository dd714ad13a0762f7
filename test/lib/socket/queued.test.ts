// Connections that are closed while messages with descriptors are queued.

import { closeSync, openSync } from 'node:fs'
import type { Test } from 'tap'

import { socketpair, UnixConn } from '../../../lib/index.ts'
import { host } from '../../../lib/layouts.ts'
import * as libc from '../../../lib/libc.ts'
import { disarmQueued } from '../../../lib/socket/queued.ts'
import { duplicate, newSocketpair } from '../../../lib/socket/unix.ts'
import { leakFree, lingering, readToEnd } from '../../support.ts'

type Queued = typeof import('../../../lib/socket/queued.ts')
type Receiving = typeof import('../../../lib/conn/receiver.ts')
type Connecting = typeof import('../../../lib/conn/conn.ts')

const files = {
  queued: '../../../lib/socket/queued.ts',
  options: '../../../lib/socket/options.ts',
  receiver: '../../../lib/conn/receiver.ts',
  conn: '../../../lib/conn/conn.ts',
  layouts: '../../../lib/layouts.ts',
  libc: '../../../lib/libc.ts',
}

const skip = process.platform === 'linux' ? false : 'SO_PEEK_OFF is missing'

// int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
const pointers = ['int', 'int', 'int', 'pointer', 'pointer'] as const
const getsockopt = libc.declare('getsockopt', 'int', pointers)

function peekOffset(fd: number): number {
  const { SOL_SOCKET, SO_PEEK_OFF } = host.constants
  const value = libc.allocate(4)
  const length = libc.allocate(4)
  length.bytes.writeUInt32LE(4)
  const { address } = value
  getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, address, length.address)
  return value.bytes.readInt32LE()
}

// Each close(2) that waited for SO_LINGER would take an hour.
leakFree(
  'close() does not wait for SO_LINGER of sockets that are queued',
  async (t) => {
    const [a, b] = socketpair()
    await a.sendmsg('x'.repeat(100_000))
    const peers: number[] = []
    for (const text of ['one', 'behind it', 'another']) {
      const { fd, peer } = lingering()
      const file = openSync('/dev/null', 'r')
      await a.sendFds(text, [file, fd])
      await a.sendmsg('and bytes alone')
      for (const sent of [file, fd]) closeSync(sent)
      peers.push(peer)
    }
    b.close()
    for (const peer of peers) await readToEnd(peer)
    await t.rejects(a.recvmsg(), { code: 'ECONNRESET' }, 'as without a look')
    t.equal(await a.recvmsg(), null)
    a.close()
  },
  skip,
)

leakFree(
  'who else has the connection receives all that is queued',
  async (t) => {
    const [a, b] = socketpair()
    for (const text of ['one', 'two', 'three']) await a.sendFds(text, [0])
    const other = UnixConn.fromFd(duplicate(b.fd))
    b.close()
    if (!skip) t.equal(peekOffset(other.fd), -1)
    for (const text of ['one', 'two', 'three']) {
      const message = await other.recvFds()
      t.match(message, { data: Buffer.from(text), fds: { length: 1 } })
      for (const fd of message?.fds ?? []) closeSync(fd)
    }
    for (const conn of [a, other]) conn.close()
  },
)

/** disarmQueued() with the names of the calls that it makes. */
async function counted(t: Test, abi = host) {
  const calls: string[] = []
  const declare = (...signature: Parameters<typeof libc.declare>) => {
    const call: (...values: never[]) => number = libc.declare(...signature)
    return (...values: never[]): number => {
      calls.push(signature[0])
      return call(...values)
    }
  }
  const mocks = { [files.libc]: { ...libc, declare } }
  const options = await t.mockImport(files.options, mocks)
  const queued = await t.mockImport<Queued>(files.queued, {
    ...mocks,
    [files.options]: options,
    [files.layouts]: { host: abi },
  })
  return { calls, disarmQueued: queued.disarmQueued }
}

leakFree(
  'where nothing is queued, one call is made',
  async (t) => {
    const [one, other] = newSocketpair()
    const { calls, disarmQueued } = await counted(t)
    disarmQueued(one)
    t.strictSame(calls, ['recvmsg'])
    closeSync(other)
    disarmQueued(one)
    t.strictSame(calls, ['recvmsg', 'recvmsg'], 'at the end of file too')
    closeSync(one)
  },
  skip,
)

leakFree('without SO_PEEK_OFF no call is made', async (t) => {
  const [one, other] = newSocketpair()
  const constants = { ...host.constants, SO_PEEK_OFF: 0 }
  const { calls, disarmQueued } = await counted(t, { ...host, constants })
  disarmQueued(one)
  t.strictSame(calls, [])
  for (const fd of [one, other]) closeSync(fd)
})

leakFree('close() after the end of file does not look', async (t) => {
  const looks: number[] = []
  const receiving = await t.mockImport<Receiving>(files.receiver, {
    [files.queued]: {
      disarmQueued: (fd: number) => {
        looks.push(fd)
        disarmQueued(fd)
      },
    },
  })
  const connecting = await t.mockImport<Connecting>(files.conn, {
    [files.receiver]: receiving,
  })
  const [a, b] = connecting.socketpair()
  const { fd } = a
  a.close()
  t.strictSame(looks, [fd])
  t.equal(await b.recvmsg(), null)
  b.close()
  t.strictSame(looks, [fd], 'nothing can be queued')
})

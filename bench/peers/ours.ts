// This library, through its public interface. The command line, the rows and
// what is counted: see plain.c.

import { writeSync } from 'node:fs'

import { connect, FdStream, listen, UnixConn } from '../../lib/index.ts'
import {
  BLOCK,
  BYTE,
  closeKept,
  FULL,
  held,
  keep,
  LARGE,
  NULL,
  path,
  question,
  role,
  row,
  serveTimer,
} from './timer.ts'

/** Most messages that a sender hands over before it waits. */
const WINDOW = 256

const timers: Record<string, () => Promise<void>> = {
  'one-at-a-time': () => takeOneAtATime([NULL]),
  full: () => takeOneAtATime(Array<number>(FULL).fill(NULL)),
  'in-flight': () => takeMessages(BYTE.length),
  stream: () => takeMessages(LARGE),

  'ping-pong': async () => {
    const conn = UnixConn.fromFd(3)
    await serveTimer(async (count) => {
      let units = 0
      for (let i = 0; i < count; i++) {
        await conn.sendFds(BYTE, [NULL])
        units += 1 + keep((await receive(conn)).fds)
      }
      return units
    })
  },

  // No descriptors: FdStream in place of net.Socket.
  bytes: async () => {
    const stream = new FdStream(UnixConn.fromFd(3))
    await serveTimer(async (count) => {
      stream.write(question(count))
      let units = 0
      while (units < count * LARGE) {
        const chunk: Buffer | null = stream.read()
        if (chunk) units += chunk.length
        else await new Promise((resolve) => stream.once('readable', resolve))
      }
      return units
    })
  },

  'wake-up': async () => {
    const [near, far] = bothEnds()
    await serveTimer(async (count) => {
      let units = 0
      for (let i = 0; i < count; i++) {
        const news = receive(near)
        writeSync(far.fd, BYTE)
        units += (await news).data.length
      }
      return units
    })
  },

  connect: () =>
    serveTimer(async (count) => {
      let units = 0
      for (let i = 0; i < count; i++) {
        const conn = await connect(path)
        await conn.sendFds(BYTE, [NULL])
        units += (await receive(conn)).data.length
        conn.close()
      }
      return units
    }),
}

const others: Record<string, () => Promise<void>> = {
  'in-flight': () => giveMessages(BYTE),
  stream: () => giveMessages(BLOCK),

  'ping-pong': async () => {
    const conn = UnixConn.fromFd(3)
    for (;;) {
      const message = await conn.recvFds({ maxFds: 1 })
      if (message === null) return conn.close()
      await conn.sendFds(BYTE, [NULL])
      keep(message.fds)
      closeKept()
    }
  },

  bytes: async () => {
    const stream = new FdStream(UnixConn.fromFd(3))
    for await (const asked of stream) {
      for (let left = asked.readUInt32LE(); left > 0; left--) {
        if (stream.write(BLOCK)) continue
        await new Promise((resolve) => stream.once('drain', resolve))
      }
    }
  },

  connect: async () => {
    const listener = await listen(path)
    console.log('ready')
    for await (const conn of listener) {
      keep((await receive(conn)).fds)
      await conn.sendmsg(BYTE)
      closeKept()
      conn.close()
    }
  },

  idle: async () => {
    const listener = await listen(path)
    console.log('ready')
    const waiting = []
    for await (const conn of listener) {
      waiting.push(conn.recvFds())
      if (waiting.length === Number(held)) console.log('held')
    }
  },
}

await (role === 'timer' ? timers : others)[row]?.()

async function takeOneAtATime(fds: readonly number[]): Promise<void> {
  const [near, far] = bothEnds()
  await serveTimer(async (count) => {
    let units = 0
    for (let i = 0; i < count; i++) {
      await near.sendFds(BYTE, fds)
      units += keep((await receive(far)).fds)
    }
    return units
  })
}

async function takeMessages(size: number): Promise<void> {
  const conn = UnixConn.fromFd(3)
  await serveTimer(async (count) => {
    let bytes = 0
    let descriptors = 0
    await conn.sendmsg(question(count))
    for await (const { data, fds } of conn.messages({ maxFds: 1 })) {
      bytes += data.length
      descriptors += keep(fds)
      if (bytes === count * size) break
    }
    if (descriptors !== count) {
      throw new Error(`Expected ${count} descriptors, got ${descriptors}`)
    }
    return size === 1 ? descriptors : bytes
  })
}

async function giveMessages(data: Buffer): Promise<void> {
  const conn = UnixConn.fromFd(3)
  for (;;) {
    const asked = await conn.recvFds()
    if (asked === null) return conn.close()
    let sending = []
    for (let left = asked.data.readUInt32LE(); left > 0; left--) {
      sending.push(conn.sendFds(data, [NULL]))
      if (sending.length < WINDOW) continue
      await Promise.all(sending)
      sending = []
    }
    await Promise.all(sending)
  }
}

function bothEnds(): [UnixConn, UnixConn] {
  return [UnixConn.fromFd(3), UnixConn.fromFd(4)]
}

async function receive(
  conn: UnixConn,
): Promise<{ data: Buffer; fds: number[] }> {
  const message = await conn.recvFds({ maxFds: FULL })
  if (message === null) throw new Error('Expected a message, got end of file')
  return message
}

// The native addon usocket. The command line, the rows and what is counted:
// see plain.c. Two of its habits shape this file: it has room for 64
// descriptors of a message and lets the kernel drop the rest; and a message
// that meets a full socket goes later, without its descriptors. So a window
// keeps the socket from filling up: the receiver confirms what it got.

import { once } from 'node:events'
import { writeSync } from 'node:fs'
import { UServer, USocket } from 'usocket'

import {
  BLOCK,
  BYTE,
  closeKept,
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

/** Descriptors in a message. */
const MOST = 64

/**
 * Messages that one confirmation stands for. Two such lots are on their way:
 * Linux has room for 278 messages of a byte, and for three of 64 KiB.
 */
const lotOf = (size: number) => (size === 1 ? 128 : 1)

const timers: Record<string, () => Promise<void>> = {
  'one-at-a-time': () => takeOneAtATime([NULL]),
  full: () => takeOneAtATime(Array<number>(MOST).fill(NULL)),
  'in-flight': () => takeMessages(BYTE.length),
  stream: () => takeMessages(LARGE),

  'ping-pong': () => {
    const socket = socketOf(3)
    return serveTimer(async (count) => {
      let units = 0
      for (let i = 0; i < count; i++) {
        socket.write({ data: BYTE, fds: [NULL] })
        units += 1 + keep((await receive(socket)).fds)
      }
      return units
    })
  },

  'wake-up': () => {
    const socket = socketOf(3)
    return serveTimer(async (count) => {
      let units = 0
      for (let i = 0; i < count; i++) {
        const news = receive(socket)
        writeSync(4, BYTE)
        units += (await news).data.length
      }
      return units
    })
  },

  connect: () =>
    serveTimer(async (count) => {
      let units = 0
      for (let i = 0; i < count; i++) {
        const socket = new USocket({ path })
        await once(socket, 'connected')
        socket.write({ data: BYTE, fds: [NULL] })
        units += (await receive(socket)).data.length
        socket.destroy()
      }
      return units
    }),
}

const others: Record<string, () => Promise<void>> = {
  'in-flight': () => giveMessages(BYTE),
  stream: () => giveMessages(BLOCK),

  'ping-pong': async () => {
    const socket = socketOf(3)
    for (;;) {
      const { fds } = await receive(socket)
      socket.write({ data: BYTE, fds: [NULL] })
      keep(fds)
      closeKept()
    }
  },

  connect: () =>
    serve(async (socket) => {
      keep((await receive(socket)).fds)
      socket.write(BYTE, () => socket.destroy())
      closeKept()
    }),

  idle: () => {
    const waiting: Promise<unknown>[] = []
    return serve((socket) => {
      waiting.push(receive(socket))
      if (waiting.length === Number(held)) console.log('held')
    })
  },
}

await (role === 'timer' ? timers : others)[row]?.()

async function takeOneAtATime(fds: readonly number[]): Promise<void> {
  const [near, far] = [socketOf(3), socketOf(4)]
  await serveTimer(async (count) => {
    let units = 0
    for (let i = 0; i < count; i++) {
      near.write({ data: BYTE, fds })
      units += keep((await receive(far)).fds)
    }
    return units
  })
}

async function takeMessages(size: number): Promise<void> {
  const socket = socketOf(3)
  await serveTimer(async (count) => {
    let bytes = 0
    let descriptors = 0
    const lot = lotOf(size)
    // Those that the sender waits for, lest one be taken for a question.
    const confirmations = Math.ceil(count / lot) - 2
    let confirmed = 0
    socket.write(question(count))
    while (bytes < count * size) {
      const { data, fds } = await receive(socket)
      bytes += data.length
      descriptors += keep(fds)
      const lots = Math.min(Math.floor(bytes / size / lot), confirmations)
      if (lots <= confirmed) continue
      socket.write(Buffer.alloc(lots - confirmed, BYTE))
      confirmed = lots
    }
    if (descriptors !== count) {
      throw new Error(`Expected ${count} descriptors, got ${descriptors}`)
    }
    return size === 1 ? descriptors : bytes
  })
}

async function giveMessages(data: Buffer): Promise<void> {
  const socket = socketOf(3)
  const lot = lotOf(data.length)
  for (;;) {
    const asked = (await receive(socket)).data.readUInt32LE()
    let confirmed = 0
    for (let sent = 0; sent < asked; sent++) {
      while (sent >= (confirmed + 2) * lot) {
        confirmed += (await receive(socket)).data.length
      }
      socket.write({ data, fds: [NULL] })
    }
  }
}

function serve(onConnection: (socket: USocket) => void): Promise<void> {
  const server = new UServer().on('connection', onConnection)
  server.listen(path, 511, () => console.log('ready'))
  return new Promise(() => {})
}

function socketOf(fd: number): USocket {
  return new USocket({ fd }).once('end', () => process.exit())
}

// All that has arrived; waits for something. It may be several messages.
async function receive(
  socket: USocket,
): Promise<{ data: Buffer; fds: readonly number[] }> {
  for (;;) {
    const message = socket.read(null, null)
    if (message?.data) return { data: message.data, fds: message.fds }
    await new Promise<void>((resolve) => socket.once('readable', resolve))
  }
}

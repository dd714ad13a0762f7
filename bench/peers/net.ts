// A plain net.Socket with the same bytes and no descriptors: the floor for
// anything in Node. The command line, the rows and what is counted: see
// plain.c; each byte, or each 64 KiB, stands for a descriptor here.

import { once } from 'node:events'
import { writeSync } from 'node:fs'
import { connect, createServer, Socket } from 'node:net'

import {
  BLOCK,
  BYTE,
  held,
  LARGE,
  path,
  question,
  role,
  row,
  serveTimer,
} from './timer.ts'

const timers: Record<string, () => Promise<void>> = {
  'one-at-a-time': () => {
    const [near, far] = [socketOf(3), socketOf(4)]
    return serveTimer(async (count) => {
      let units = 0
      for (let i = 0; i < count; i++) {
        near.write(BYTE)
        units += await arrived(far)
      }
      return units
    })
  },

  'in-flight': () => takeBytes(BYTE.length),
  stream: () => takeBytes(LARGE),
  bytes: () => takeBytes(LARGE),

  'ping-pong': () => {
    const socket = socketOf(3)
    return serveTimer(async (count) => {
      let units = 0
      for (let i = 0; i < count; i++) {
        socket.write(BYTE)
        units += 1 + (await arrived(socket))
      }
      return units
    })
  },

  'wake-up': () => {
    const socket = socketOf(3)
    return serveTimer(async (count) => {
      let units = 0
      for (let i = 0; i < count; i++) {
        const news = arrived(socket)
        writeSync(4, BYTE)
        units += await news
      }
      return units
    })
  },

  connect: () =>
    serveTimer(async (count) => {
      let units = 0
      for (let i = 0; i < count; i++) {
        const socket = connect(path)
        socket.write(BYTE)
        units += await arrived(socket)
        socket.destroy()
      }
      return units
    }),
}

const others: Record<string, () => unknown> = {
  'in-flight': () => giveBytes(BYTE),
  stream: () => giveBytes(BLOCK),
  bytes: () => giveBytes(BLOCK),

  'ping-pong': () => {
    const socket = socketOf(3)
    socket.on('data', () => socket.write(BYTE))
  },

  connect: () => serve((socket) => socket.once('data', () => socket.end(BYTE))),

  idle: () => {
    let count = 0
    serve((socket) => {
      socket.on('data', () => {})
      if (++count === Number(held)) console.log('held')
    })
  },
}

await (role === 'timer' ? timers : others)[row]?.()

async function takeBytes(size: number): Promise<void> {
  const socket = socketOf(3)
  await serveTimer(async (count) => {
    socket.write(question(count))
    let units = 0
    while (units < count * size) units += await arrived(socket)
    return units
  })
}

async function giveBytes(data: Buffer): Promise<void> {
  const socket = socketOf(3)
  for await (const asked of socket) {
    for (let left = asked.readUInt32LE(); left > 0; left--) {
      if (!socket.write(data)) await once(socket, 'drain')
    }
  }
}

function serve(onConnection: (socket: Socket) => void): void {
  const server = createServer(onConnection)
  server.listen(path, () => console.log('ready'))
}

function socketOf(fd: number): Socket {
  return new Socket({ fd, readable: true, writable: true })
}

// The number of bytes that come next.
function arrived(socket: Socket): Promise<number> {
  return new Promise((resolve) => {
    socket.once('data', (chunk) => resolve(chunk.length))
  })
}

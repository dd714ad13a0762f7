// subprocess.send(message, handle), which Node has for a parent and its own
// children. It passes Node's objects, not descriptors, so /dev/null cannot go:
// a listening net.Server does, the cheapest of the kinds that it takes. The
// command line, the rows and what is counted: see plain.c. The second process
// is a child of the timer's, as it has to be; the one that the run starts has
// nothing to do.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type Server } from 'node:net'

import { BLOCK, LARGE, role, row, serveTimer } from './timer.ts'

/** Most messages that a sender hands over before it waits. */
const WINDOW = 256

if (role === 'other' && !process.connected) process.exit()

// The server would keep the child alive.
process.once('disconnect', () => process.exit())

const handle = createServer().listen(0, '127.0.0.1')
await once(handle, 'listening')

if (role === 'timer') await serveTimer(timer())
else if (row === 'ping-pong') pong()
else giveMessages(row === 'stream' ? BLOCK : 'x')

function timer(): (count: number) => Promise<number> {
  const child = fork(import.meta.filename, [row, 'other'], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    serialization: 'advanced', // for the Buffers of `stream`
  })
  if (row === 'ping-pong') {
    return async (count) => {
      let units = 0
      for (let i = 0; i < count; i++) {
        const answer = once(child, 'message')
        child.send('x', handle, { keepOpen: true })
        units += 1 + closed((await answer)[1])
      }
      return units
    }
  }
  return (count) => {
    let received = 0
    return new Promise((resolve) => {
      const take = (_: unknown, theirs: unknown): void => {
        received += closed(theirs)
        if (received < count) return
        child.off('message', take)
        resolve(row === 'stream' ? count * LARGE : received)
      }
      child.on('message', take)
      child.send(count)
    })
  }
}

function pong(): void {
  process.on('message', (_, theirs) => {
    closed(theirs)
    process.send?.('x', handle, { keepOpen: true })
  })
}

function giveMessages(data: string | Buffer): void {
  process.on('message', async (asked) => {
    for (let left = Number(asked); left > 0; left -= WINDOW) {
      const sends = Array.from({ length: Math.min(left, WINDOW) }, () => {
        return new Promise((resolve) => {
          process.send?.(data, handle, { keepOpen: true }, resolve)
        })
      })
      await Promise.all(sends)
    }
  })
}

function closed(theirs: unknown): number {
  if (!theirs) throw new Error('Expected a handle, got none')
  const server = theirs as Server
  server.close()
  return 1
}

// subprocess.send(message, handle), which Node has for a parent and its own
// children. It passes Node's objects, not descriptors, so /dev/null cannot go.
// What can go is made by the program that runs this: subprocess-server.ts, the
// cheapest of the kinds, or subprocess-socket.ts, what programs mostly pass.
//
// The command line, the rows and what is counted: see plain.c. The second
// process is a child of the timer's, as it has to be; the one that the run
// starts has nothing to do.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import type { Server, Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'

import { BLOCK, LARGE, role, row, serveTimer } from './timer.ts'

/** Most messages that a sender hands over before it waits. */
const WINDOW = 256

type Handle = Server | Socket

const kept: Handle[] = []

/** @param program the file that this runs in, for the second process */
export async function passHandles(
  program: string,
  handle: Handle,
): Promise<void> {
  // What is passed would keep the child alive.
  process.once('disconnect', () => process.exit())
  if (role === 'timer') await serveTimer(timer(program, handle), closeKept)
  else if (!process.connected) process.exit()
  else if (row === 'ping-pong') pong(handle)
  else giveMessages(handle, row === 'stream' ? BLOCK : 'x')
}

function timer(
  program: string,
  handle: Handle,
): (count: number) => Promise<number> {
  const child = fork(program, [row, 'other'], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    serialization: 'advanced', // for the Buffers of `stream`
  })
  if (row === 'ping-pong') {
    return async (count) => {
      let units = 0
      for (let i = 0; i < count; i++) {
        const answer = once(child, 'message')
        child.send('x', handle, { keepOpen: true })
        units += 1 + keep((await answer)[1])
      }
      return units
    }
  }
  return (count) => {
    let received = 0
    return new Promise((resolve) => {
      const take = (_: unknown, theirs: unknown): void => {
        received += keep(theirs)
        if (received < count) return
        child.off('message', take)
        resolve(row === 'stream' ? count * LARGE : received)
      }
      child.on('message', take)
      child.send(count)
    })
  }
}

function pong(handle: Handle): void {
  process.on('message', (_, theirs) => {
    process.send?.('x', handle, { keepOpen: true })
    keep(theirs)
    void closeKept()
  })
}

function giveMessages(handle: Handle, data: string | Buffer): void {
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

function keep(theirs: unknown): number {
  if (!theirs) throw new Error('Expected a handle, got none')
  kept.push(theirs as Handle)
  return 1
}

async function closeKept(): Promise<void> {
  for (const handle of kept.splice(0)) {
    if ('destroy' in handle) handle.destroy()
    else handle.close()
  }
  await setImmediate() // they are closed as the event loop goes round
}

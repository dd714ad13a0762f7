// Waiting for room: told by the kernel, and by the clock.

import { closeSync, writeSync } from 'node:fs'

import { receiveNow, sendNow } from '../../../lib/message.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { whenRoom } from '../../../lib/wait/room.ts'
import { leakFree, until } from '../../support.ts'

const epoll = process.platform === 'linux'

/** A pair whose first end can send no more. */
function fullPair(): [number, number] {
  const [one, other] = newSocketpair()
  const message = { data: Buffer.alloc(60_000), control: Buffer.alloc(0) }
  while (Array.isArray(sendNow(one, [message])));
  return [one, other]
}

function drain(fd: number): void {
  while (Array.isArray(receiveNow(fd, 2 ** 20, 1)));
}

for (const canTell of epoll ? [true, false] : [false]) {
  const how = canTell ? 'with epoll' : 'with a timer'

  leakFree(`${how}: calls back once there is room`, async (t) => {
    const [one, other] = fullPair()
    let calls = 0
    whenRoom(one, 0, () => calls++, canTell)
    if (canTell) {
      await new Promise((resolve) => setTimeout(resolve, 10))
      t.equal(calls, 0, 'not while it is full')
    }
    drain(other)
    await until('room', () => calls > 0)
    writeSync(one, 'x')
    await new Promise((resolve) => setTimeout(resolve, 10))
    t.equal(calls, 1)
    for (const fd of [one, other]) closeSync(fd)
  })

  leakFree(`${how}: stops when told`, async (t) => {
    const [one, other] = fullPair()
    const stop = whenRoom(one, 0, () => t.fail('called'), canTell)
    stop()
    drain(other)
    await new Promise((resolve) => setTimeout(resolve, 10))
    for (const fd of [one, other]) closeSync(fd)
    t.pass('nothing was heard')
  })
}

leakFree('a peer that goes away ends the wait', async (t) => {
  const [one, other] = fullPair()
  let calls = 0
  whenRoom(one, 0, () => calls++)
  closeSync(other)
  await until('the news', () => calls === 1)
  t.equal(calls, 1)
  closeSync(one)
})

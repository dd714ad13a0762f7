// Memory in which messages arrive: nothing that somebody keeps is ever written
// over, and what is small does not hold what is large.

import { closeSync } from 'node:fs'
import { MessageChannel } from 'node:worker_threads'
import { t } from 'tap'

import { copyOf, LARGE, roomFor, takeArrived } from '../../lib/arrivals.ts'
import { systemError } from '../../lib/libc.ts'
import { receiveNow, sendNow } from '../../lib/message.ts'
import { newSocketpair } from '../../lib/socket/unix.ts'
import { leakFree } from '../support/descriptors.ts'

const [one, other] = newSocketpair()
t.teardown(() => {
  for (const fd of [one, other]) closeSync(fd)
})

/** What recvmsg(2) makes of `length` bytes, in a room of `maxBytes`. */
function arrived(length: number, maxBytes: number): Buffer {
  const data = Buffer.alloc(length, length % 251)
  sendNow(one, { data, control: Buffer.alloc(0) })
  const received = receiveNow(other, maxBytes)
  if (typeof received === 'number') throw systemError('recvmsg', received)
  return received.data
}

function isRight(data: Buffer, length: number): boolean {
  return data.equals(Buffer.alloc(length, length % 251))
}

leakFree('large data stays where it was received', async (t) => {
  let last = arrived(LARGE, 65536)
  let stayed = 0
  for (let i = 0; i < 10; i++) {
    const next = arrived(LARGE, 65536)
    const isBehind = next.byteOffset === last.byteOffset + LARGE
    if (next.buffer === last.buffer && isBehind) stayed++
    last = next
  }
  t.ok(stayed >= 8, 'one behind the other, but where new memory begins')
})

leakFree('small data holds no large memory', async (t) => {
  const large = arrived(LARGE, 65536)
  const small = arrived(LARGE - 1, 65536)
  t.ok(isRight(small, LARGE - 1))
  t.not(small.buffer, large.buffer)
  // Node puts what is smaller into memory that it calls a pool.
  const most = Math.max(LARGE, Buffer.poolSize + 4096)
  for (const length of [1, 100, LARGE - 1]) {
    for (const room of [length, 65536]) {
      const { buffer } = arrived(length, room)
      t.not(buffer, large.buffer)
      t.ok(buffer.byteLength <= most, `${length} of ${buffer.byteLength}`)
    }
  }
  const rare = arrived(LARGE, 1024 * 1024)
  t.ok(isRight(rare, LARGE))
  t.ok(rare.buffer.byteLength < 1024 * 1024, 'a small part of its room')
})

leakFree('what is kept is not written over', async (t) => {
  const sizes: [number, number][] = []
  for (let i = 0; i < 200; i++) {
    const length = [1, LARGE - 1, LARGE, 60_000 + i, 150_000][i % 5] ?? 1
    const room = [length, length + 1, 4 * length, 4 * length + 1][i % 4] ?? 1
    sizes.push([length, room])
  }
  const kept = sizes.map(([length, room]) => arrived(length, room))
  for (const [i, data] of kept.entries()) {
    const [length = 0, room] = sizes[i] ?? []
    if (!isRight(data, length))
      t.fail(`${length} of ${room} bytes, number ${i}`)
  }
  t.equal(kept.length, 200)
})

leakFree('what is changed by its owner stays its own', async (t) => {
  const first = arrived(LARGE, 65536)
  const second = arrived(LARGE + 1, 65536)
  first.fill(255)
  t.ok(isRight(second, LARGE + 1))
  second.fill(255)
  t.ok(isRight(arrived(LARGE + 2, 65536), LARGE + 2))
  t.ok(first.equals(Buffer.alloc(LARGE, 255)))
})

leakFree('one that is transferred takes no others away', async (t) => {
  const first = arrived(LARGE, 65536)
  const second = arrived(LARGE + 1, 65536)
  const { port1, port2 } = new MessageChannel()
  try {
    port1.postMessage(first, [first.buffer as ArrayBuffer])
  } catch (error) {
    t.match(error, { name: 'DataCloneError' }, 'Node 22 and later')
  }
  t.ok(isRight(second, LARGE + 1))
  t.ok(isRight(arrived(LARGE + 2, 65536), LARGE + 2), 'nor what comes later')
  port1.postMessage(second)
  for (const port of [port1, port2]) port.close()
  t.ok(isRight(second, LARGE + 1), 'sent without a transfer it is copied')
})

leakFree('a failed call leaves no gap and takes nothing', async (t) => {
  const first = arrived(LARGE, 65536)
  t.ok(Number(receiveNow(other, 65536)) < 0)
  const second = arrived(LARGE, 65536)
  t.ok(isRight(first, LARGE) && isRight(second, LARGE))
})

t.test('roomFor() has room for what a block cannot hold', async (t) => {
  const size = 4 * 1024 * 1024
  const large = roomFor(size)
  const data = takeArrived(size, size)
  t.equal(data.length, size)
  t.ok(data.buffer.byteLength >= size)
  const next = roomFor(size)
  t.ok(next >= large + size || next + size <= large, 'memory of its own')
  t.equal(takeArrived(0, size).length, 0)
})

t.test('copyOf() shares nothing with what it copies', async (t) => {
  const bytes = Buffer.from('0123456789')
  const copy = copyOf(bytes, 2, 5)
  bytes.fill('x')
  t.equal(`${copy}`, '23456')
})

// Waiting without reading, in each way that this Node has.

import { closeSync, openSync, writeSync } from 'node:fs'
import { t } from 'tap'

import { Receiver } from '../../../lib/conn/receiver.ts'
import { engineName } from '../../../lib/libc.ts'
import { receiveNow, sendNow } from '../../../lib/message.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { UvPoll } from '../../../lib/wait/uv-poll.ts'
import {
  chooseWatcher,
  SocketWatcher,
  Watcher,
} from '../../../lib/wait/watcher.ts'
import { leakFree, turns, until } from '../../support.ts'

const ways = {
  'an empty read': SocketWatcher,
  ...(engineName === 'node:ffi' ? { uv_poll: UvPoll } : {}),
}

t.test('chooseWatcher() takes uv_poll in the main thread alone', async (t) => {
  t.equal(chooseWatcher('node:ffi', true), UvPoll)
  t.equal(chooseWatcher('node:ffi', false), SocketWatcher)
  t.equal(chooseWatcher('ffi-rs', true), SocketWatcher)
  t.equal(Watcher, engineName === 'node:ffi' ? UvPoll : SocketWatcher)
})

/** A pair whose first end can send no more. */
function fullPair(): [number, number] {
  const [one, other] = newSocketpair()
  const message = { data: Buffer.alloc(60_000), control: Buffer.alloc(0) }
  while (sendNow(one, message) > 0);
  return [one, other]
}

/** Reads until there is nothing left; the bytes that there were. */
function drain(fd: number): number {
  let bytes = 0
  for (;;) {
    const received = receiveNow(fd, 2 ** 20)
    if (typeof received === 'number') return bytes
    bytes += received.data.length
  }
}

for (const [name, Way] of Object.entries(ways)) {
  leakFree(`${name}: tells while watched, and reads nothing`, async (t) => {
    const [one, other] = newSocketpair()
    let calls = 0
    const watcher = new Way(one, () => {
      if (++calls === 3) watcher.rest()
    })
    watcher.watch()
    watcher.watch()
    writeSync(other, 'still there')
    await until('three calls', () => calls === 3)
    await turns()
    t.equal(calls, 3, 'none after rest()')
    const received = receiveNow(one, 100)
    t.match(received, { data: Buffer.from('still there') })
    watcher.watch()
    closeSync(other)
    await until('end of file is told too', () => calls > 3)
    watcher.close()
    watcher.close()
    watcher.watch()
    watcher.rest()
    watcher.keepAlive(true)
  })

  leakFree(`${name}: keepAlive() takes effect while watched`, async (t) => {
    const [one, other] = newSocketpair()
    let calls = 0
    const watcher = new Way(one, () => calls++)
    watcher.keepAlive(false)
    watcher.watch()
    watcher.keepAlive(true)
    watcher.keepAlive(false)
    writeSync(other, 'x')
    await until('a call', () => calls > 0)
    t.ok(calls)
    watcher.close()
    closeSync(other)
  })

  leakFree(`${name}: write() waits for room, and for more room`, async (t) => {
    const [one, other] = newSocketpair()
    const watcher = new Way(one, () => {})
    const data = Buffer.alloc(3_000_000, 'abc')
    let written = false
    watcher.write(data, (error) => {
      t.notOk(error)
      written = true
    })
    let bytes = 0
    await until('all bytes', () => {
      bytes += drain(other)
      return bytes === data.length
    })
    await until('the callback', () => written)
    watcher.close()
    closeSync(other)
  })

  leakFree(`${name}: write() tells why it failed`, async (t) => {
    const [one, other] = fullPair()
    const watcher = new Way(one, () => {})
    const failed = new Promise((resolve) => {
      watcher.write(Buffer.from('x'), resolve)
    })
    closeSync(other)
    t.match(await failed, { code: 'EPIPE' })
    watcher.close()
  })

  leakFree(`${name}: whenWritable() calls once there is room`, async (t) => {
    const [one, other] = fullPair()
    const watcher = new Way(one, () => t.fail('there is nothing to read'))
    const calls: string[] = []
    const stop = watcher.whenWritable(0, () => calls.push('stopped'))
    stop()
    stop()
    watcher.whenWritable(0, () => calls.push('first'))
    await turns()
    t.strictSame(calls, [], 'not while it is full')
    drain(other)
    await until('room', () => calls.length > 0)
    await turns()
    t.strictSame(calls, ['first'], 'once')
    watcher.close()
    closeSync(other)
  })

  leakFree(`${name}: a file is refused, and stays the caller’s`, async (t) => {
    const fd = openSync('package.json', 'r')
    t.throws(() => new Way(fd, () => {}), { code: /EPERM|ERR_INVALID_FD_TYPE/ })
    closeSync(fd)
  })
}

leakFree('an empty read that ends is reported as a failure', async (t) => {
  const [one, other] = newSocketpair()
  const failures: (Error | undefined)[] = []
  const watcher = new SocketWatcher(one, (failure) => failures.push(failure))
  watcher.watch()
  watcher.emit('end')
  t.match(failures, [
    { message: /Expected ENOBUFS .* Node v\S+ cannot wait for a socket/ },
  ])
  watcher.close()
  closeSync(other)
})
leakFree('a receiver that waits is told of the failure', async (t) => {
  const [one, other] = newSocketpair()
  const watcher = new Watcher(one, () => {})
  const receiver = new Receiver(one, watcher)
  const limits = { maxBytes: 9, maxFds: 9 }
  const receive = () => receiver.receive(limits, (message) => message)
  const [first, second] = [receive(), receive()]
  receiver.readable(new Error('no way to wait'))
  await t.rejects(first, { message: 'no way to wait' })
  receiver.close()
  t.equal(await second, null)
  watcher.close()
  closeSync(other)
})

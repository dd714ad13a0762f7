// The trick: waiting without reading.

import { closeSync, writeSync } from 'node:fs'
import { Receiver } from '../../../lib/conn/receiver.ts'
import { receiveNow } from '../../../lib/message.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { Watcher } from '../../../lib/wait/watcher.ts'
import { leakFree, until } from '../../support.ts'

leakFree('onReadable comes while watched, and nothing is read', async (t) => {
  const [one, other] = newSocketpair()
  let news = 0
  const watcher = new Watcher(one, () => {
    if (++news === 3) watcher.rest()
  })
  watcher.watch()
  watcher.watch()
  writeSync(other, 'still there')
  await until('three', () => news === 3)
  await new Promise((resolve) => setTimeout(resolve, 10))
  t.equal(news, 3, 'none after rest()')
  const received = receiveNow(one, 100, 1)
  t.equal(
    Array.isArray(received) && received[0]?.data.toString(),
    'still there',
  )
  watcher.watch()
  closeSync(other)
  await until('the end of file is news too', () => news > 3)
  watcher.close()
  watcher.close()
  watcher.watch()
  watcher.rest()
  watcher.keepAlive(true)
})

leakFree('a Node where this does not work is reported', async (t) => {
  const [one, other] = newSocketpair()
  const failures: (Error | undefined)[] = []
  const watcher = new Watcher(one, (failure) => failures.push(failure))
  watcher.watch()
  watcher.emit('end')
  t.match(failures, [
    { message: /Expected ENOBUFS .* Node v\S+ cannot wait for a socket/ },
  ])
  watcher.close()
  closeSync(other)
})

leakFree('keepAlive() takes effect while watched', async (t) => {
  const [one, other] = newSocketpair()
  let news = 0
  const watcher = new Watcher(one, () => news++)
  watcher.keepAlive(false)
  watcher.watch()
  watcher.keepAlive(true)
  watcher.keepAlive(false)
  writeSync(other, 'x')
  await until('news', () => news > 0)
  t.ok(news)
  watcher.close()
  closeSync(other)
})

leakFree('a receiver that waits is told of the failure', async (t) => {
  const [one, other] = newSocketpair()
  const watcher = new Watcher(one, () => {})
  const receiver = new Receiver(one, watcher)
  const limits = { maxBytes: 9, maxFds: 9 }
  const [first, second] = [receiver.receive(limits), receiver.receive(limits)]
  receiver.readable(new Error('no way to wait'))
  await t.rejects(first, { message: 'no way to wait' })
  receiver.close()
  t.equal(await second, null)
  watcher.close()
  closeSync(other)
})

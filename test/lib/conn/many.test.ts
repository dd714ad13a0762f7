// Lines of calls that are longer than the stack is deep: each call has its turn,
// however many of them end at once. In a file of its own, as it takes seconds,
// which the others do not.

import { getEventListeners } from 'node:events'

import { socketpair, type UnixConn } from '../../../lib/index.ts'
import { leakFree } from '../../support/descriptors.ts'
import { turns } from '../../support/waiting.ts'

async function bytesOf(conn: UnixConn): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const { data } of conn) pieces.push(data)
  return Buffer.concat(pieces)
}

leakFree('40,000 sends that wait for room all end', async (t) => {
  const [a, b] = socketpair()
  const count = 40_000
  const digit = (i: number): string => `${i % 10}`
  const sends = Array.from({ length: count }, (_, i) => a.sendmsg(digit(i)))
  const sent = Promise.all(sends).finally(() => a.close())
  await turns()
  const bytes = await bytesOf(b)
  await sent
  const expected = Array.from({ length: count }, (_, i) => digit(i))
  t.equal(bytes.toString(), expected.join(''))
  b.close()
})

leakFree('40,000 sends that wait for room end with close()', async (t) => {
  const [a, b] = socketpair()
  const sends = Array.from({ length: 40_000 }, () => a.sendmsg('x'))
  const results = Promise.allSettled(sends)
  await turns()
  a.close()
  const settled = await results
  const sent = settled.filter(({ status }) => status === 'fulfilled').length
  t.ok(sent > 0 && sent < 40_000, `${sent} had room`)
  t.equal((await bytesOf(b)).length, sent)
  b.close()
})

leakFree('40,000 receives that wait get their messages in order', async (t) => {
  const [a, b] = socketpair()
  const count = 40_000
  const receives = Array.from({ length: count }, () =>
    b.recvmsg({ maxBytes: 1 }),
  )
  const data = Buffer.alloc(count)
  for (let i = 0; i < count; i++) data[i] = i % 251
  const sent = a.sendmsg(data)
  const bytes = (await Promise.all(receives)).map((each) => each?.data[0])
  await sent
  t.ok(Buffer.from(bytes.map(Number)).equals(data))
  for (const conn of [a, b]) conn.close()
})

leakFree('40,000 receives that wait end with close()', async (t) => {
  const [a, b] = socketpair()
  const { signal } = new AbortController()
  const receives = Array.from({ length: 40_000 }, (_, i) =>
    i % 100 === 0 ? b.recvFds({ signal }) : b.recvFds(),
  )
  await turns()
  b.close()
  const got = await Promise.all(receives)
  t.ok(got.every((message) => message === null))
  t.equal(getEventListeners(signal, 'abort').length, 0)
  a.close()
})

leakFree(
  'thousands of 40,000 receives that wait can be given up',
  async (t) => {
    const [a, b] = socketpair()
    const controller = new AbortController()
    const { signal } = controller
    const receives = Array.from({ length: 2000 }, () => b.recvFds({ signal }))
    for (let i = 0; i < 38_000; i++) receives.push(b.recvFds())
    const last = receives.pop()
    const settled = Promise.allSettled(receives)
    await turns()
    controller.abort()
    await a.sendmsg('x')
    t.equal(`${(await receives[2000])?.data}`, 'x', 'the first that is left')
    b.close()
    const statuses = (await settled).map(({ status }) => status)
    t.ok(statuses.slice(0, 2000).every((status) => status === 'rejected'))
    t.ok(statuses.slice(2000).every((status) => status === 'fulfilled'))
    t.equal(await last, null)
    a.close()
  },
)

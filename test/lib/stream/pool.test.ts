// A share of libuv's pool: how many calls are in it at a time, and their order.

import { type Test, t } from 'tap'

type Pool = typeof import('../../../lib/stream/pool.ts')

/** A share of a pool of `threads`, as UV_THREADPOOL_SIZE says. */
async function newShare(t: Test, threads: string | undefined) {
  const env = { ...process.env }
  if (threads === undefined) delete env.UV_THREADPOOL_SIZE
  else env.UV_THREADPOOL_SIZE = threads
  const { restore } = t.intercept(process, 'env', { value: env })
  let underWay = 0
  const beginPoolCall = () => {
    underWay++
    return () => void underWay--
  }
  const { PoolShare, shares } = await t.mockImport<Pool>(
    '../../../lib/stream/pool.ts',
    { '../../../lib/socket/pool-calls.ts': { beginPoolCall } },
  )
  restore()
  return { share: new PoolShare(), shares, underWay: () => underWay }
}

for (const [threads, expected] of [
  [undefined, 1],
  ['many', 1],
  ['1', 1],
  ['3', 1],
  ['5', 1],
  ['6', 2],
  ['12', 4],
] as const) {
  t.test(`${expected} of ${threads ?? 'the usual'} threads`, async (t) => {
    const { share, underWay } = await newShare(t, threads)
    const begun: number[] = []
    const ends: (() => void)[] = []
    for (let call = 0; call < 9; call++) {
      share.run((over) => {
        begun.push(call)
        ends.push(over)
      })
    }
    // Each that ends makes room for the next, which has waited longest.
    for (let ended = 0; ended <= 9; ended++) {
      const count = Math.min(9, ended + expected)
      const calls = Array.from({ length: count }, (_, call) => call)
      t.strictSame(begun, calls, `${ended} have ended`)
      t.equal(underWay(), count - ended)
      ends[ended]?.()
    }
    begun.length = 0
    share.run((over) => over())
    for (let call = 0; call < 9; call++) share.run(() => begun.push(call))
    t.equal(begun.length, expected, 'there is room again, for as many')
  })
}

t.test('files leave room for what was waited for', async (t) => {
  const { shares } = await newShare(t, undefined)
  const begun: string[] = []
  for (let call = 0; call < 2; call++) {
    shares.file.run(() => begun.push('file'))
    shares.ready.run(() => begun.push('ready'))
  }
  t.strictSame(begun, ['file', 'ready'])
})

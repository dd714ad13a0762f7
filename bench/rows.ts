// What is measured, row by row, and the goals that the project set itself.

import { messageOf } from '../lib/script/cli.ts'
import { measureHeld } from './held.ts'
import { OURS, type Peer } from './peers.ts'
import { type Session, startSession, type Wiring } from './session.ts'
import { measureStart } from './startup.ts'
import { makeTable, type Sampled, type Table } from './table.ts'

/** How long to measure. */
export type Effort = {
  readonly rounds: number
  /** What each batch should take, in ms. */
  readonly batch: number
}

export type Row = {
  readonly name: string
  measure(peers: readonly Peer[], effort: Effort): Promise<Table[]>
}

export const rows: readonly Row[] = [
  timed(
    'one-at-a-time',
    'one process',
    'ns per descriptor',
    'a descriptor a message, sent and received before the next is sent',
  ),
  timed(
    'in-flight',
    'two processes',
    'ns per descriptor',
    'a descriptor a message, as many on their way as fit',
  ),
  timed(
    'full',
    'one process',
    'ns per descriptor',
    'messages of 252 descriptors, sent and received',
  ),
  timed(
    'ping-pong',
    'two processes',
    'ns per descriptor',
    'a message with a descriptor there, one back: half a round trip',
  ),
  timed(
    'stream',
    'two processes',
    'MB/s',
    'messages of 64 KiB with a descriptor each',
  ),
  timed(
    'bytes',
    'two processes',
    'MB/s',
    'writes of 64 KiB without descriptors',
  ),
  timed(
    'wake-up',
    'one process',
    'ns per wake-up',
    'from write(2) of a byte until the event loop has brought it',
  ),
  timed(
    'connect',
    'a path',
    'ns per connection',
    'connect, accept, a descriptor there, a byte back, close',
  ),
  { name: 'idle', measure: measureHeld },
  { name: 'start', measure: (_, effort) => measureStart(effort) },
]

type Goal = {
  readonly row: string
  readonly peer: string
  readonly times: number
  readonly of: string
}

/** At most so many times as long as another, in the same run. */
export const goals: readonly Goal[] = [
  { row: 'in-flight', peer: OURS, times: 1.5, of: 'C' },
  { row: 'in-flight', peer: OURS, times: 1, of: 'Python' },
  { row: 'in-flight', peer: OURS, times: 1, of: 'Python asyncio' },
  { row: 'in-flight', peer: OURS, times: 1, of: 'usocket' },
  { row: 'full', peer: OURS, times: 1.6, of: 'C' },
  { row: 'ping-pong', peer: OURS, times: 2.5, of: 'usocket' },
  { row: 'ping-pong', peer: OURS, times: 0.2, of: 'subprocess socket' },
  { row: 'ping-pong', peer: OURS, times: 0.2, of: 'subprocess server' },
  { row: 'bytes', peer: OURS, times: 2, of: 'net.Socket' },
]

function timed(name: string, wiring: Wiring, unit: string, title: string) {
  return {
    name,
    async measure(peers: readonly Peer[], effort: Effort): Promise<Table[]> {
      const sampled = await interleave(name, wiring, unit, peers, effort)
      const head = { row: name, title, unit, base: 'C' }
      return [makeTable(head, sampled)]
    },
  }
}

// All peers of a row are started and warmed up first. Then each does a batch,
// round after round, so that whatever else the machine does hits all alike.
async function interleave(
  row: string,
  wiring: Wiring,
  unit: string,
  peers: readonly Peer[],
  { rounds, batch }: Effort,
): Promise<Sampled[]> {
  const runners = []
  for (const peer of peers) runners.push(await warmUp(peer, row, wiring, batch))
  for (let round = 0; round < rounds; round++) {
    for (const runner of runners) {
      if (!runner.session) continue
      try {
        const { ns, units } = await runner.session.batch(runner.count)
        const perUnit = unit === 'MB/s' ? (units * 1000) / ns : ns / units
        runner.samples.push(perUnit)
      } catch (error) {
        runner.remark = messageOf(error)
        runner.samples.length = 0
        runner.session.end()
        delete runner.session
      }
    }
  }
  for (const { session } of runners) session?.end()
  return runners.map(({ peer, remark, samples }) => {
    return { peer: peer.name, samples, ...(remark && { remark }) }
  })
}

/** Batches before the first that counts, should they get faster for ever. */
const MOST_WARM_UPS = 20

type Runner = {
  readonly peer: Peer
  readonly count: number
  readonly samples: number[]
  remark?: string
  session?: Session
}

// Finds how many make a batch, and goes on until they get no faster: by then a
// just-in-time compiler has seen the code often enough.
async function warmUp(
  peer: Peer,
  row: string,
  wiring: Wiring,
  batch: number,
): Promise<Runner> {
  const runner = { peer, count: 0, samples: [] }
  const reason = peer.missing ?? peer.without?.[row]
  if (reason !== undefined) return { ...runner, remark: reason }
  let session: Session | undefined
  try {
    session = await startSession(peer, row, wiring)
    const target = batch * 1e6
    let count = 16
    let { ns } = await session.batch(count)
    while (ns < target / 2) {
      count = Math.ceil(count * Math.min(4, target / ns))
      ns = (await session.batch(count)).ns
    }
    let before = Number.POSITIVE_INFINITY
    for (let i = 0; i < MOST_WARM_UPS && ns < before * 0.95; i++) {
      before = ns
      ns = (await session.batch(count)).ns
    }
    count = Math.ceil((count * target) / ns)
    const remark = peer.remarks?.[row]
    return { ...runner, count, session, ...(remark && { remark }) }
  } catch (error) {
    session?.end()
    return { ...runner, remark: messageOf(error) }
  }
}

// A row that is timed: all peers do the same work, in turns, batch by batch.

import { type ChildProcess, spawn } from 'node:child_process'
import { cpus } from 'node:os'

import { messageOf } from '../lib/script/cli.ts'
import type { Effort, Row } from './effort.ts'
import type { Peer } from './peers.ts'
import { type Session, startSession, type Wiring } from './session.ts'
import { makeTable, type Sampled, type Table } from './table.ts'

type Beside = 'pinned to one core' | 'a busy loop on each core'

type Spec = {
  readonly name: string
  /** What the peers are told to do, if not what the row is called. */
  readonly does?: string
  readonly wiring: Wiring
  readonly unit: string
  readonly title: string
  readonly beside?: Beside
}

export function timed({ beside, does, ...spec }: Spec): Row {
  const { name, wiring, unit, title } = spec
  return {
    name,
    async measure(peers: readonly Peer[], effort: Effort): Promise<Table[]> {
      const prefix = beside === 'pinned to one core' ? pinnedTo(0) : []
      const loops = beside === 'a busy loop on each core' ? busyLoops() : []
      try {
        const start = (peer: Peer) =>
          startSession(peer, does ?? name, wiring, prefix)
        const sampled = await interleave(
          peers.map((peer) => ({ peer, reason: reasonOf(peer, name, does) })),
          start,
          unit,
          effort,
        )
        return [makeTable({ row: name, title, unit, base: 'C' }, sampled)]
      } finally {
        for (const loop of loops) loop.kill('SIGKILL')
      }
    },
  }
}

function pinnedTo(core: number): string[] {
  return ['taskset', '--cpu-list', String(core)]
}

function busyLoops(): ChildProcess[] {
  const loops = cpus().map((_, core) => {
    const [file = '', ...args] = pinnedTo(core)
    return spawn(file, [...args, 'sh', '-c', 'while :; do :; done'])
  })
  const stop = (): void => {
    for (const loop of loops) loop.kill('SIGKILL')
  }
  process.once('exit', stop)
  return loops
}

function reasonOf(
  { missing, without }: Peer,
  row: string,
  does = row,
): string | undefined {
  return missing ?? without?.[row] ?? without?.[does]
}

type Entry = { readonly peer: Peer; readonly reason: string | undefined }

type Runner = {
  readonly peer: Peer
  readonly count: number
  readonly samples: number[]
  readonly cpu: number[]
  remark?: string
  session?: Session
}

// All peers of a row are started and warmed up first. Then each does a batch,
// round after round, so that whatever else the machine does hits all alike.
async function interleave(
  entries: readonly Entry[],
  start: (peer: Peer) => Promise<Session>,
  unit: string,
  { rounds, batch }: Effort,
): Promise<Sampled[]> {
  const runners: Runner[] = []
  for (const { peer, reason } of entries) {
    const runner = { peer, count: 0, samples: [], cpu: [] }
    runners.push(
      reason === undefined
        ? await warmUp(runner, start, batch)
        : { ...runner, remark: reason },
    )
  }
  for (let round = 0; round < rounds; round++) {
    for (const runner of runners) await measureBatch(runner, unit)
  }
  for (const { session } of runners) session?.end()
  return runners.map(({ peer, remark, samples, cpu }) => {
    return { peer: peer.name, samples, cpu, ...(remark && { remark }) }
  })
}

async function measureBatch(runner: Runner, unit: string): Promise<void> {
  const { session, count } = runner
  if (!session) return
  try {
    const { ns, units, cpu } = await session.batch(count)
    const isRate = unit === 'MB/s'
    runner.samples.push(isRate ? (units * 1000) / ns : ns / units)
    runner.cpu.push(cpu / units)
  } catch (error) {
    runner.remark = messageOf(error)
    runner.samples.length = 0
    runner.cpu.length = 0
    session.end()
    delete runner.session
  }
}

/** Batches before the first that counts: at least, and should they get faster
 * for ever. */
const LEAST_WARM_UPS = 6
const MOST_WARM_UPS = 20

// Finds how many make a batch, and goes on until they get no faster: by then a
// just-in-time compiler has seen the code often enough. Beside other work one
// batch may be slower by chance, so there are some in any case.
async function warmUp(
  runner: Runner,
  start: (peer: Peer) => Promise<Session>,
  batch: number,
): Promise<Runner> {
  let session: Session | undefined
  try {
    session = await start(runner.peer)
    const target = batch * 1e6
    let count = 16
    let { ns } = await session.batch(count)
    while (ns < target / 2) {
      count = Math.ceil(count * Math.min(4, target / ns))
      ns = (await session.batch(count)).ns
    }
    let before = Number.POSITIVE_INFINITY
    const goesOn = (i: number): boolean =>
      i < LEAST_WARM_UPS || (i < MOST_WARM_UPS && ns < before * 0.95)
    for (let i = 0; goesOn(i); i++) {
      before = ns
      ns = (await session.batch(count)).ns
    }
    count = Math.ceil((count * target) / ns)
    const remark = remarkOf(runner.peer, session)
    return { ...runner, count, session, ...(remark && { remark }) }
  } catch (error) {
    session?.end()
    return { ...runner, remark: messageOf(error) }
  }
}

function remarkOf(peer: Peer, { row }: Session): string | undefined {
  return peer.remarks?.[row]
}

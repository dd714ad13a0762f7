// The row `cold`: the first hundred messages of processes that have just been
// started, there and back. No just-in-time compiler has seen the code yet,
// which is how a program that passes few descriptors runs for all its life.

import { messageOf } from '../lib/script/cli.ts'
import type { Effort } from './effort.ts'
import type { Peer } from './peers.ts'
import { startSession } from './session.ts'
import { makeTable, medianOf, type Sampled, type Table } from './table.ts'

const MESSAGES = 100

/** A row that is measured so is told to the peers as this one. */
const ROW = 'ping-pong'

export async function measureCold(
  peers: readonly Peer[],
  { rounds }: Effort,
): Promise<Table[]> {
  const lines = peers.map((peer) => {
    const remark = peer.missing ?? peer.without?.[ROW] ?? peer.remarks?.[ROW]
    const measurable = !(peer.missing ?? peer.without?.[ROW])
    return { peer, measurable, remark, samples: [] as number[] }
  })
  for (let round = 0; round < rounds; round++) {
    for (const line of lines) {
      if (!line.measurable) continue
      try {
        line.samples.push(await firstMessages(line.peer))
      } catch (error) {
        line.measurable = false
        line.remark = messageOf(error)
        line.samples.length = 0
      }
    }
  }
  const head = {
    row: 'cold',
    title: `median of the first ${MESSAGES} messages of fresh processes, each timed, half a round trip`,
    unit: 'ns per descriptor',
    base: 'C',
  }
  const sampled: Sampled[] = lines.map(({ peer, remark, samples }) => {
    return { peer: peer.name, samples, ...(remark && { remark }) }
  })
  return [makeTable(head, sampled)]
}

async function firstMessages(peer: Peer): Promise<number> {
  const session = await startSession(peer, ROW, 'two processes')
  try {
    const times: number[] = []
    for (let i = 0; i < MESSAGES; i++) {
      const { ns, units } = await session.batch(1)
      times.push(ns / units)
    }
    return medianOf(times) ?? 0
  } finally {
    session.end()
  }
}

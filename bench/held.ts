// The row `idle`: what ten thousand connections cost that wait for a message.
// Memory is the growth of the resident set, so the kernel's part, which is the
// same for all, is not in it; where memory is collected, what it grows by
// varies with what is collected meanwhile.

import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from '../lib/index.ts'
import { messageOf } from '../lib/script/cli.ts'
import type { Effort } from './effort.ts'
import type { Peer } from './peers.ts'
import { cpuTime, residentSet } from './processes.ts'
import { newPath, startProgram } from './session.ts'
import { makeTable, type Table } from './table.ts'

const CONNECTIONS = 10_000
const SECONDS = 0.5

/** For what a process does after the last thing that was asked of it, ms. */
const SETTLE = 250

type Costs = { readonly memory: number; readonly cpu: number }

export async function measureHeld(
  peers: readonly Peer[],
  { rounds }: Effort,
): Promise<Table[]> {
  const found = peers.map((peer) => {
    const remark = peer.missing ?? peer.without?.idle
    return { peer, costs: [] as Costs[], ...(remark && { remark }) }
  })
  for (let round = 0; round < Math.min(rounds, 3); round++) {
    for (const line of found) {
      if (line.remark) continue
      try {
        line.costs.push(await hold(line.peer))
      } catch (error) {
        line.remark = messageOf(error)
      }
    }
  }
  const samplesOf = (cost: keyof Costs) =>
    found.map(({ peer, costs, remark }) => {
      const samples = costs.map((each) => each[cost])
      return { peer: peer.name, samples, ...(remark && { remark }) }
    })
  const held = `${CONNECTIONS} connections held that wait for a message`
  const head = { row: 'idle', title: `${held}: memory` }
  const cpu = { row: 'idle', title: `${held}: CPU` }
  return [
    makeTable({ ...head, unit: 'KiB per connection' }, samplesOf('memory')),
    makeTable({ ...cpu, unit: 'ms CPU a second' }, samplesOf('cpu')),
  ]
}

async function hold({ command, env }: Peer): Promise<Costs> {
  const path = newPath()
  const line = [...command, 'idle', 'other', path, `${CONNECTIONS}`]
  const program = startProgram(line, [], env)
  const conns = []
  try {
    await program.answer(/^ready$/)
    await sleep(SETTLE)
    const before = residentSet(program.child.pid)
    for (let i = 0; i < CONNECTIONS; i++) conns.push(await connect(path))
    await program.answer(/^held$/)
    await sleep(SETTLE)
    const memory = (residentSet(program.child.pid) - before) / CONNECTIONS
    const start = cpuTime(program.child.pid)
    await sleep(SECONDS * 1000)
    const cpu = (cpuTime(program.child.pid) - start) / 1e6 / SECONDS
    return { memory, cpu }
  } finally {
    program.child.kill('SIGKILL')
    for (const conn of conns) conn.close()
  }
}

// The row `start`: from the start of ./client.ts until its descriptor has
// arrived, beside what Node takes to do nothing at all, with and without tsx.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'

import { listen } from '../lib/index.ts'
import type { Effort } from './effort.ts'
import { newPath } from './session.ts'
import { makeTable, type Table } from './table.ts'

const root = join(import.meta.dirname, '..')

export async function measureStart({ rounds }: Effort): Promise<Table[]> {
  const nothing: number[] = []
  const tsx: number[] = []
  const client: number[] = []
  for (let round = 0; round < Math.min(rounds, 5); round++) {
    nothing.push(await untilExit('-e', '0'))
    tsx.push(await untilExit('--import', 'tsx', '-e', '0'))
    client.push(await untilDescriptor())
  }
  const title = 'a process, from its start until it is done'
  const head = { row: 'start', title, unit: 'ms', base: 'node -e 0' }
  const sent = 'until its descriptor has arrived'
  return [
    makeTable(head, [
      { peer: 'node -e 0', samples: nothing },
      { peer: 'node, tsx, -e 0', samples: tsx },
      { peer: './client.ts', samples: client, remark: sent },
    ]),
  ]
}

async function untilExit(...args: string[]): Promise<number> {
  const start = performance.now()
  const child = spawn(process.execPath, args, { cwd: root, stdio: 'ignore' })
  await once(child, 'exit')
  return performance.now() - start
}

async function untilDescriptor(): Promise<number> {
  const path = newPath()
  const listener = await listen(path)
  const stdin = openSync('/dev/null', 'r')
  const start = performance.now()
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', 'client.ts', path],
    { cwd: root, stdio: [stdin, 'ignore', 'ignore'] },
  )
  closeSync(stdin)
  try {
    for await (const conn of listener) {
      const message = await conn.recvFds()
      const took = performance.now() - start
      for (const fd of message?.fds ?? []) closeSync(fd)
      conn.close()
      if (message?.fds.length !== 1) throw new Error('Expected a descriptor')
      return took
    }
    throw new Error('Expected a client, got none')
  } finally {
    listener.close()
    child.kill()
  }
}

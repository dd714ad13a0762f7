// One peer at work on one row: its processes, the socket between them, and the
// questions that it answers. What they say to each other: peers/plain.c.

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

import { socketpair } from '../lib/index.ts'
import type { Peer } from './peers.ts'
import { cpuTime } from './processes.ts'

/** One process with both ends of a pair, two with one each, or a path. */
export type Wiring = 'one process' | 'two processes' | 'a path'

export type Batch = {
  /** What the work took, closing not included. */
  readonly ns: number
  readonly units: number
  /** Of all processes of the session, in ns, closing included. */
  readonly cpu: number
}

export type Session = {
  /** The row, as the peer knows it. */
  readonly row: string
  /** Has the peer do it `count` times. */
  batch(count: number): Promise<Batch>
  /** Ends its processes. */
  end(): void
}

// What has to be cleaned up, also after a run that is broken off.
const folder = mkdtempSync(join(tmpdir(), 'bench-run-'))
const running = new Set<ChildProcess>()
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => process.exit(1))
}

/** More than any batch takes, unless something is wrong. */
const PATIENCE = 60_000

export async function startSession(
  { command, env }: Peer,
  row: string,
  wiring: Wiring,
  prefix: readonly string[] = [],
): Promise<Session> {
  const path = wiring === 'a path' ? [newPath()] : []
  const children: ChildProcess[] = []
  const start = (role: string, fds: number[]): Program => {
    const line = [...prefix, ...command, row, role, ...path]
    const program = startProgram(line, fds, env)
    children.push(program.child)
    return program
  }

  // Ours are copies: the children keep the pair open.
  const pair = socketpair()
  const [near, far] = pair.map((conn) => conn.fd) as [number, number]
  try {
    if (wiring === 'two processes') start('other', [far])
    if (wiring === 'a path') await start('other', []).answer(/^ready$/)
    const fds = { 'one process': [near, far], 'two processes': [near] }
    const timer = start('timer', wiring === 'a path' ? [] : fds[wiring])
    const cpuOfAll = (): number =>
      children.reduce((sum, { pid }) => sum + cpuTime(pid), 0)
    return {
      row,
      async batch(count) {
        const before = cpuOfAll()
        timer.child.stdin?.write(`${count}\n`)
        const [, ns, units] = await timer.answer(/^(\d+) (\d+)$/)
        const cpu = cpuOfAll() - before
        return { ns: Number(ns), units: Number(units), cpu }
      },
      end: () => stop(children),
    }
  } catch (error) {
    stop(children)
    throw error
  } finally {
    for (const conn of pair) conn.close()
  }
}

export type Program = {
  readonly child: ChildProcess
  /** The next line that it prints, which is as expected. */
  answer(expected: RegExp): Promise<RegExpMatchArray>
}

/** @param fds become 3 and 4 of the program */
export function startProgram(
  command: readonly string[],
  fds: readonly number[] = [],
  env: Readonly<Record<string, string>> = {},
): Program {
  const [file = '', ...args] = command
  const child = spawn(file, args, {
    env: { ...process.env, ...env },
    stdio: ['pipe', 'pipe', 'pipe', ...fds],
  })
  running.add(child)
  child.once('exit', () => running.delete(child))
  // Its end is told by the lines that do not come.
  child.on('error', () => {})
  child.stdin?.on('error', () => {})
  let said = ''
  child.stderr?.on('data', (chunk) => {
    said = `${said}${chunk}`.slice(-2000)
  })
  const { stdout } = child
  if (!stdout) throw new Error('Expected a pipe as stdout, got none')
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]()
  return {
    child,
    async answer(expected) {
      const timer = setTimeout(() => {
        said = `no answer in ${PATIENCE / 1000} s`
        child.kill('SIGKILL')
      }, PATIENCE)
      const { value = '' } = await lines.next()
      clearTimeout(timer)
      const match = value.match(expected)
      if (match) return match
      const last = said.trim().split('\n').pop()
      throw new Error(`failed: ${value || last || 'it ended'}`)
    },
  }
}

function stop(children: readonly ChildProcess[]): void {
  for (const child of children) child.kill('SIGKILL')
}

let paths = 0

/** For a socket. The file is gone when the run ends. */
export function newPath(): string {
  return join(folder, `${++paths}`)
}

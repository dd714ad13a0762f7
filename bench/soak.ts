#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../lib/script/run" "$0" "$@"

// What only shows with time, for as long as you like: does memory grow, or the
// descriptor table, over millions of messages; does some order of operations
// break the library; does some failing system call break a program? Four parts,
// one after the other, each a program that can be run by itself, and a table.

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

import { commandLine, help, onStop, usageError } from '../lib/script/cli.ts'
import { linesOf } from '../lib/script/lines.ts'

const USAGE = `Usage: bench/soak.ts [OPTIONS]
Runs the soak tests, prints what they print, and a table of how they went. Exits
1 if one failed.
  --minutes N  for all of them (20)
  --only PART  messages, there-and-back, fuzz or faults`

type Part = {
  readonly name: string
  /** Of the time that there is. */
  readonly share: number
  readonly command: (minutes: number) => readonly string[]
  /** Run again while there is time. */
  readonly again?: true
}

const parts: readonly Part[] = [
  {
    name: 'messages',
    share: 0.4,
    command: (minutes) => ['bench/soak-messages.ts', '--minutes', `${minutes}`],
  },
  {
    name: 'there-and-back',
    share: 0.1,
    command: (minutes) => [
      ...['bench/soak-messages.ts', '--there-and-back'],
      ...['--minutes', `${minutes}`],
    ],
  },
  {
    name: 'fuzz',
    share: 0.2,
    command: () => ['test/fuzz.ts', '--rounds', '500'],
    again: true,
  },
  {
    name: 'faults',
    share: 0.3,
    command: (minutes) => ['test/faults.ts', '--minutes', `${minutes}`],
  },
]

const { values } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      minutes: { type: 'string', default: '20' },
      only: { type: 'string' },
    },
  },
  [0, 0],
)
const minutes = Number(values.minutes)
if (!(minutes >= 1))
  usageError(USAGE, `Expected --minutes from 1, got ${values.minutes}`)
const chosen = parts.filter(({ name }) => name === (values.only ?? name))
if (chosen.length === 0)
  usageError(USAGE, `Expected --only with a part, got ${values.only}`)
const whole = chosen.reduce((sum, { share }) => sum + share, 0)

let stop = (_: NodeJS.Signals): void => {}
let stopping = false
onStop((signal) => {
  stopping = true
  stop(signal)
})

const root = fileURLToPath(new URL('..', import.meta.url))
const rows: string[][] = []
for (const part of chosen) {
  if (stopping) break
  rows.push(await runPart(part, (minutes * part.share) / whole))
}

console.log()
for (const row of [['PART', 'RUNS', 'MINUTES', 'RESULT', 'SAID LAST'], ...rows])
  console.log(row.map((cell, at) => cell.padEnd(at === 0 ? 15 : 8)).join(' '))

async function runPart(part: Part, minutes: number): Promise<string[]> {
  const start = performance.now()
  const passed = (): number => (performance.now() - start) / 60_000
  let runs = 0
  let result = 'ok'
  let last = ''
  do {
    runs++
    const { code, line } = await runOnce(part, minutes)
    last = line
    if (code === 0) continue
    // Of all these, only the faults need something that may be missing.
    result = code === 2 ? 'skipped' : 'FAILED'
    if (code !== 2) process.exitCode = 1
    break
  } while (part.again && !stopping && passed() < minutes)
  return [part.name, `${runs}`, passed().toFixed(1), result, last]
}

// The exit code, and the last line that was printed.
async function runOnce({ name, command }: Part, minutes: number) {
  const args = [
    ...process.execArgv,
    ...command(Math.max(1, Math.round(minutes))),
  ]
  const child = spawn(process.execPath, args, {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  stop = (signal) => child.kill(signal)
  let line = ''
  const show = async (stream: typeof child.stdout): Promise<void> => {
    for await (line of linesOf(stream)) console.log(`${name} | ${line}`)
  }
  const end = new Promise<number | null>((resolve) => {
    child.once('close', resolve)
  })
  await Promise.all([show(child.stdout), show(child.stderr)])
  return { code: await end, line }
}

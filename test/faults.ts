#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../lib/script/run" "$0" "$@"

// What do the programs do when a system call fails? Lets the calls that each
// server, and each client, makes fail, one at a time, with every error that the
// call's manual page names: the first call of its kind, one in the middle, and
// one at random. Nothing may hang, crash, keep a descriptor, or lose or double
// a byte that was reported as arrived, and the next client must be served.
//
// Needs Linux and strace(1), whose section "Tampering" this rests on. The
// programs are in faults/programs.ts, the errors in faults/calls.ts.

import { spawn } from 'node:child_process'
import {
  codeOf,
  commandLine,
  help,
  messageOf,
  numberOption,
  onStop,
  usageError,
} from '../lib/script/cli.ts'
import { faultsFor, randomFrom } from './faults/choose.ts'
import { type Scenario, scenarios } from './faults/programs.ts'
import { Session } from './faults/session.ts'
import { type Fault, Trace } from './faults/trace.ts'

const USAGE = `Usage: test/faults.ts [OPTIONS]
Lets system calls of every program fail, and prints what came of it. Exits 1 if
one hangs, crashes, leaks, or loses bytes; 2 if there is no strace to do it.
      --quick         a sample, in about 75 seconds
      --minutes N     a sample, in about N minutes
      --only PROGRAM  part of a name, such as port-broker/server
      --call CALL     only this system call
      --seed N        to choose the same calls again
  -j, --jobs N        programs at the same time (2)`

/** Minutes for --quick. */
const QUICK = 1.25

const { values } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      quick: { type: 'boolean', default: false },
      minutes: { type: 'string' },
      only: { type: 'string', default: '' },
      call: { type: 'string' },
      seed: { type: 'string', default: `${Date.now() % 1_000_000}` },
      jobs: { type: 'string', short: 'j', default: '2' },
    },
  },
  [0, 0],
)
const jobs = numberOption(USAGE, '--jobs', values.jobs, [1, 1000])
const seed = numberOption(USAGE, '--seed', values.seed, [0, 999_999_999])

type Target = { name: string; scenario: Scenario; inClient: boolean }
type Row = Fault & { name: string; of: number; outcome: string }

const targets = scenarios.flatMap(targetsOf).filter(({ name }) => {
  return name.includes(values.only)
})
if (targets.length === 0)
  usageError(USAGE, `Expected a program that is there, got ${values.only}`)
// What each program has, in ms.
const share = (minutes() * 60_000 * jobs) / targets.length
await checkStrace()

const rows: Row[] = []
const broken: string[] = []
const waiting = targets.entries()
const start = performance.now()
let stopping = false
onStop(() => {
  stopping = true
})
await Promise.all(Array.from({ length: jobs }, work))
report()

async function work(): Promise<void> {
  for (const [index, target] of waiting) {
    if (stopping) return
    try {
      await tryAll(target, randomFrom(seed + index))
    } catch (error) {
      broken.push(`${target.name}: ${messageOf(error)}`)
    }
  }
}

async function tryAll(target: Target, random: () => number): Promise<void> {
  const { name, scenario, inClient } = target
  const session = new Session(scenario, inClient)
  const end = performance.now() + share
  try {
    const calls = await session.profile()
    const faults = faultsFor(calls, random, values.call)
    for (const [index, fault] of faults.entries()) {
      if (stopping || (index > 1 && performance.now() > end)) break
      progress(`${name}: ${index + 1} of ${faults.length}`)
      const outcome = await session.judge(fault)
      const of = calls.get(fault.call)?.at(-1) ?? 0
      if (outcome !== undefined) rows.push({ ...fault, name, of, outcome })
    }
    progress('')
    console.error(`${seconds()} s  ${name}: ${rows.length} faults so far`)
    const last = await session.close()
    if (last !== undefined) broken.push(`${name}: ${last}`)
  } finally {
    await session.close()
    session.remove()
  }
}

function targetsOf(scenario: Scenario): Target[] {
  const server = scenario.servers.at(scenario.target ?? -1)
  const targets: Target[] = []
  if (server) targets.push({ name: server.file, scenario, inClient: false })
  if ('file' in scenario)
    targets.push({ name: scenario.file, scenario, inClient: true })
  return targets
}

// One line for all faults of a call that came to the same end.
function report(): void {
  progress('')
  const groups = new Map<string, Row[]>()
  for (const row of rows) {
    const key = [row.name, row.call, row.outcome].join()
    groups.set(key, [...(groups.get(key) ?? []), row])
  }
  console.log('PROGRAM | CALL (which, of how many) | ERRNO | OUTCOME')
  for (const key of [...groups.keys()].sort()) {
    const group = groups.get(key) ?? []
    const [first] = group
    if (first === undefined) continue
    const { name, call, of, outcome } = first
    const list = (all: readonly unknown[]) => [...new Set(all)].join(' ')
    const whens = list(group.map(({ when }) => when).sort((a, b) => a - b))
    const errnos = list(group.map(({ errno }) => errno))
    console.log(
      `${name} | ${call} (${whens}, of ${of}) | ${errnos} | ${outcome}`,
    )
  }
  for (const text of broken) console.log(text)
  const bad = rows.filter(({ outcome }) => !isGood(outcome)).length
  console.log(
    `${rows.length} faults in ${targets.length} programs, seed ${seed}: ` +
      `${bad + broken.length} defects`,
  )
  process.exitCode = bad + broken.length > 0 ? 1 : 0
}

function isGood(outcome: string): boolean {
  return /^(ok|no crash|error told)/.test(outcome)
}

// On a terminal one line, written over; elsewhere a line for each program.
function progress(text: string): void {
  if (!process.stderr.isTTY) return
  process.stderr.write(`\r\x1b[K${text && `${seconds()} s  ${text}`}`)
}

function seconds(): string {
  return ((performance.now() - start) / 1000).toFixed(0)
}

function minutes(): number {
  if (values.minutes === undefined)
    return values.quick ? QUICK : Number.POSITIVE_INFINITY
  const minutes = Number(values.minutes)
  if (minutes > 0) return minutes
  return usageError(
    USAGE,
    `Expected --minutes as a number, got ${values.minutes}`,
  )
}

// Attached, as to a server: not all that may trace their children may do this.
async function checkStrace(): Promise<void> {
  const sleep = spawn('sleep', ['60'], { stdio: 'ignore' })
  try {
    const trace = await Trace.attach(sleep.pid ?? -1, '/dev/null', ['close'])
    await trace.detach()
  } catch (error) {
    const why =
      codeOf(error) === 'ENOENT'
        ? 'Expected strace(1), which is not installed'
        : `Expected to be permitted to trace: ${messageOf(error)}`
    console.error(`faults.ts: ${why.replaceAll('\n', ' ')}`)
    process.exit(2)
  } finally {
    sleep.kill()
  }
}

#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../lib/script/run" "$0" "$@"

// Does a client notice a takeover? Starts examples/takeover/server.ts, has four
// kinds of clients ask it without a pause, and replaces it again and again.
// Prints requests, failures and answer times; exits 1 if a single request
// failed. Takes three minutes. First: cd bench && npm install
//
// Failed is everything but an answer of 200: a refused connection, a reset, no
// answer within 10 s. Partner: takeover-load.ts, the clients.

import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'

import { commandLine, fail, help, numberOption } from '../lib/script/cli.ts'
import { linesOf } from '../lib/script/lines.ts'
import type { LoadResult } from './takeover-load.ts'

const USAGE = `Usage: bench/takeover.ts [OPTIONS]
Replaces a server under load and prints whether its clients noticed.
  --takeovers N  replacements (20)
  --crashes N    replacements that crash (5)
  --clients N    of each of four kinds (4)
  --rate N       requests per second of each client (25)`

const { values } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      takeovers: { type: 'string', default: '20' },
      crashes: { type: 'string', default: '5' },
      clients: { type: 'string', default: '4' },
      rate: { type: 'string', default: '25' },
    },
  },
  [0, 0],
)
const count = (name: 'takeovers' | 'crashes' | 'clients' | 'rate'): number =>
  numberOption(USAGE, `--${name}`, values[name], [1, 9999])
const takeovers = count('takeovers')
const crashes = count('crashes')
const clients = count('clients')
const rate = count('rate')

/** Seconds from one replacement to the next. */
const PACE = 2

/** Reserved for documentation, so that no machine has it (RFC 5737). */
const ABSENT = '192.0.2.1:80'

const root = join(import.meta.dirname, '..')
const folder = mkdtempSync(join(tmpdir(), 'takeover-'))
const tcp = `127.0.0.1:${await freePort()}`
const unix = join(folder, 'web.sock')
console.log(
  `${clients} clients of each kind, ${rate} requests per second each; ` +
    `a replacement every ${PACE} s`,
)
const control = ['-c', join(folder, 'control.sock')]
const addresses = ['-l', tcp, '-l', unix]
let server = await start(...control, ...addresses)
process.once('exit', () => {
  server.kill() // unless it has ended, as it should have by then
  rmSync(folder, { recursive: true })
})

const quiet = await measure('nothing else', takeovers, async () => {})
const other = await measure(`${takeovers} other starts`, takeovers, elsewhere)
const busy = await measure(`${takeovers} takeovers`, takeovers, replace)
const failing = await measure(`${crashes} crashes`, crashes, crash)
server.kill('SIGTERM')
const code = await exitOf(server)
const left = readdirSync(folder)

const answered = new Set(busy.flatMap(({ servers }) => Object.keys(servers)))
const [alone, starts, across] = [quiet, other, busy].map(longest)
console.log(`
${answered.size} processes answered during the takeovers. The longest answer
took ${across} ms; ${starts} ms when other processes started; ${alone} ms else.
The last server: exit ${code}, socket files left: ${left.length}`)
const failed = [...quiet, ...other, ...busy, ...failing].reduce(
  (sum, result) => sum + failuresOf(result),
  0,
)
if (failed > 0) fail(`Expected no failed request, got ${failed}`)
if (answered.size !== takeovers + 1 || code !== 0 || left.length > 0)
  fail('Expected every server to serve and the last one to clean up')

// One part of the table: the load, and beside it `step` at a steady pace.
async function measure(
  title: string,
  steps: number,
  step: () => Promise<void>,
): Promise<LoadResult[]> {
  const seconds = Math.ceil((steps + 1) * PACE)
  const loads = [
    load('TCP, keep-alive', tcp, 'keep-alive', seconds),
    load('TCP, one request each', tcp, 'close', seconds),
    load('Unix, keep-alive', unix, 'keep-alive', seconds),
    load('Unix, one request each', unix, 'close', seconds),
  ]
  await Promise.all(loads.map(({ begun }) => begun))
  const results = Promise.all(loads.map(({ result }) => result))
  let over = false
  void results.then(() => {
    over = true
  })
  for (let made = 0; made < steps; made++) {
    const pause = sleep(PACE * 1000)
    await step()
    await pause
  }
  if (over) fail('Expected the load to last, got too slow a machine for it')

  console.log(
    `\n${row(title, 'requests', 'failed', 'median', '99 %', 'longest')}`,
  )
  const measured = await results
  for (const [index, result] of measured.entries()) {
    print(loads[index]?.name ?? '', result)
  }
  return measured
}

// One process of clients. `begun` resolves when its measurement begins.
function load(name: string, target: string, kind: string, seconds: number) {
  const settings = [target, kind, clients, rate, seconds].map(String)
  const child = run('bench/takeover-load.ts', ...settings)
  const lines = linesOf(child.stdout)
  const begun = lines.next()
  const result = begun.then(async (): Promise<LoadResult> => {
    const { value: line } = await lines.next()
    return line ? JSON.parse(line) : fail(`Expected a result of ${name}`)
  })
  return { name, begun, result }
}

// A server, once it is ready or has ended. All its output is read: otherwise it
// would wait, when the pipe is full, to print its next line.
async function start(...args: string[]): Promise<Child> {
  const child = run('examples/takeover/server.ts', ...args)
  await new Promise<void>((resolve) => {
    let said = ''
    child.stdout.on('data', (chunk) => {
      said += chunk
      if (said.includes('Server ready')) resolve()
    })
    child.stdout.once('end', resolve)
  })
  return child
}

// What starting a process costs the others on this machine: a server that has
// nothing to do with the measured one.
async function elsewhere(): Promise<void> {
  const child = await start('-c', join(folder, 'other'), '-l', '0')
  child.kill()
  await exitOf(child)
}

async function replace(): Promise<void> {
  const old = server
  server = await start(...control, ...addresses)
  const code = await exitOf(old)
  if (code !== 0) fail(`Expected the old server to exit 0, got ${code}`)
}

// It dies with the sockets in its hands: it has received them when it finds
// that one of its addresses is not this machine's.
async function crash(): Promise<void> {
  const child = await start(...control, ...addresses, '-l', ABSENT)
  if ((await exitOf(child)) !== 1) fail('Expected a crash')
}

type Child = ChildProcessByStdio<null, Readable, null>

function run(script: string, ...args: string[]): Child {
  const command = ['--import', 'tsx', join(root, script), ...args]
  return spawn(process.execPath, command, {
    cwd: root,
    // Errors of the servers that were made to crash are expected.
    stdio: ['ignore', 'pipe', args.includes(ABSENT) ? 'ignore' : 'inherit'],
  })
}

async function exitOf(child: Child): Promise<number | null> {
  if (child.exitCode === null) await once(child, 'exit')
  return child.exitCode
}

function print(name: string, result: LoadResult): void {
  const [median, most, all] = [0.5, 0.99, 1].map((part) => {
    return `${quantile(result, part)} ms`
  })
  const failed = failuresOf(result)
  console.log(row(name, result.requests, failed, median, most, all))
  for (const [what, times] of Object.entries(result.failures))
    console.log(`    ${times} x ${what}`)
}

function row(name: string, ...cells: (string | number | undefined)[]): string {
  const right = cells.map((cell) => String(cell).padStart(10))
  return name.padEnd(24) + right.join('')
}

/** Within how many ms that part of the requests was answered. */
function quantile({ histogram, requests }: LoadResult, part: number): number {
  let seen = 0
  for (const [ms, times] of Object.entries(histogram)) {
    seen += times
    if (seen >= requests * part) return Number(ms) + 1
  }
  return Number.NaN
}

function longest(results: readonly LoadResult[]): number {
  return Math.max(...results.map((result) => quantile(result, 1)))
}

function failuresOf({ failures }: LoadResult): number {
  return Object.values(failures).reduce((sum, times) => sum + times, 0)
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const address = probe.address()
  probe.close()
  return typeof address === 'object' && address ? address.port : 0
}

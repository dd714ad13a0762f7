// A fault in each place of lib/, one at a time (a mutant: a condition turned
// round, a call left out): does a test fail? Stryker makes the mutants and runs
// the tests; here are the order, the time, and the table at the end.
//
// What an earlier run has found out about a file is taken from .cache/mutants,
// unless the file or its test files have changed since, so a run that was ended
// goes on. After a change elsewhere remove that folder.

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { resolve } from 'node:path'

import { commandLine, help, usageError } from '../../lib/script/cli.ts'
import { type Left, left } from './left.ts'
import { SLOW, testsFor } from './tests.ts'

/** The least score of lib/, and of the lesson and connections, in per cent. */
const FLOOR = 85
const HIGH_FLOOR = 90
const HIGH = /^lib\/(conn\/)?[^/]+$/

/**
 * Of a sample, which is some dozens of mutants of a few neighbouring lines: by
 * chance alone it may be far from the score of the whole, but hardly this far.
 */
const SAMPLE_FLOOR = 60

/** So few mutants say nothing about the rest, and then the exit code is this. */
const SAMPLE_SIZE = 20
const NOT_JUDGED = 3

/** Lines that are taken together in a sample. */
const LINES = 20

const FOLDER = '.cache/mutants'

/**
 * Types alone, or nothing but exports: no code to change. And what every script
 * imports, for which there are the scripts' own tests.
 */
const NOT_TRIED = [
  'lib/index.ts',
  'lib/ffi/types.ts',
  'lib/script/cli.ts',
  'lib/script/job.ts',
  'lib/wait/types.ts',
]

/** Of mutation-testing-report-schema, what is read here. */
type Place = { line: number; column: number }
type Mutant = {
  mutatorName: string
  replacement: string
  status: string
  location: { start: Place; end: Place }
}
type Report = { files: Record<string, { source: string; mutants: Mutant[] }> }

type Row = {
  file: string
  killed: number
  /** Detected as well: the tests did not end. */
  timeouts: number
  listed: number
  missed: string[]
}

const USAGE = `Usage: test/mutants/run.sh [OPTIONS] [FILE...]
Tries whether the tests see faults in lib/, or in these files of it. Exits 1
below the floor.
  --minutes N  ends after N minutes; what is left is tried in the next run
  --sample     some lines of what has changed since the last release; exits 3
               if there was no time for enough of them
  --seed TEXT  which lines those are (the commit)`

const { values, positionals } = commandLine(
  USAGE,
  {
    allowPositionals: true,
    options: {
      ...help,
      minutes: { type: 'string', default: 'Infinity' },
      sample: { type: 'boolean', default: false },
      seed: { type: 'string' },
    },
  },
  [0, Number.POSITIVE_INFINITY],
)
const minutes = Number(values.minutes)
if (!(minutes > 0)) {
  usageError(USAGE, `Expected --minutes as a number, got ${values.minutes}`)
}
const end = Date.now() + minutes * 60_000
const all = readdirSync('lib', { recursive: true, encoding: 'utf8' })
  .map((name) => `lib/${name}`)
  .filter((file) => file.endsWith('.ts') && !NOT_TRIED.includes(file))
  .sort()
const base = JSON.parse(readFileSync('test/mutants/stryker.json', 'utf8'))

const rows: Row[] = []
/** Where the tests failed before anything was changed. */
const failed: string[] = []
const work = values.sample ? sample() : positionals.length ? positionals : all
for (const [index, part] of work.entries()) {
  const report = mutate(part)
  if (report === 'no time') {
    console.log(`No time for ${work.length - index} of ${work.length} parts`)
    break
  }
  if (report === 'failed') failed.push(part)
  else rows.push(...rowsOf(report))
}
process.exitCode = conclude()

/** Parts of what has changed since the last release, as `FILE:FIRST-LAST`. */
function sample(): string[] {
  // Nothing where this is no checkout: then the sample is of all of them.
  const git = (...args: string[]): string => {
    const { stdout } = spawnSync('git', args, { encoding: 'utf8' })
    return stdout?.trim() ?? ''
  }
  const release = git(
    'log',
    '-1',
    '--format=%H',
    '-G"version":',
    'package.json',
  )
  const quick = all.filter((file) => !SLOW.includes(file))
  const changed = git('diff', '--name-only', release, '--', 'lib').split('\n')
  const files = positionals.length
    ? positionals
    : quick.filter((file) => changed.includes(file))
  const seed = values.seed ?? git('rev-parse', 'HEAD')
  console.log(`Seed ${seed}, of ${files.length} files`)
  const order = (part: string): string =>
    createHash('sha256').update(`${seed} ${part}`).digest('hex')
  return (files.length > 0 ? files : quick)
    .flatMap(partsOf)
    .sort((one, other) => (order(one) < order(other) ? -1 : 1))
}

function partsOf(file: string): string[] {
  const lines = readFileSync(file, 'utf8').split('\n')
  const parts = []
  for (let first = 0; first < lines.length; first += LINES) {
    // Of a docstring alone there is nothing to change.
    const hasCode = lines.slice(first, first + LINES).some((line) => {
      return !/^\s*($|\*|\/)/.test(line)
    })
    if (hasCode) parts.push(`${file}:${first + 1}-${first + LINES}`)
  }
  return parts
}

/** Has Stryker do its work. */
function mutate(part: string): Report | 'no time' | 'failed' {
  const timeout = Math.ceil(end - Date.now())
  if (timeout <= 0) return 'no time'
  const [file = ''] = part.split(':')
  const { tests, engine } = testsFor(file)
  const folder = `${FOLDER}/${part.replaceAll(/[/:]/g, '-')}`
  mkdirSync(folder, { recursive: true })
  forgetIfChanged(folder, tests)
  const reportFile = `${folder}/report.json`
  rmSync(reportFile, { force: true })
  const config = {
    ...base,
    mutate: [part],
    tap: { ...base.tap, testFiles: tests },
    tempDirName: `${folder}/sandbox`,
    incrementalFile: `${folder}/incremental.json`,
    jsonReporter: { fileName: reportFile },
  }
  writeFileSync(`${folder}/stryker.json`, JSON.stringify(config))
  const stryker = 'test/mutants/node_modules/.bin/stryker'
  const env = { ...process.env, FDPASS_FFI: engine, TAP_TIMEOUT: '0' }
  const args = ['run', `${folder}/stryker.json`]
  const stdio = ['ignore', 'inherit', 'inherit'] as const
  const { status } = spawnSync(stryker, args, {
    env,
    stdio: [...stdio],
    ...(Number.isFinite(timeout) && { timeout }),
  })
  endAllIn(config.tempDirName)
  if (status === 0) return JSON.parse(readFileSync(reportFile, 'utf8'))
  return end <= Date.now() ? 'no time' : 'failed'
}

// Stryker, when it is ended, leaves the tests running, for ever if the mutant is
// an endless loop. Nothing else runs in its copy of the project.
function endAllIn(folder: string): void {
  if (process.platform !== 'linux') return
  const root = resolve(folder)
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const cwd = readlinkSync(`/proc/${pid}/cwd`)
      if (cwd.startsWith(root)) process.kill(Number(pid), 'SIGKILL')
    } catch {
      // It has ended by itself, or is another user's.
    }
  }
}

// Stryker reuses a result as long as the mutated lines are the same. Without
// coverage (see runner.js) it cannot know that a test of them has changed.
function forgetIfChanged(folder: string, tests: readonly string[]): void {
  const hash = createHash('sha256')
  for (const test of tests) hash.update(`${test}\n${readFileSync(test)}`)
  const now = hash.digest('hex')
  const file = `${folder}/tests`
  if (existsSync(file) && readFileSync(file, 'utf8') === now) return
  rmSync(`${folder}/incremental.json`, { force: true })
  writeFileSync(file, now)
}

function rowsOf(report: Report): Row[] {
  return Object.entries(report.files).map(([file, { source, mutants }]) => {
    const lines = source.split('\n')
    const row: Row = { file, killed: 0, timeouts: 0, listed: 0, missed: [] }
    for (const mutant of mutants) {
      const { status, location, mutatorName, replacement } = mutant
      if (status === 'Killed') row.killed++
      if (status === 'Timeout') row.timeouts++
      // Neither what does not run at all nor what is left out says anything.
      if (status !== 'Survived' && status !== 'NoCoverage') continue
      const from = textAt(lines, location)
      const line = lines[location.start.line - 1] ?? ''
      const found = { file, from, to: replacement, line }
      if (left.some((one) => isSame(one, found))) row.listed++
      else {
        const place = `${file}:${location.start.line}`
        row.missed.push(`${place} ${mutatorName}\n- ${from}\n+ ${replacement}`)
      }
    }
    return row
  })
}

function isSame(
  { file, from, to, on = '' }: Left,
  found: { file: string; from: string; to: string; line: string },
): boolean {
  const isThere = found.file === file && found.line.includes(on)
  return isThere && found.from === from && found.to === to
}

function textAt(lines: string[], { start, end }: Mutant['location']): string {
  const text = lines.slice(start.line - 1, end.line)
  text.push(text.pop()?.slice(0, end.column - 1) ?? '')
  text.unshift(text.shift()?.slice(start.column - 1) ?? '')
  return text.join('\n')
}

/** Prints what survived and the table; returns the exit code. */
function conclude(): number {
  for (const { missed } of rows) for (const text of missed) console.log(text)
  console.table(rows.map(toTable))
  const high = rows.filter(({ file }) => HIGH.test(file))
  const floor = values.sample ? SAMPLE_FLOOR : FLOOR
  const floors = [{ name: 'lib/', floor, of: rows }]
  if (!values.sample && high.length > 0)
    floors.push({ name: 'lib/*.ts, lib/conn/', floor: HIGH_FLOOR, of: high })
  for (const part of failed) console.log(`The tests of ${part} failed`)
  const tried = rows.reduce((sum, row) => sum + countOf(row), 0)
  if (values.sample && tried < SAMPLE_SIZE) {
    console.log(`Expected ${SAMPLE_SIZE} mutants to judge by, got ${tried}`)
    return NOT_JUDGED
  }
  // In a sample those tests have run as often without a change, and passed.
  let code = failed.length > 0 && !values.sample ? 1 : 0
  for (const { name, floor, of } of floors) {
    const score = scoreOf(of)
    console.log(`${name}: ${score.toFixed(1)} %, of at least ${floor} %`)
    if (!(score >= floor)) code = 1
  }
  return code
}

function toTable(row: Row) {
  const score = Number(scoreOf([row]).toFixed(1))
  return { ...row, missed: row.missed.length, score }
}

function countOf({ killed, timeouts, missed }: Row): number {
  return killed + timeouts + missed.length
}

// NaN for no mutants at all, which is below every floor.
function scoreOf(rows: Row[]): number {
  let detected = 0
  let missed = 0
  for (const row of rows) {
    detected += row.killed + row.timeouts
    missed += row.missed.length
  }
  return (100 * detected) / (detected + missed)
}

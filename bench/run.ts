#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../lib/script/run" "$0" "$@"

// The measurement, in one run: this library beside everything else that passes
// descriptors, and beside C, which shows the kernel's own share. It builds and
// installs what it compares with (see peers.ts); what this machine has not got
// is a line that says so.
//
// All peers do the same: the same kind of socket, which this program makes and
// hands to them, one byte of data unless the row says more, /dev/null as the
// descriptor. Every received descriptor is closed, but that is not timed. Each
// counts what arrived. Their numbers are only good beside each other, in one
// run: a virtual machine is faster on one day than on another.

import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, release, totalmem, type } from 'node:os'
import { join } from 'node:path'

import {
  commandLine,
  fail,
  help,
  numberOption,
  usageError,
} from '../lib/script/cli.ts'
import { findPeers, type Peer } from './peers.ts'
import { goals, rows } from './rows.ts'
import { format, printTable, ratioOf, serialize, type Table } from './table.ts'

const rowNames = rows.map(({ name }) => name)

const USAGE = `Usage: bench/run.ts [OPTIONS]
Measures how fast descriptors are passed, and prints a table for each row.
  --rounds N    of about 200 ms for every peer and row (9)
  --rows LIST   only these, of
                ${rowNames.slice(0, 7).join(', ')},
                ${rowNames.slice(7).join(', ')}
  --peers LIST  only these, such as 'C,this library'
  --json FILE   keeps the result, for bench/plot.ts`

const { values } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      rounds: { type: 'string', default: '9' },
      rows: { type: 'string' },
      peers: { type: 'string' },
      json: { type: 'string' },
    },
  },
  [0, 0],
)
const rounds = numberOption(USAGE, '--rounds', values.rounds, [1, 9999])
const effort = { rounds, batch: 200 }
const chosen = choose('row', rows, values.rows)
const peers = choose('peer', findPeers(), values.peers)

const machine = describeMachine(peers)
for (const line of machine) console.log(line)

const tables: Table[] = []
for (const row of chosen) {
  for (const table of await row.measure(peers, effort).catch(fail)) {
    printTable(table)
    tables.push(table)
  }
}
printGoals()
if (values.json) {
  writeFileSync(values.json, serialize({ machine, tables }))
}

function choose<T extends { name: string }>(
  what: string,
  all: readonly T[],
  list: string | undefined,
): readonly T[] {
  if (list === undefined) return all
  const names = list.split(',')
  const unknown = names.find((name) => !all.some((one) => one.name === name))
  if (unknown !== undefined) {
    const known = all.map(({ name }) => name).join(', ')
    usageError(USAGE, `Expected a ${what} of ${known}, got ${unknown}`)
  }
  return all.filter(({ name }) => names.includes(name))
}

function describeMachine(peers: readonly Peer[]): string[] {
  const cores = cpus()
  const memory = Math.round(totalmem() / 2 ** 30)
  const versions = peers.flatMap(({ version }) => version ?? [])
  return [
    `${cores[0]?.model.trim()}, ${cores.length} cores, ${memory} GiB`,
    `${type()} ${release()}`,
    [`Node ${process.version}`, ...installed('ffi-rs', 'tsx')].join(', '),
    [...new Set(versions)].join('; '),
    `median of ${effort.rounds} interleaved rounds of about ${effort.batch} ms`,
  ]
}

function installed(...names: string[]): string[] {
  const folder = join(import.meta.dirname, '../node_modules')
  return names.map((name) => {
    const file = readFileSync(join(folder, name, 'package.json'), 'utf8')
    return `${name} ${JSON.parse(file).version}`
  })
}

function printGoals(): void {
  const lines = goals.flatMap(({ row, peer, times, of }) => {
    const table = tables.find((one) => one.row === row)
    const median = (name: string) =>
      table?.lines.find((line) => line.peer === name)?.numbers?.median
    const [value, base] = [median(peer), median(of)]
    if (!table || value === undefined || base === undefined) return []
    const ratio = ratioOf(value, base, table.unit)
    const met = ratio <= times ? 'met   ' : 'missed'
    return `  ${met}  ${row}: at most ${times} × ${of}, is ${format(ratio)}`
  })
  if (lines.length > 0) console.log(['\nGoals', ...lines].join('\n'))
}

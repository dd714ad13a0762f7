#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// Runs every gotcha of this folder, each in a process of its own, and prints a
// table: what is claimed, what was expected, what was observed on this machine.
// Exits 1 if one of them came out otherwise. Partners: the other files here.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { text } from 'node:stream/consumers'

import { commandLine, help, print, usageError } from '../../lib/script/cli.ts'

const USAGE = `Usage: ./examples/gotchas/all.ts [NAME...]
Tries what surprises people about passing descriptors, and says whether it is so
on this machine. Without a NAME, such as one-byte, all of it.`

/** Files that are no gotcha, but used by several. */
const SHARED = ['all', 'gotcha', 'limited', 'tcp-pair']

const folder = import.meta.dirname
const known = readdirSync(folder)
  .map((file) => basename(file, '.ts'))
  .filter((name) => !SHARED.includes(name))

const { positionals } = commandLine(
  USAGE,
  { options: help, allowPositionals: true },
  [0, known.length],
)
const names = positionals.length > 0 ? positionals : known
const unknown = names.find((name) => !known.includes(name))
if (unknown !== undefined) {
  usageError(USAGE, `Expected some of ${known.join(', ')}, got ${unknown}`)
}

let surprises = 0
for (const name of names) {
  const { columns, failed } = await tryIt(name)
  const [result = '', claim = '', expected = '', observed = ''] = columns
  print(`${result.padEnd(8)} ${claim}  (${name}.ts)`)
  if (expected) print(`         expected: ${expected}`)
  print(`         observed: ${observed}`)
  if (failed) surprises++
}
print(
  surprises === 0
    ? `All ${names.length} came out as expected`
    : `${surprises} of ${names.length} came out otherwise`,
)
process.exitCode = surprises === 0 ? 0 : 1

async function tryIt(name: string) {
  const args = [...process.execArgv, join(folder, `${name}.ts`)]
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [out, err, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'exit'),
  ])
  const columns = out.trim().split(' | ')
  if (columns.length === 4) return { columns, failed: code !== 0 }
  const last = err.trim().split('\n').pop() ?? ''
  return { columns: ['FAILED', name, '', last], failed: true }
}

// Prints what failed in a log of the tests: which assertion, where it stands in
// the source, and what it expected. .ci/run repeats that at its end.
//
//   node --import tsx test/failures.ts LOG

import { readFileSync } from 'node:fs'
import { Parser, type Result } from 'tap-parser'

// Of a difference, and of what was printed before a file ended too early.
const LINES_SHOWN = 12

const [log = '/dev/stdin'] = process.argv.slice(2)
const printed: string[] = []

// Flat: assertions alone, without the tests around them, which fail as well. A
// test file is among them if none of its assertions is what failed.
for (const event of Parser.parse(readFileSync(log, 'utf8'), { flat: true })) {
  if (event[0] === 'extra') printed.push(event[1].trimEnd())
  if (event[0] === 'assert' && !event[1].ok && !event[1].todo) {
    console.log(failure(event[1]))
  }
}

function failure({ fullname, diag, tapError }: Result): string {
  const { at, diff, stack, exitCode, signal } = diag ?? {}
  const place = at ? `, ${at.fileName}:${at.lineNumber}` : ''
  const details: string = diff ?? stack ?? tapError ?? ''
  const lines = details.trim().split('\n').slice(0, LINES_SHOWN)

  if (exitCode || signal) {
    lines.push(`It ended with ${signal ?? `status ${exitCode}`}. Before:`)
    lines.push(...printed.slice(-LINES_SHOWN))
  }
  return [`not ok: ${fullname}${place}`, ...lines.filter(Boolean)].join(
    '\n    ',
  )
}

// From client.ts, each file's header leads to the next: `Read next: FILE`, or
// the partner. The walk comes to every file of lib/ once, and to those that
// README.md names as its doors in the order in which they stand there.

import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { t } from 'tap'

import { inlineCodeOf, read, sectionOf } from './readme.ts'

/** The comment that a file begins with, in one line. */
function headerOf(file: string): string {
  const lines = read(file).split('\n')
  const start = lines.findIndex((line) => line.startsWith('// '))
  const end = lines.findIndex((line, i) => i > start && !line.startsWith('//'))
  return lines
    .slice(start, end)
    .map((line) => line.replace(/^\/\/ ?/, ''))
    .join(' ')
}

function nextOf(file: string): string | undefined {
  const header = headerOf(file)
  const [, next] =
    /Read next: ([\w./-]+\.ts)/.exec(header) ??
    /Partner: ([\w./-]+\.ts)/.exec(header) ??
    []
  return next
}

function walk(): string[] {
  const seen = ['client.ts']
  for (;;) {
    const next = nextOf(seen.at(-1) ?? '')
    if (next === undefined) return seen
    if (seen.includes(next)) throw new Error(`${seen.at(-1)} leads to ${next}`)
    if (!existsSync(next)) throw new Error(`Expected ${next}, got no such file`)
    seen.push(next)
  }
}

t.test('the headers lead to every file of lib/, once', async (t) => {
  const files = readdirSync('lib', { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join('lib', name))
  const walked = walk().filter((file) => file.startsWith('lib/'))
  t.strictSame([...walked].sort(), files.sort())
})

t.test('README.md names its doors in the same order', async (t) => {
  const walked = walk()
  t.strictSame(walked.slice(0, 2), ['client.ts', 'server.ts'])
  const section = inlineCodeOf(sectionOf(read('README.md'), 'Read it'))
  const doors = section.filter((code) => /^(lib|examples)\//.test(code))
  t.ok(doors.length > 5)
  const inOrder = walked.filter((file) => doors.includes(file))
  t.strictSame(doors, inOrder)
})

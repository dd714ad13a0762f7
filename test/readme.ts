// What README.md and examples/README.md consist of, for the tests that execute
// them, and the figures in README.md, which come from bench/results.json:
//
//     node --import tsx test/readme.ts            prints the figures
//     node --import tsx test/readme.ts --write    puts them into README.md
//
// Partners: readme.test.ts and walk.test.ts.

import { readFileSync, writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

import type { Line, Table } from '../bench/table.ts'

/** A block of code: ``` and its language, or for TypeScript its file name. */
export type Block = {
  readonly language: string
  /** Of a console: the number of its terminal. Of TypeScript: its file. */
  readonly name: string
  readonly lines: readonly string[]
  /** The heading that it stands under. */
  readonly section: string
}

export function read(file: string): string {
  return readFileSync(file, 'utf8')
}

/** All blocks of code of a Markdown text. */
export function blocksOf(text: string): Block[] {
  const blocks: Block[] = []
  let section = ''
  let open: { language: string; name: string; lines: string[] } | undefined
  for (const line of text.split('\n')) {
    const [, language = '', name = ''] = /^```(\w*) ?(.*)$/.exec(line) ?? []
    if (open && line === '```') {
      blocks.push({ ...open, section })
      open = undefined
    } else if (open) open.lines.push(line)
    else if (line.startsWith('```')) open = { language, name, lines: [] }
    else if (line.startsWith('#')) section = line.replace(/^#+ /, '')
  }
  if (open) throw new Error(`Expected \`\`\` at the end of ${section}`)
  return blocks
}

/** The text outside of blocks of code. */
export function proseOf(text: string): string {
  return text.replace(/^```[\s\S]*?^```$/gm, '')
}

/** What stands in `backticks` in the prose. */
export function inlineCodeOf(text: string): string[] {
  return [...proseOf(text).matchAll(/`([^`]+)`/g)].map(([, code = '']) => code)
}

/** The lines under a heading, up to the next heading. */
export function sectionOf(text: string, heading: string): string {
  const start = text.indexOf(`\n## ${heading}\n`)
  if (start < 0) throw new Error(`Expected a section ${heading}, got none`)
  const end = text.indexOf('\n## ', start + 1)
  return text.slice(start, end < 0 ? undefined : end)
}

/** The files that README.md says are to be read, in its order. */
export function readingOrder(): string[] {
  const section = sectionOf(read('README.md'), 'Read it, in this order')
  return inlineCodeOf(section).filter((code) => /^(lib|examples)\//.test(code))
}

const ROWS = ['one-at-a-time', 'in-flight', 'wake-up', 'ping-pong', 'pinned']
const PEERS = new Map([
  ['C', 'C'],
  ['Go', 'Go'],
  ['Python', 'Python'],
  ['usocket', 'usocket'],
  ['subprocess socket', '`subprocess.send`'],
  ['this library', 'this library'],
  ['this on node:ffi', 'this library with node:ffi'],
])
const START = /(<!-- figures: [^\n]*-->\n)[\s\S]*?(<!-- \/figures -->)/

/** A row is said to be unstable where its rounds differ by more than this. */
const STABLE = 1.3

/** The figures of README.md, a line for each row of the benchmark. */
export function figures(): string {
  const results: { machine: string[]; tables: Table[] } = JSON.parse(
    read('bench/results.json'),
  )
  const lines = ROWS.flatMap((row) => {
    const table = results.tables.find((one) => one.row === row)
    return table ? [`- ${table.title}: ${timesOf(table)}`] : []
  })
  const [cpu = '', kernel = ''] = results.machine
  const head =
    `Median times in µs (${cpu}; ${kernel.replace(/-.*/, '')}). Where the slowest round took ` +
    `more than ${STABLE} times as long as the fastest, both are given:`
  return [head, ...lines, ''].join('\n')
}

function timesOf({ lines }: Table): string {
  return [...PEERS]
    .flatMap(([peer, name]) => {
      const line = lines.find((one) => one.peer === peer)
      return line?.numbers ? [`${name} ${timeOf(line.numbers)}`] : []
    })
    .join(', ')
}

function timeOf({ median, min, max }: NonNullable<Line['numbers']>): string {
  const text = (ns: number): string => {
    const us = ns / 1000
    return us < 10 ? us.toFixed(1) : `${Number(us.toPrecision(2))}`
  }
  if (max / min <= STABLE) return text(median)
  return `${text(median)} (${text(min)} to ${text(max)})`
}

/** README.md with the figures as they are in bench/results.json. */
export function withFigures(readme: string): string {
  if (!START.test(readme)) throw new Error('Expected <!-- figures: -->')
  return readme.replace(START, (_, start, end) => start + figures() + end)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const isWriting = process.argv[2] === '--write'
  if (isWriting) writeFileSync('README.md', withFigures(read('README.md')))
  else console.log(figures())
}

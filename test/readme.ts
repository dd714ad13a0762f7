// What README.md, examples/README.md and the pages in docs/ consist of, for the
// tests that execute them, and the figures in them, which come from
// bench/results.json:
//
//     node --import tsx test/readme.ts            prints the figures
//     node --import tsx test/readme.ts --write    puts them into the pages
//
// Partners: commands.test.ts, docs.test.ts and walk.test.ts.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

import type { Line, Table } from '../bench/table.ts'

/** A block of code, between two lines of ```. */
export type Block = {
  readonly language: string
  /**
   * What the line in bold above it says: which terminal (`**Terminal 1**`), or
   * which file (`**receive.ts**`) it is. '' if there is none.
   */
  readonly label: string
  readonly lines: readonly string[]
  /** The heading that it stands under. */
  readonly section: string
}

export function read(file: string): string {
  return readFileSync(file, 'utf8')
}

/** The pages that the tests execute. */
export function pages(): string[] {
  const docs = readdirSync('docs').filter((name) => name.endsWith('.md'))
  const inDocs = docs.sort().map((name) => join('docs', name))
  return ['README.md', 'examples/README.md', ...inDocs]
}

/** A heading, or a block with its label. */
const PART =
  /^#+ (.*)$|(?:^\*\*`?([^*`\n]+)`?\*\*\n\n)?^```(\w*)\n([\s\S]*?)^```$/gm

/** All blocks of code of a Markdown text. */
export function blocksOf(text: string): Block[] {
  const blocks: Block[] = []
  let section = ''
  for (const [, heading, label = '', language = '', code] of text.matchAll(
    PART,
  )) {
    if (heading !== undefined) section = heading
    if (code === undefined) continue
    const lines = code.split('\n').slice(0, -1)
    blocks.push({ language, label, lines, section })
  }
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

/** The lines under a heading, up to the next heading of its level. */
export function sectionOf(text: string, heading: string): string {
  const start = text.indexOf(`\n## ${heading}\n`)
  if (start < 0) throw new Error(`Expected a section ${heading}, got none`)
  const end = text.indexOf('\n## ', start + 1)
  return text.slice(start, end < 0 ? undefined : end)
}

/** The rows of all tables of a text, without their heads, cell by cell. */
export function rowsOf(text: string): string[][] {
  const tables = proseOf(text).matchAll(/^\|.*\n\|[-:| ]+\n((?:\|.*\n)*)/gm)
  return [...tables].flatMap(([, body = '']) => {
    const rows = body.split('\n').slice(0, -1)
    return rows.map((row) => row.slice(2, -2).split(' | '))
  })
}

type Results = {
  readonly machine: readonly string[]
  readonly tables: readonly Table[]
}

/**
 * Where figures stand: between two comments, of which the first names rows of
 * the benchmark and, if not all of them, the peers.
 */
const FIGURES =
  /(<!-- figures: ([\w -]+?)(?:; of: ([^>]+?))? -->\n)[\s\S]*?(<!-- \/figures -->)/g

/** Where it stands on what they were measured, and how: in short, or all. */
const MACHINE = /(<!-- machine(, all)? -->\n)[\s\S]*?(<!-- \/machine -->)/g

/** A row is said to be unstable where its rounds differ by more than this. */
const STABLE = 1.3

/** A page with the figures as they are in bench/results.json. */
export function withFigures(page: string): string {
  const { machine, tables }: Results = JSON.parse(read('bench/results.json'))
  const filled = page.replace(FIGURES, (_, start, rows, peers, end) => {
    const wanted = tables.filter(({ row }) => rows.split(' ').includes(row))
    const table = tableOf(wanted, peers?.split(', ') ?? peersOf(wanted))
    return `${start}\n${table}\n\n${end}`
  })
  return filled.replace(MACHINE, (_, start, all, end) => {
    const [cpu = '', kernel = '', ...others] = machine
    const inShort = [cpu, kernel.replace(/-.*/, '')]
    const line = (all ? [...inShort, ...others] : inShort).join('; ')
    return `${start}\nMeasured with ${line}.\n\n${end}`
  })
}

// Those that have numbers, in the order of the run.
function peersOf(tables: readonly Table[]): string[] {
  const lines = tables.flatMap(({ lines }) => lines)
  const measured = lines.filter(({ numbers }) => numbers)
  return [...new Set(measured.map(({ peer }) => peer))]
}

function tableOf(tables: readonly Table[], peers: readonly string[]): string {
  const rows = tables.map(({ row, title, unit, lines }) => {
    const cells = peers.map((peer) => {
      const numbers = lines.find((line) => line.peer === peer)?.numbers
      return numbers ? cellOf(numbers, unit) : ''
    })
    return [`${row}: ${title} (${unit.replace(/^ns per.*/, 'µs')})`, ...cells]
  })
  const rule = ['---', ...peers.map(() => '---:')]
  return [['', ...peers], rule, ...rows]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n')
}

function cellOf(numbers: NonNullable<Line['numbers']>, unit: string): string {
  const { median, min, max } = numbers
  const scale = unit.startsWith('ns') ? 1000 : 1
  const text = (value: number): string => {
    const scaled = Number((value / scale).toPrecision(2))
    return scaled >= 1 && scaled < 10 ? scaled.toFixed(1) : `${scaled}`
  }
  if (max <= STABLE * min) return text(median)
  return `${text(median)} (${text(min)} to ${text(max)})`
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const isWriting = process.argv[2] === '--write'
  for (const page of pages()) {
    const text = withFigures(read(page))
    if (isWriting) writeFileSync(page, text)
    else for (const [figures] of text.matchAll(FIGURES)) console.log(figures)
  }
}

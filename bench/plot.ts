#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../lib/script/run" "$0" "$@"

// Draws the result of a run: for every row of the table how long each peer
// takes, as a multiple of C's time, on one logarithmic scale. The dot is the
// median, the line goes from the fastest round to the slowest.
//
//     bench/run.ts --json bench/results.json && bench/plot.ts

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { commandLine, help } from '../lib/script/cli.ts'
import { NODE_FFI, OURS } from './peers.ts'
import { format, type Line, ratioOf, type Table } from './table.ts'

const USAGE = `Usage: bench/plot.ts [JSON [SVG]]
Draws a run's result; bench/results.json and bench/results.svg unless given.`

const { positionals } = commandLine(
  USAGE,
  { options: help, allowPositionals: true },
  [0, 2],
)
const here = import.meta.dirname
const [from = join(here, 'results.json'), to = join(here, 'results.svg')] =
  positionals

const TITLE = 'Time as a multiple of C: the further left, the faster'

// Of the drawing, in pixels.
const WIDTH = 860
const PANEL = WIDTH / 2
const LINE = 17
const HEAD = 44
const LEFT = 132
const SCALE = 178

/** The ends of the scale, and what is marked on it. */
const [LEAST, MOST] = [0.03, 300]
const MARKS = [0.1, 1, 10, 100]

const result: { machine: string[]; tables: Table[] } = JSON.parse(
  readFileSync(from, 'utf8'),
)
const panels = result.tables.filter(({ base }) => base === 'C').map(panel)
const pairs = panels.flatMap((_, i) => (i % 2 ? [] : [panels.slice(i, i + 2)]))

let height = 30
const drawn = pairs.map((pair) => {
  const top = height
  height += Math.max(...pair.map((one) => one.height))
  return pair.map(({ svg }, column) => group(column * PANEL, top, svg)).join('')
})
const head = text(10, 20, TITLE, 'b')
const feet = [
  'net.Socket: the bytes alone. usocket: 64 descriptors a message in full.',
  result.machine.slice(0, 3).join('; '),
].map((foot, i) => text(10, height + 12 + i * LINE, foot, 'n'))
const body = [head, ...drawn, ...feet].join('')
writeFileSync(to, page(WIDTH, height + 40, body))

function panel(table: Table): { svg: string; height: number } {
  const lines = table.lines.filter(({ numbers }) => numbers)
  const bottom = HEAD - 10 + lines.length * LINE
  const marks = MARKS.map(
    (mark) =>
      `<path class="g" d="M${x(mark)} ${HEAD - 12}V${bottom}"/>` +
      text(x(mark), HEAD - 16, `${mark}×`, 'n m'),
  )
  const dots = lines.map((line, i) => dot(table, line, HEAD + i * LINE))
  const title = text(10, 14, `${table.row}, ${table.unit}`, 'b')
  return {
    svg: `${title}${marks.join('')}${dots.join('')}`,
    height: bottom + 14,
  }
}

function dot(table: Table, { peer, numbers }: Line, y: number): string {
  const base = table.lines.find((line) => line.peer === table.base)?.numbers
  if (!numbers || !base) return ''
  const { median, min, max } = numbers
  const at = (value: number) => x(ratioOf(value, base.median, table.unit))
  const look = [OURS, NODE_FFI].includes(peer) ? 'o' : 'p'
  return (
    text(LEFT - 8, y + 4, peer, `e ${look}`) +
    `<path class="${look}" d="M${at(min)} ${y}H${at(max)}"/>` +
    `<circle class="${look}" cx="${at(median)}" cy="${y}" r="4"/>` +
    text(LEFT + SCALE + 10, y + 4, format(median), look)
  )
}

/** Where a ratio lies on the scale. */
function x(ratio: number): number {
  const inside = Math.min(Math.max(ratio, LEAST), MOST)
  const share = Math.log(inside / LEAST) / Math.log(MOST / LEAST)
  return Math.round((LEFT + share * SCALE) * 10) / 10
}

function group(left: number, top: number, svg: string): string {
  return `<g transform="translate(${left} ${top})">${svg}</g>\n`
}

function text(x: number, y: number, what: string, look: string): string {
  const safe = what.replace(/&/g, '&amp;').replace(/</g, '&lt;')
  return `<text class="${look}" x="${x}" y="${y}">${safe}</text>\n`
}

function page(width: number, height: number, body: string): string {
  const size = `viewBox="0 0 ${width} ${height}" width="${width}"`
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size}>
<title>${TITLE}</title>
<style>
text { font: 12px sans-serif; fill: #444 }
path { stroke-width: 2 }
.b { font-weight: bold; fill: #111 }
.n { font-size: 11px; fill: #777 }
.m { text-anchor: middle }
.e { text-anchor: end }
.g { stroke: #ddd; stroke-width: 1 }
circle.p { fill: #7a8a99 } path.p { stroke: #7a8a99 }
circle.o, text.o { fill: #c0392b } path.o { stroke: #c0392b }
text.o { font-weight: bold }
</style>
<rect width="${width}" height="${height}" fill="#fff"/>
${body}</svg>
`
}

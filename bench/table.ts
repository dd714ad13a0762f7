// The table that the run prints and keeps, and the numbers in it.

export type Line = {
  readonly peer: string
  /** What it does otherwise than the others, or why it has no numbers. */
  readonly remark?: string
  readonly numbers?: {
    readonly median: number
    readonly min: number
    readonly max: number
    /** Time over the base's time: less is better, whatever the unit. */
    readonly ratio?: number
    /** CPU time of all its processes, in ns per unit (per byte for a rate). */
    readonly cpu?: number
  }
}

export type Table = {
  readonly row: string
  readonly title: string
  readonly unit: string
  /** The peer that the ratios are to. */
  readonly base?: string
  readonly lines: readonly Line[]
}

export type Sampled = {
  readonly peer: string
  readonly remark?: string
  /** One value a round, none if it could not be measured. */
  readonly samples: readonly number[]
  readonly cpu?: readonly number[]
}

export function makeTable(
  head: Omit<Table, 'lines'>,
  sampled: readonly Sampled[],
): Table {
  const base = sampled.find(({ peer }) => peer === head.base)
  const baseMedian = base && medianOf(base.samples)
  const lines = sampled.map(({ samples, cpu = [], ...line }) => {
    const median = medianOf(samples)
    if (median === undefined) return line
    const ratio = baseMedian && ratioOf(median, baseMedian, head.unit)
    const range = { min: Math.min(...samples), max: Math.max(...samples) }
    const cost = medianOf(cpu)
    const numbers = {
      median,
      ...range,
      ...(ratio && { ratio }),
      ...(cost !== undefined && { cpu: cost }),
    }
    return { ...line, numbers }
  })
  return { ...head, lines }
}

/** How many times as long, which for a rate is its inverse. */
export function ratioOf(value: number, base: number, unit: string): number {
  return unit.endsWith('/s') ? base / value : value / base
}

export function printTable({ row, title, unit, base, lines }: Table): void {
  console.log(`\n${row}: ${title}`)
  const times = base ? `time / ${base}` : ''
  const cpuUnit = unit === 'MB/s' ? 'CPU ms/MB' : 'CPU'
  const hasCpu = lines.some(({ numbers }) => numbers?.cpu !== undefined)
  const head = ['median', 'min', 'max', ...(hasCpu ? [cpuUnit] : [])]
  console.log(cells(unit, ...head, times))
  for (const { peer, remark, numbers } of lines) {
    if (!numbers) {
      console.log(`  ${peer.padEnd(21)}-  ${remark ?? ''}`)
      continue
    }
    const { median, min, max, ratio, cpu } = numbers
    const costs = hasCpu ? [cpu === undefined ? '' : format(cpu)] : []
    const values = [...[median, min, max].map(format), ...costs]
    const line = cells(peer, ...values, ratio ? ratio.toFixed(2) : '')
    console.log(remark ? `${line}  ${remark}` : line.trimEnd())
  }
}

function cells(name: string, ...values: string[]): string {
  const [last = '', ...others] = values.reverse()
  const numbers = others.reverse().map((value) => value.padStart(10))
  return `  ${name.padEnd(20)}${numbers.join('')}${last.padStart(18)}`
}

/**
 * What the plot and the README quote, a line for each peer in a row, so that
 * two runs can be compared line by line.
 */
export function serialize(result: {
  readonly machine: readonly string[]
  readonly tables: readonly Table[]
}): string {
  const tables = result.tables.map(({ lines, ...head }) => {
    const rows = lines.map((line) => `    ${JSON.stringify(line, rounded)}`)
    const start = JSON.stringify(head).slice(0, -1)
    return `  ${start},"lines":[\n${rows.join(',\n')}\n  ]}`
  })
  const machine = JSON.stringify(result.machine)
  return `{"machine":${machine},"tables":[\n${tables.join(',\n')}\n]}\n`
}

function rounded(_: string, value: unknown): unknown {
  return typeof value === 'number' ? Number(value.toPrecision(3)) : value
}

/** Three digits at least, thousands marked. */
export function format(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2
  return value.toLocaleString('en', {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  })
}

export function medianOf(samples: readonly number[]): number | undefined {
  const sorted = samples.toSorted((a, b) => a - b)
  const high = sorted[sorted.length >> 1]
  const low = sorted[(sorted.length - 1) >> 1]
  return high === undefined || low === undefined ? undefined : (high + low) / 2
}

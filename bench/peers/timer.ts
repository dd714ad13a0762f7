// What the Node peers share: the side of the timer in plain.c.

import { closeSync, openSync } from 'node:fs'
import { createInterface } from 'node:readline'

export const FULL = 252
export const LARGE = 65536
export const BYTE = Buffer.from('x')
export const BLOCK = Buffer.alloc(LARGE, 'x')

/** What everybody passes. */
export const NULL = openSync('/dev/null', 'r+')

export const [row = '', role = '', path = '', held = ''] = process.argv.slice(2)

/** Nanoseconds since some moment. */
export function now(): number {
  return performance.now() * 1e6
}

export function closeAll(fds: readonly number[]): number {
  for (const fd of fds) closeSync(fd)
  return fds.length
}

/** The timer's question to the other process. */
export function question(count: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(count)
  return bytes
}

/**
 * Answers each COUNT on stdin with what `batch` took and counted.
 *
 * @param batch returns how many units it moved, or that and the nanoseconds,
 * where not all of the time counts
 */
export async function serveTimer(
  batch: (count: number) => Promise<number | { units: number; ns: number }>,
): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    const start = now()
    const result = await batch(Number(line))
    const ns = now() - start
    const { units, ns: timed } =
      typeof result === 'number' ? { units: result, ns } : result
    console.log(`${Math.round(timed)} ${units}`)
  }
  process.exit() // the sockets would keep it alive
}

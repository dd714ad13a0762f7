// What the Node peers share: the side of the timer in plain.c.

import { closeSync, openSync } from 'node:fs'
import { createInterface } from 'node:readline'

export const FULL = 252
export const LARGE = 65536
export const BYTE = Buffer.from('x')
export const BLOCK = Buffer.alloc(LARGE, 'x')

/** What every peer passes. */
export const NULL = openSync('/dev/null', 'r+')

export const [row = '', role = '', path = '', held = ''] = process.argv.slice(2)

/** Most descriptors that are kept open before they are closed. */
const KEPT = 4000

/** Most messages before those that came in them are closed. */
const PORTION = row === 'full' ? Math.floor(KEPT / FULL) : KEPT

const kept: number[] = []

/** Takes what was received, until closeKept. How many they are. */
export function keep(fds: readonly number[]): number {
  kept.push(...fds)
  return fds.length
}

export function closeKept(): void {
  for (const fd of kept.splice(0)) closeSync(fd)
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
 * @param batch does so many; returns how many units it moved
 * @param tidyUp closes what was received, which is not timed
 */
export async function serveTimer(
  batch: (count: number) => Promise<number>,
  tidyUp: () => Promise<void> | void = closeKept,
): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    let [ms, units] = [0, 0]
    for (let left = Number(line); left > 0; left -= PORTION) {
      const start = performance.now()
      units += await batch(Math.min(left, PORTION))
      ms += performance.now() - start
      await tidyUp()
    }
    console.log(`${Math.round(ms * 1e6)} ${units}`)
  }
  process.exit() // the sockets would keep it alive
}

// Printing line by line without delaying other clients. One may send a file of
// a million empty lines: printed in one go, they would keep the event loop, and
// with it every other client, waiting for seconds. So only some lines are
// printed in each turn of the event loop, and none while stdout is full.
// Read next: lib/script/printable.ts.

import { once } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setImmediate as eventLoopTurn } from 'node:timers/promises'
import { linesOf } from './lines.ts'
import { printable } from './printable.ts'

/** Lines, of all who print. About 0.2 ms of work. */
export const LINES_PER_TURN = 100

/** Characters. A longer line counts as several. */
export const USUAL_LENGTH = 100

/**
 * A function that prints one line on `out`, by way of printable(). It resolves
 * when the caller may print its next line: await it in a loop over lines that a
 * client sends. Callers that wait are served in order. It never rejects: errors
 * of `out` are for the listeners of its 'error' event.
 */
export function linePrinter(out: Writable): (line: string) => Promise<void> {
  let left = LINES_PER_TURN
  let nextTurn: Promise<void> | undefined

  return async (line) => {
    while (left <= 0 || out.writableNeedDrain) {
      nextTurn ??= turn()
      await nextTurn
    }
    left -= Math.max(1, Math.ceil(line.length / USUAL_LENGTH))
    out.write(`${printable(line)}\n`)
  }

  async function turn(): Promise<void> {
    // Rejected if `out` fails: then the next write reports that.
    if (out.writableNeedDrain) await once(out, 'drain').catch(() => {})
    await eventLoopTurn()
    left = LINES_PER_TURN
    nextTurn = undefined
  }
}

/**
 * Copies `input` to `out`: byte for byte, but line by line through printable()
 * if `out` is a terminal, on which bytes that a client sends could act.
 */
export async function show(
  input: Readable,
  out: Writable & { readonly isTTY?: boolean },
): Promise<void> {
  if (!out.isTTY) return pipeline(input, out, { end: false })
  const print = linePrinter(out)
  for await (const line of linesOf(input)) await print(line)
}

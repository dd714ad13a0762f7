// Printing line by line what others have sent, safely for a terminal, and never
// more than the reader of the output takes.
// Read next: lib/script/printable.ts.

import { once } from 'node:events'
import type { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

import { linesOf } from './lines.ts'
import { printable } from './printable.ts'

/**
 * A function that prints one line on `out`, by way of printable(). It resolves
 * when the caller may print its next line: await it in a loop over lines that a
 * client sends. It never rejects: errors of `out` are for the listeners of its
 * 'error' event.
 */
export function linePrinter(out: Writable): (line: string) => Promise<void> {
  let drained: Promise<void> | undefined

  return async (line) => {
    while (out.writableNeedDrain) {
      drained ??= drain(out)
      await drained
      drained = undefined
    }
    out.write(`${printable(line)}\n`)
  }
}

// If `out` fails, the next write reports that.
async function drain(out: Writable): Promise<void> {
  await once(out, 'drain').catch(() => {})
}

/**
 * Copies `input` to `out`: byte for byte, but line by line through printable()
 * if `out` is a terminal, on which bytes that a client sends could act.
 */
export async function show(
  input: AsyncIterable<Buffer>,
  out: Writable & { readonly isTTY?: boolean },
): Promise<void> {
  if (!out.isTTY) return pipeline(input, out, { end: false })
  const print = linePrinter(out)
  for await (const line of linesOf(input)) await print(line)
}

// Text lines from a stream of bytes, in constant memory. node:readline would
// do, but for a peer that never ends its line: readline keeps all of it until
// the string is too long, and then throws where no caller can catch it.
// Read next: lib/script/job.ts.

import { StringDecoder } from 'node:string_decoder'

import { isPrintable } from './printable.ts'

/** Characters. A longer line comes in pieces of at least this length. */
const LONGEST_LINE = 2 * 1024 * 1024

/**
 * Characters of all lines that are not complete, of all inputs. While there are
 * more, a line comes in pieces as soon as it is longer than its share.
 */
const MAX_HELD = 16 * 1024 * 1024
const SHARE = 16 * 1024
let held = 0

/** Parts of a line that are kept apart: each takes some memory of its own. */
const MAX_PARTS = 256

/** The same for what is no text: to show a control character takes 100 times
 * as long as to copy a letter, and a sparse file has gigabytes of them. */
const LONGEST_PIECE = 1024

/**
 * The lines, without their `\n` or `\r\n`. The last one may lack it. A long
 * line with control characters comes in pieces, too.
 */
export async function* linesOf(
  bytes: AsyncIterable<Buffer>,
  longest = LONGEST_LINE,
): AsyncGenerator<string, void, void> {
  // A character may be cut between two reads.
  const decoder = new StringDecoder('utf8')
  let parts: string[] = []
  let length = 0
  const hold = (part: string): void => {
    parts.push(part)
    if (parts.length > MAX_PARTS) parts = [parts.join('')]
    length += part.length
    held += part.length
  }
  const take = (): string => {
    const line = parts.join('')
    parts = []
    held -= length
    length = 0
    return line
  }
  try {
    for await (const chunk of bytes) {
      const [first = '', ...others] = decoder.write(chunk).split('\n')
      hold(first)
      for (const next of others) {
        const line = take()
        yield* pieces(line.endsWith('\r') ? line.slice(0, -1) : line)
        hold(next)
      }
      const isTooMuch = held > MAX_HELD && length > SHARE
      if (length > longest || isTooMuch) yield* pieces(take())
    }
    hold(decoder.end())
    const line = take()
    if (line !== '') yield* pieces(line)
  } finally {
    take()
  }
}

function* pieces(line: string): Generator<string, void, void> {
  if (line.length <= LONGEST_PIECE || isPrintable(line)) return yield line
  for (let at = 0; at < line.length; at += LONGEST_PIECE) {
    yield line.slice(at, at + LONGEST_PIECE)
  }
}

// Text lines from a stream of bytes, in constant memory. node:readline would
// do, but for a peer that never ends its line: readline keeps all of it until
// the string is too long, and then throws where no caller can catch it.
// Read next: lib/script/job.ts.

import { StringDecoder } from 'node:string_decoder'

import { isPrintable } from './printable.ts'

/** Characters. A longer line comes in pieces of at least this length. */
const LONGEST_LINE = 2 * 1024 * 1024

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
  let line = ''
  for await (const chunk of bytes) {
    const [first = '', ...others] = decoder.write(chunk).split('\n')
    line += first
    for (const next of others) {
      yield* pieces(line.endsWith('\r') ? line.slice(0, -1) : line)
      line = next
    }
    if (line.length > longest) {
      yield* pieces(line)
      line = ''
    }
  }
  line += decoder.end()
  if (line !== '') yield* pieces(line)
}

function* pieces(line: string): Generator<string, void, void> {
  if (line.length <= LONGEST_PIECE || isPrintable(line)) return yield line
  for (let at = 0; at < line.length; at += LONGEST_PIECE) {
    yield line.slice(at, at + LONGEST_PIECE)
  }
}

// Lines as people type them, and as nobody does.

import { t } from 'tap'

import { linesOf } from '../../../lib/script/lines.ts'

async function collect(
  chunks: (string | Buffer)[],
  longest?: number,
): Promise<string[]> {
  const lines: string[] = []
  const bytes = async function* (): AsyncGenerator<Buffer> {
    for (const chunk of chunks) yield Buffer.from(chunk)
  }
  for await (const line of linesOf(bytes(), longest)) lines.push(line)
  return lines
}

t.test('linesOf() splits as people type', async (t) => {
  t.strictSame(await collect([]), [])
  t.strictSame(await collect(['one\ntwo\n']), ['one', 'two'])
  t.strictSame(await collect(['o', 'n', 'e\r', '\ntwo']), ['one', 'two'])
  t.strictSame(await collect(['\n\n', 'x\n']), ['', '', 'x'])
  t.strictSame(await collect(['a\rb\n']), ['a\rb'], 'a lone CR stays')
  const euro = Buffer.from('€\n')
  t.strictSame(await collect([euro.subarray(0, 1), euro.subarray(1)]), ['€'])
  t.strictSame(await collect([euro.subarray(0, 2)]), ['\ufffd'], 'cut for good')
  const megabyte = 'x'.repeat(1024 * 1024)
  t.strictSame(await collect([megabyte, `${megabyte}\ny`]), [
    megabyte + megabyte,
    'y',
  ])
})

t.test('linesOf() cuts a long line that is no text', async (t) => {
  const zeros = '\0'.repeat(1024)
  t.strictSame(await collect([`${zeros}\n`]), [zeros])
  t.strictSame(await collect([`${zeros}${zeros}x\na\n`]), [
    ...[zeros, zeros, 'x'],
    'a',
  ])
  t.strictSame(await collect([zeros, zeros]), [zeros, zeros])
  t.strictSame(await collect([zeros, zeros, 'x\n'], 2000), [zeros, zeros, 'x'])
  const tabs = '\t'.repeat(2000)
  t.strictSame(await collect([tabs]), [tabs])
})

t.test('linesOf() hands out an endless line in pieces', async (t) => {
  t.strictSame(await collect(['abc', 'def', 'ghi\nx'], 4), [
    'abcdef',
    'ghi',
    'x',
  ])
})

t.test('linesOf() puts a line together that comes byte by byte', async (t) => {
  const line = '0123456789'.repeat(1000)
  t.strictSame(await collect([...line, '\n', 'x']), [line, 'x'])
})

t.test('linesOf() holds little of many lines that do not end', async (t) => {
  // As clients send them who want the server to run out of memory.
  const chunk = Buffer.alloc(64 * 1024, 'x')
  let sent = 0
  let printed = 0
  let mostHeld = 0
  const unfinished = Array.from({ length: 400 }, () => {
    const input = async function* () {
      for (let i = 0; i < 8; i++) {
        sent += chunk.length
        yield chunk
        mostHeld = Math.max(mostHeld, sent - printed)
      }
    }
    return (async () => {
      for await (const piece of linesOf(input())) printed += piece.length
    })()
  })
  await Promise.all(unfinished)
  t.equal(printed, sent, 'all of it is printed in the end')
  t.ok(mostHeld < 64 * 1024 * 1024, `${mostHeld} of ${sent} held at a time`)
  const line = 'y'.repeat(1024 * 1024)
  t.strictSame(await collect([line, '\n']), [line], 'nothing is counted still')
})

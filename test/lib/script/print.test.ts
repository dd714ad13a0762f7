// linePrinter(): a full or failing stream. show(): where to.

import { once } from 'node:events'
import { PassThrough, Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { setImmediate as eventLoopTurn } from 'node:timers/promises'
import { t } from 'tap'

import { linePrinter, show } from '../../../lib/script/print.ts'

t.test('linePrinter() prints one printable line', async (t) => {
  const out = new PassThrough()
  await linePrinter(out)('a\rb\nc \x1b[2J €')
  t.equal(`${out.read()}`, 'a\\rb\\nc \\u001b[2J €\n')
})

t.test('linePrinter() waits while the stream is full', async (t) => {
  const out = new PassThrough({ highWaterMark: 10 })
  const print = linePrinter(out)
  await print('longer than the mark')
  let isPrinted = false
  const second = print('second').then(() => {
    isPrinted = true
  })
  for (let i = 0; i < 5; i++) await eventLoopTurn()
  t.notOk(isPrinted)
  t.equal(`${out.read()}`, 'longer than the mark\n')
  await second
  t.equal(`${out.read()}`, 'second\n')
})

t.test('linePrinter() does not reject when the stream fails', async (t) => {
  const failure = new Error('write EPIPE')
  const out = new Writable({
    highWaterMark: 1,
    write: (_chunk, _encoding, callback) => {
      setImmediate(callback, failure)
    },
  })
  const failed = once(out, 'close').catch((error) => error)
  const print = linePrinter(out)
  await print('first')
  await print('second')
  t.equal(await failed, failure)
})

t.test('show() copies bytes, but not to a terminal', async (t) => {
  const bytes = Buffer.from('a\x1b[2Jb\r\n\xff', 'latin1')
  const file = new PassThrough()
  await show(Readable.from([bytes]), file)
  t.same(file.read(), bytes)
  t.notOk(file.writableEnded)

  const terminal = Object.assign(new PassThrough(), { isTTY: true })
  await show(Readable.from([bytes]), terminal)
  t.equal(await text(terminal.end()), 'a\\u001b[2Jb\n\ufffd\n')
})

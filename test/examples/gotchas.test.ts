import { readdirSync } from 'node:fs'
import t from 'tap'

import { run, script } from '../support/processes.ts'
import { tellsUsage } from './support.ts'

const FOLDER = 'examples/gotchas'
const SHARED = ['all.ts', 'gotcha.ts', 'limited.ts', 'tcp-pair.ts']

const gotchas = readdirSync(FOLDER).filter((file) => !SHARED.includes(file))

for (const file of gotchas) {
  t.test(`${file} observes what it claims`, async (t) => {
    const result = await run(t, script(`${FOLDER}/${file}`))
    const [verdict = '', claim = '', expected, observed = ''] = result.stdout
      .trimEnd()
      .split(' | ')
    t.equal(result.stderr, '')
    t.equal(result.code, 0)
    if (verdict === 'skipped') {
      t.pass(claim, { skip: observed })
      return
    }
    t.equal(verdict, 'holds')
    t.equal(observed, expected ?? '')
  })
}

// The others have their options from gotcha.ts as one-byte.ts has, and
// launch.test.ts asks each for --help.
for (const file of ['all.ts', 'truncation.ts', 'one-byte.ts']) {
  t.test(`${file} exits 2 for what it has not`, (t) => {
    return tellsUsage(t, `${FOLDER}/${file}`, ['--nope'])
  })
}

t.test('--help says what is tried: the comment at the beginning', async (t) => {
  const { stdout } = await run(t, script(`${FOLDER}/one-byte.ts`, '--help'))
  t.match(stdout, '\nDescriptors go with a byte of data. On Linux')
  t.notMatch(stdout, /^\/\/|import|holds/m)
  const more = await run(t, script(`${FOLDER}/one-byte.ts`, 'more'))
  t.match(more, { code: 2, stdout: '', stderr: /Unexpected argument 'more'/ })
})

t.test('truncation.ts --room lets the reader choose the room', async (t) => {
  for (const [room, kept] of [
    ['16', 0],
    ['20', 1],
    ['24', 2],
    ['32', 3],
  ] as const) {
    const command = script(`${FOLDER}/truncation.ts`, '--room', room)
    const { code, stdout } = await run(t, command)
    t.equal(code, 0)
    t.match(stdout, `| ${kept} descriptors, MSG_CTRUNC ${kept < 3}\n`)
  }
})

t.test('truncation.ts exits 2 for what is no number of bytes', async (t) => {
  for (const room of ['x', '', '65537']) {
    const command = script(`${FOLDER}/truncation.ts`, '--room', room)
    const { code, stdout, stderr } = await run(t, command)
    t.equal(code, 2)
    t.equal(stdout, '')
    t.match(stderr, /^truncation\.ts: Expected BYTES .*\nUsage: /)
  }
})

t.test(
  'all.ts runs those that are named, and says what came out',
  async (t) => {
    const { code, stdout } = await run(
      t,
      script(`${FOLDER}/all.ts`, 'one-byte', 'glued'),
    )
    t.equal(code, 0)
    t.match(
      stdout,
      /^holds {4}at least one byte must go along {2}\(one-byte\.ts\)$/m,
    )
    t.match(stdout, /^All 2 came out as expected$/m)
    const other = await run(t, script(`${FOLDER}/all.ts`, 'nothing'))
    t.equal(other.code, 2)
    t.match(other.stderr, /Expected some of .*one-byte.*, got nothing/)
    const unsafe = await run(t, script(`${FOLDER}/all.ts`, '\u009b2J\r'))
    t.match(unsafe.stderr, 'got \\u009b2J\\r\n')
  },
)

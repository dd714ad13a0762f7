import t from 'tap'

import { run, script } from '../support/processes.ts'
import { tellsUsage } from './support.ts'

t.test('bare.ts reads a file through the number it received', async (t) => {
  const { code, stdout, stderr } = await run(t, script('examples/bare.ts'))
  t.equal(stderr, '')
  t.equal(code, 0)
  const line =
    /^Sent fd (\d+), received fd (\d+), which reads: (#!\/bin\/sh)\n$/
  const [, sent, received] = stdout.match(line) ?? []
  t.ok(sent !== undefined && received !== undefined, stdout)
  t.not(sent, received)
})

t.test('bare.ts takes no arguments', (t) => {
  return tellsUsage(t, 'examples/bare.ts', ['--nope'], ['more'])
})

// examples/socketpair, run as a user runs it.

import { readdirSync } from 'node:fs'
import { t } from 'tap'
import { temporaryFolder } from '../support/folder.ts'
import { plainEnv, Running, run, script } from '../support/processes.ts'
import { tellsUsage } from './support.ts'

const PARENT = 'examples/socketpair/parent.ts'
const CHILD = 'examples/socketpair/child.ts'

t.test(
  'two processes share one offset, and each its descriptors',
  async (t) => {
    const folder = temporaryFolder(t)
    const env = plainEnv({ TMPDIR: folder, TSX_DISABLE_CACHE: '1' })
    const parent = await run(t, script(PARENT), { env })
    t.match(parent, { code: 0, stderr: '' })
    // Without the numbers, which are of no account.
    const story = parent.stdout.replace(/fd \d+/g, 'fd').replace(/ \d+:/g, ':')
    t.same(story.trimEnd().split('\n'), [
      'parent: opened the file as fd',
      'parent: read "offset 00" through fd',
      'parent: passes fd to the child',
      'child: received fd',
      'child: read "offset 10" through fd: where the parent had stopped',
      'parent: read "offset 20" through fd: the child has moved our offset',
      'parent: closed fd',
      'child: read "offset 30" through fd: closed there, open here',
      'child: opened the file itself as fd',
      'child: read "offset 00" through fd: an offset of its own',
      'child: passes fd to the parent',
      'parent: received fd',
      'parent: read "offset 10" through fd: the child\'s other offset',
    ])
    const pids = parent.stdout.match(/^\w+ \d+/gm)
    t.equal(new Set(pids).size, 2, 'two processes')
    t.same(readdirSync(folder), [], 'nothing is left behind')
  },
)

t.test('the child is not to be started by hand', async (t) => {
  const child = await run(t, script(CHILD, 'file'))
  t.match(child, { code: 1, stdout: '' })
  t.match(child.stderr, /^child.ts: Expected a socket as fd 3: start parent.ts/)
})

t.test('each notices when the other hangs up', async (t) => {
  // A parent that is gone: fd 3 is a socket whose other end is closed.
  const orphan = new Running(t, script(CHILD, 'file'), {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  })
  orphan.child.stdio[3]?.destroy()
  t.match(await orphan.exit, { code: 1 })
  t.match(orphan.stderr, /Expected a message of the parent, got a hang-up/)
})

t.test('a wrong command line', async (t) => {
  for (const name of [PARENT, CHILD]) {
    await tellsUsage(t, name, ['a', 'b'])
  }
})

// Each script by its own name: from another folder, before the packages are
// installed, and with output that nobody reads.

import { cpSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { t } from 'tap'

import { missing, plainEnv, run, temporaryFolder } from './support.ts'

// Those with a first line that says what runs them.
const scripts = ['.', 'examples', 'test', 'bench'].flatMap((folder) =>
  readdirSync(folder, { recursive: folder !== '.' })
    .map((file) => join(folder, String(file)))
    .filter((file) => file.endsWith('.ts') && !/node_modules/.test(file))
    .filter((file) => readFileSync(file, 'utf8').startsWith('#!')),
)

const withUsage = scripts.filter((file) =>
  readFileSync(file, 'utf8').includes('Usage: '),
)

t.test('every script runs from another folder', async (t) => {
  t.ok(withUsage.includes('server.ts') && withUsage.length > 20)
  const cwd = temporaryFolder(t)
  for (const file of withUsage) {
    const { stdout, stderr } = await run(t, [resolve(file), '--help'], { cwd })
    t.equal(stderr, '', file)
    const called = stdout.replace('Usage: ./', 'Usage: ').split(/\s/)[1]
    t.equal(called, file, 'as it is called from the root')
  }
})

t.test('before make, every script says what to do', async (t) => {
  // A name that is not the same in a URL.
  const root = join(temporaryFolder(t), 'a copy, 100% #1')
  const files = ['package.json', 'lib', ...scripts]
  for (const file of files) cpSync(file, join(root, file), { recursive: true })
  for (const file of scripts) {
    const { code, stdout, stderr } = await run(t, [join(root, file)])
    t.equal(code, 1, file)
    t.equal(stdout, '')
    const expected = 'Expected the packages, got none: run make in'
    t.equal(stderr, `${basename(file)}: ${expected} ${root}\n`)
  }
  cpSync('node_modules', join(root, 'node_modules'), {
    recursive: true,
    filter: (file) =>
      /^node_modules(\/(tsx|esbuild|ffi-rs|@esbuild|@yuuang)(\/|$)|$)/.test(
        file,
      ),
  })
  const { stdout } = await run(t, [join(root, 'server.ts'), '--help'])
  t.match(stdout, 'Usage: ./server.ts [SOCKET]')
})

t.test('without Node, a script says so', async (t) => {
  const folder = temporaryFolder(t)
  const sh = ['/bin/sh', resolve('lib/script/run'), resolve('server.ts')]
  const env = plainEnv({ PATH: folder })
  const { code, stderr } = await run(t, sh, { env })
  t.equal(code, 1)
  t.equal(stderr, 'server.ts: Expected node in PATH, got none\n')
})

t.test(
  'the demo ends when nobody reads it',
  { skip: missing('head', 'make') },
  async (t) => {
    const folder = temporaryFolder(t)
    const env = plainEnv({ TMPDIR: folder })
    const { stdout, stderr } = await run(
      t,
      ['sh', '-c', 'node --import tsx test/demo.ts | head -1'],
      { env },
    )
    t.match(stdout, /^server \| Server ready on .*\n$/)
    t.equal(stderr, '')
    t.strictSame(
      readdirSync(folder).filter((name) => /fdpass/.test(name)),
      [],
    )
  },
)

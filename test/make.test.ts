// make, as somebody runs it who has cloned the repository: what it installs,
// what it leaves alone, and that it does without a network.

import {
  cpSync,
  existsSync,
  mkdirSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { temporaryFolder } from './support/folder.ts'
import { missing } from './support/missing.ts'
import { plainEnv, run } from './support/processes.ts'

const skip = missing('make', 'npm')

/** A folder with what make and npm read. */
function clone(t: Test): { cwd: string; env: NodeJS.ProcessEnv } {
  const cwd = temporaryFolder(t)
  const files = ['Makefile', '.taprc', 'package.json', 'package-lock.json']
  for (const file of [...files, 'lib/script/package.json'])
    cpSync(file, join(cwd, file))
  return { cwd, env: plainEnv({ MAKEFLAGS: undefined, MAKELEVEL: undefined }) }
}

/** As npm leaves it, with what `packages` names, newer than the lock file. */
function pretendInstalled(cwd: string, ...packages: string[]): void {
  for (const name of packages)
    mkdirSync(join(cwd, 'node_modules', name), { recursive: true })
  writeFileSync(join(cwd, 'node_modules/.package-lock.json'), '{}')
}

/** The test runner, as .taprc wants it. */
function pretendBuilt(cwd: string): void {
  mkdirSync(join(cwd, '.tap/plugins'), { recursive: true })
  writeFileSync(join(cwd, '.tap/plugins/package.json'), '{}')
}

/** Has the lock file changed since, as after `git pull`. */
function changeLockFile(cwd: string): void {
  const later = Date.now() / 1000 + 60
  utimesSync(join(cwd, 'package-lock.json'), later, later)
}

const noCut = process.getuid?.() !== 0 ? 'only root can' : missing('unshare')

// npm would ask the registry for each package three times, for minutes in all.
t.test(
  'make without a network takes what npm has in its cache',
  { skip: skip || noCut, timeout: 60_000 },
  async (t) => {
    const { cwd, env } = clone(t)
    // Into the cache, if there is a network.
    const filled = await run(t, ['make', '--silent'], { cwd, env })
    if (filled.code !== 0) {
      t.pass('npm has no cache, and no registry', { skip: true })
      return
    }
    rmSync(join(cwd, 'node_modules'), { recursive: true })
    const cut = ['unshare', '--net', 'make', '--silent']
    const { code, stderr } = await run(t, cut, { cwd, env })
    t.equal(code, 0, stderr)
    t.ok(existsSync(join(cwd, 'node_modules/tsx/package.json')))
    t.notOk(existsSync(join(cwd, 'node_modules/tap')), 'not for running')
    const again = await run(t, ['make', '--question'], { cwd, env })
    t.equal(again.code, 0, 'nothing is left to do')
  },
)

t.test('make leaves what npm ci has installed', { skip }, async (t) => {
  const { cwd, env } = clone(t)
  pretendInstalled(cwd, 'tap', 'tsx')
  const leaves = await run(t, ['make', '--question'], { cwd, env })
  t.equal(leaves.code, 0)

  changeLockFile(cwd)
  const { stdout } = await run(t, ['make', '--dry-run'], { cwd, env })
  t.match(stdout, /^npm ci .*/)
  t.notMatch(stdout, 'omit=dev')
})

t.test('make check installs what development needs', { skip }, async (t) => {
  const { cwd, env } = clone(t)
  pretendInstalled(cwd, 'tsx')
  const check = ['make', '--dry-run', 'check']
  const { stdout } = await run(t, check, { cwd, env })
  t.match(stdout, /^npm ci .*\nnpm run --silent check\n$/)
  t.notMatch(stdout, 'omit=dev')
  pretendInstalled(cwd, 'tap')
  const again = await run(t, check, { cwd, env })
  t.equal(again.stdout, 'npm run --silent check\n')
})

t.test('make test FILE=… runs one file, and no gate', { skip }, async (t) => {
  const { cwd, env } = clone(t)
  pretendInstalled(cwd, 'tap', 'tsx')
  const file = 'test/lib/cmsg.test.ts'
  const command = ['make', '--dry-run', 'test', `FILE=${file}`]
  const first = await run(t, command, { cwd, env })
  t.match(first.stdout, /^node_modules\/\.bin\/tap build\n/, 'of a new clone')
  pretendBuilt(cwd)
  const { stdout } = await run(t, command, { cwd, env })
  const options = '--disable-coverage --allow-empty-coverage'
  t.equal(stdout, `node_modules/.bin/tap ${options} ${file}\n`)
})

// The package with the tools that users have: bundlers, test runners, package
// managers, and what looks for mistakes in a package. docs/loaders.md has what
// comes out as a table. The tools are installed once, into .cache/package-tools.

import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { type Test, t } from 'tap'

import { temporaryFolder } from './support/folder.ts'
import { missing } from './support/missing.ts'
import { plainEnv, run } from './support/processes.ts'

const wanted = readFileSync('test/package-tools/package.json', 'utf8')
const versions: Record<string, string> = JSON.parse(wanted).dependencies
const cache = resolve('.cache/package-tools')
const record = join(cache, 'installed.json')
const env = plainEnv()

/** Nothing here may take longer: a registry that does not answer. In ms. */
const LONGEST = 300_000

function npm(cwd: string, ...args: string[]) {
  const quiet = ['--prefer-offline', '--no-audit', '--no-fund', '--silent']
  const options = { cwd, env, encoding: 'utf8', timeout: LONGEST } as const
  return spawnSync('npm', [...args, ...quiet], options)
}

function installTools(): string | false {
  const without = missing('npm', 'tar')
  if (without) return without
  if (existsSync(record) && readFileSync(record, 'utf8') === wanted)
    return false
  rmSync(cache, { recursive: true, force: true })
  mkdirSync(cache, { recursive: true })
  writeFileSync(join(cache, 'package.json'), wanted)
  const { status } = npm(cache, 'install', '--ignore-scripts')
  if (status !== 0) return 'the tools cannot be had from the registry'
  writeFileSync(record, wanted)
  return false
}

const skip = installTools()

// In the cache folder, so that what runs here finds the tools.
if (skip) mkdirSync(cache, { recursive: true })
const folder = mkdtempSync(join(cache, 'run-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
const packed = skip ? null : npm('.', 'pack', '--pack-destination', folder)
const tarball = join(folder, packed?.stdout.trim().split('\n').at(-1) ?? '')

/** A tool by its name, as a user calls it. */
function tool(name: string, ...args: string[]): string[] {
  return [join(cache, 'node_modules/.bin', name), ...args]
}

/** A new project with the package in it, and with what `files` gives by name. */
async function project(
  t: Test,
  files: Readonly<Record<string, string>>,
): Promise<string> {
  const cwd = mkdtempSync(join(folder, 'project-'))
  const modules = join(cwd, 'node_modules')
  mkdirSync(join(modules, 'fdpass'), { recursive: true })
  const into = ['-C', join(modules, 'fdpass'), '--strip-components=1']
  await run(t, ['tar', 'xzf', tarball, ...into])
  for (const name of ['ffi-rs', '@yuuang'])
    symlinkSync(resolve('node_modules', name), join(modules, name))
  for (const [file, text] of Object.entries(files))
    writeFileSync(join(cwd, file), text)
  return cwd
}

const TEXT = 'passed on'

/** Sends a file, and reads it through the descriptor that comes. */
const passing = `
async function passOn(file) {
  writeFileSync(file, '${TEXT}')
  const [one, other] = socketpair()
  const fd = openSync(file, 'r')
  await one.sendFds('a file', [fd])
  closeSync(fd)
  const { fds } = await other.recvFds()
  let text = ''
  for await (const chunk of readableFrom(fds[0])) text += chunk
  one.close()
  other.close()
  return text
}
`
const imports = `import { closeSync, openSync, writeFileSync } from 'node:fs'
import { readableFrom, socketpair } from 'fdpass'
${passing}`
const requires = imports.replace(
  /import (\{.*\}) from ('.*')/g,
  'const $1 = require($2)',
)
const tell = "passOn('file').then(console.log)\n"
const esm = '{"type":"module"}'

/** Runs a program that a bundler has made, in `cwd`. */
async function passes(t: Test, cwd: string, file: string): Promise<void> {
  const { stdout, stderr } = await run(t, [process.execPath, file], {
    cwd,
    env,
  })
  t.equal(stdout, `${TEXT}\n`, stderr)
}

/** Runs a tool that has to succeed. */
async function succeeds(t: Test, command: string[], cwd: string) {
  const result = await run(t, command, { cwd, env, timeout: LONGEST })
  t.equal(result.code, 0, `${result.stdout}\n${result.stderr}`)
  return result
}

t.test('docs/loaders.md names the versions', async (t) => {
  const text = readFileSync('docs/loaders.md', 'utf8')
  for (const [name, version] of Object.entries(versions))
    t.ok(text.includes(`${name} ${version}`), `${name} ${version}`)
})

for (const [name, main, format, file] of [
  ['modules', imports, 'esm', 'out.mjs'],
  ['CommonJS, from import', imports, 'cjs', 'out.cjs'],
  ['CommonJS, from require', requires, 'cjs', 'out.cjs'],
] as const) {
  t.test(`esbuild to ${name}`, { skip }, async (t) => {
    const cwd = await project(t, { 'main.js': main + tell })
    const options = ['--bundle', '--platform=node', `--format=${format}`]
    const command = [...options, `--outfile=${file}`]
    await succeeds(t, tool('esbuild', 'main.js', ...command), cwd)
    await passes(t, cwd, file)
  })
}

t.test('a bundle without ffi-rs beside it says so', { skip }, async (t) => {
  const cwd = await project(t, { 'main.js': imports + tell })
  const options = ['--bundle', '--platform=node', '--outfile=out.cjs']
  await succeeds(t, tool('esbuild', 'main.js', ...options), cwd)
  const elsewhere = temporaryFolder(t)
  copyFileSync(join(cwd, 'out.cjs'), join(elsewhere, 'out.cjs'))
  const { code, stderr } = await run(t, [process.execPath, 'out.cjs'], {
    cwd: elsewhere,
    env: plainEnv({ FDPASS_FFI: 'ffi-rs' }),
  })
  t.equal(code, 1)
  t.match(
    stderr,
    "Cannot find module 'ffi-rs', which has to be installed where the program runs, beside a bundle too\n",
  )
})

// Three builds in one run. Only the first is minimized, which takes longest.
t.test('webpack to CommonJS and to modules', { skip }, async (t) => {
  const outputs = [
    ['./import.js', "filename: 'import.cjs'"],
    ['./require.js', "filename: 'require.cjs'"],
    ['./import.js', "filename: 'import.mjs', module: true"],
  ]
  const configs = outputs.map(
    ([entry, output], index) => `{
      mode: 'production', target: 'node', entry: '${entry}',
      optimization: { minimize: ${index === 0} },
      output: { path: __dirname, ${output} },
      experiments: { outputModule: true },
    }`,
  )
  const cwd = await project(t, {
    'import.js': imports + tell,
    'require.js': requires + tell,
    'webpack.config.cjs': `module.exports = [${configs}]`,
  })
  const { stdout } = await succeeds(t, tool('webpack'), cwd)
  t.equal(stdout.match(/compiled successfully/g)?.length, outputs.length)
  const files = ['import.cjs', 'require.cjs', 'import.mjs']
  for (const file of files) await passes(t, cwd, file)
  // Where this file was at build time is written into it.
  rmSync(join(cwd, 'node_modules/fdpass'), { recursive: true })
  for (const file of files) await passes(t, cwd, file)
})

t.test('rollup to modules and to CommonJS', { skip }, async (t) => {
  const config = `export default { input: 'main.mjs', output: [
    { format: 'es', file: 'out.mjs' }, { format: 'cjs', file: 'out.cjs' },
  ] }`
  const files = { 'main.mjs': imports + tell, 'rollup.config.mjs': config }
  const cwd = await project(t, files)
  const plugins = ['-p', 'node-resolve', '-p', 'commonjs']
  await succeeds(t, tool('rollup', '-c', ...plugins), cwd)
  for (const file of ['out.mjs', 'out.cjs']) await passes(t, cwd, file)
})

t.test('tsup', { skip }, async (t) => {
  const cwd = await project(t, { 'main.ts': imports + tell })
  const options = ['--format', 'cjs,esm', '--no-config', '--silent']
  await succeeds(t, tool('tsup', 'main.ts', ...options), cwd)
  for (const file of ['dist/main.js', 'dist/main.mjs']) {
    const text = readFileSync(join(cwd, file), 'utf8')
    t.notMatch(text, /(require\(|from )"fdpass"/, 'the package is in it')
    await passes(t, cwd, file)
  }
})

/** A test file for vitest or Jest. */
const testFile = (head: string): string => `${head}
test('passOn()', async () => {
  expect(await passOn('file')).toBe('${TEXT}')
})
`

// One run, as it is the start of vitest that takes long. Of each pool two files:
// the first may end with a thread that the second needs.
t.test('vitest with each of its pools', { skip }, async (t) => {
  const pools = ['forks', 'threads', 'vmThreads', 'vmForks']
  const texts = pools.flatMap((pool) =>
    ['a', 'b'].map((name) => {
      const head = `import { expect, test } from 'vitest'\n${imports}`
      const text = testFile(head).replace("'file'", `'${pool}-${name}'`)
      return [`${pool}-${name}.test.js`, text] as const
    }),
  )
  const projects = pools.map((pool) => ({
    test: { name: pool, pool, include: [`${pool}-*.test.js`] },
  }))
  const config = JSON.stringify({ test: { projects } })
  const cwd = await project(t, {
    ...Object.fromEntries(texts),
    'package.json': esm,
    'vitest.config.js': `export default ${config}`,
  })
  const vitest = tool('vitest', 'run', '--no-color', '--reporter=verbose')
  const { stdout, stderr } = await succeeds(t, vitest, cwd)
  t.match(stdout, /Tests {2}8 passed/)
  for (const pool of pools) t.match(stdout, `|${pool}| ${pool}-a.test.js`)
  t.notMatch(stderr, 'Warning: File descriptor')
})

const jest = ['--rootDir=.', '--no-cache', '--colors=false']
const jestConfig =
  '{"private":true,"jest":{"transform":{},"testMatch":["**/*.test.*js"]}}'
const vm = { ...env, NODE_OPTIONS: '--experimental-vm-modules' }

t.test('Jest with modules', { skip }, async (t) => {
  const cwd = await project(t, {
    'package.json': jestConfig,
    'a.test.mjs': testFile(imports),
    'b.test.cjs': testFile(
      requires
        .replace("'file'", '"b"')
        .replace(/const (.*) = require\('fdpass'\)/, '')
        .replace(
          'passOn(file) {',
          "$&\n  const { readableFrom, socketpair } = await import('fdpass')",
        ),
    ),
  })
  const command = tool('jest', ...jest)
  const { code, stderr } = await run(t, command, { cwd, env: vm })
  t.equal(code, 0, stderr)
  t.match(stderr, /Tests: +2 passed/)
})

t.test('Jest with require()', { skip }, async (t) => {
  const cwd = await project(t, {
    'package.json': jestConfig,
    'a.test.cjs': testFile(requires),
  })
  const { code, stderr } = await run(t, tool('jest', ...jest), { cwd, env })
  t.equal(code, 1)
  t.match(stderr, /Must use import to load ES Module: .*\/fdpass\//)
  t.match(stderr, 'Use Node v24.9+ where Jest supports require(esm)')
  const [major = 0] = process.versions.node.split('.').map(Number)
  if (major < 25) return
  const command = tool('jest', ...jest)
  const result = await run(t, command, { cwd, env: vm })
  t.equal(result.code, 0, result.stderr)
})

// These two ask the registry themselves. It may be another than the usual one.
const registry = skip ? '' : npm('.', 'config', 'get', 'registry').stdout.trim()
const offline =
  skip ||
  (npm('.', 'view', 'ffi-rs', 'name', '--prefer-online', '--fetch-retries=0')
    .status !== 0 &&
    'no registry answers')

t.test('pnpm', { skip: offline }, async (t) => {
  const cwd = temporaryFolder(t)
  writeFileSync(join(cwd, 'package.json'), esm)
  writeFileSync(join(cwd, 'main.js'), imports + tell)
  const options = ['--store-dir', join(cwd, 'store'), '--registry', registry]
  await succeeds(t, tool('pnpm', 'add', tarball, ...options), cwd)
  t.ok(existsSync(join(cwd, 'node_modules/.pnpm')))
  t.notOk(existsSync(join(cwd, 'node_modules/ffi-rs')), "the package's own")
  await passes(t, cwd, 'main.js')
})

t.test('Yarn, Plug and Play', { skip: offline }, async (t) => {
  const cwd = temporaryFolder(t)
  writeFileSync(join(cwd, 'package.json'), '{"name":"a","type":"module"}')
  writeFileSync(join(cwd, 'yarn.lock'), '')
  writeFileSync(
    join(cwd, '.yarnrc.yml'),
    `npmRegistryServer: ${JSON.stringify(registry.replace(/\/$/, ''))}
enableTelemetry: false
enableGlobalCache: false
nodeLinker: pnp
`,
  )
  writeFileSync(join(cwd, 'main.js'), imports + tell)
  await succeeds(t, tool('yarn', 'add', `fdpass@file:${tarball}`), cwd)
  t.notOk(existsSync(join(cwd, 'node_modules')))
  const { stdout } = await succeeds(t, tool('yarn', 'node', 'main.js'), cwd)
  t.equal(stdout, `${TEXT}\n`)
})

t.test('publint finds nothing', { skip }, async (t) => {
  const publint = tool('publint', 'run', tarball, '--strict')
  const { stdout } = await succeeds(t, publint, folder)
  t.match(stdout, 'All good!')
})

// The one rule is about require(), which Node can do from 20.19 on: see
// package.test.ts.
t.test('@arethetypeswrong/cli finds nothing', { skip }, async (t) => {
  const rules = ['--ignore-rules', 'cjs-resolves-to-esm']
  const attw = tool('attw', tarball, ...rules, '--no-emoji', '--no-color')
  const { stdout } = await succeeds(t, attw, folder)
  t.match(stdout, 'No problems found')
})

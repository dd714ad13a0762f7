// The package as its users get it: packed, installed into new projects, and
// used there to pass a descriptor. And lib/ copied into a project.

import { spawnSync } from 'node:child_process'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type Test, t } from 'tap'

import { missing } from './support/missing.ts'
import { plainEnv, Running, run } from './support/processes.ts'

const folder = mkdtempSync(join(tmpdir(), 'fd-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
const env = plainEnv()

/** Packages here, which a project needs no registry for. */
const ours = resolve('node_modules')
const tsc = [process.execPath, join(ours, 'typescript/bin/tsc')]

function npm(cwd: string, ...args: string[]) {
  const quiet = ['--prefer-offline', '--no-audit', '--no-fund', '--silent']
  const options = { cwd, env, encoding: 'utf8' } as const
  return spawnSync('npm', [...args, ...quiet], options)
}

// Packed and installed once; each project has a link to what is installed.
const noNpm = missing('npm')
const packed = noNpm ? null : npm('.', 'pack', '--pack-destination', folder)
const tarball = join(folder, packed?.stdout.trim().split('\n').at(-1) ?? '')
const home = join(folder, 'home')
mkdirSync(home)
writeFileSync(join(home, 'package.json'), '{}')
const installed = noNpm ? null : npm(home, 'install', tarball)
const skip =
  noNpm ||
  (installed?.status !== 0 &&
    'ffi-rs is neither in the cache of npm nor to be had from its registry')

/** A new project with the package, and with what `files` gives by name. */
function project(name: string, files: Readonly<Record<string, string>>) {
  const cwd = join(folder, name)
  mkdirSync(cwd)
  symlinkSync(join(home, 'node_modules'), join(cwd, 'node_modules'))
  for (const [file, text] of Object.entries(files))
    writeFileSync(join(cwd, file), text)
  return { cwd, env }
}

/** Sends a file and reads it through the descriptor that comes. */
const passing = `
const [one, other] = socketpair()
const file = openSync('package.json', 'r')
const received = other.recvFds()
setImmediate(async () => {
  await one.sendFds('a file', [file])
  closeSync(file)
  one.close()
})
received.then((message) => {
  const [fd = -1] = message?.fds ?? []
  console.log(String(message?.data), readFileSync(fd, 'utf8'))
  closeSync(fd)
  other.close()
})
`
const names = '{ closeSync, openSync, readFileSync }'
const imports = `import ${names} from 'node:fs'
import { socketpair } from 'fdpass'
`
const esm = '{"type":"module"}'

async function passes(
  t: Test,
  command: string[],
  options: { cwd: string; env: NodeJS.ProcessEnv },
): Promise<void> {
  const { code, stdout, stderr } = await run(t, command, options)
  const file = readFileSync(join(options.cwd, 'package.json'), 'utf8')
  t.equal(stdout, `a file ${file}\n`, stderr)
  t.equal(code, 0)
}

t.test('it holds what is needed to use it', { skip: noNpm }, async (t) => {
  t.equal(packed?.status, 0, packed?.stderr ?? '')
  const { stdout } = await run(t, ['tar', 'tzf', tarball])
  const files = stdout.trim().split('\n')
  const expected =
    /^package\/(dist\/[\w/-]+\.(js|d\.ts|d\.ts\.map)|lib\/[\w/-]+\.ts|(README|CHANGELOG)\.md|LICENSE|package\.json)$/
  t.strictSame(
    files.filter((file) => !expected.test(file)),
    [],
  )
  t.match(files, new Set(['package/dist/index.js', 'package/dist/index.d.ts']))
  t.notMatch(stdout, /script|test|bench/)
})

// What an editor asks for: F12 on a name that was imported.
t.test('go to definition ends in the source', { skip }, async (t) => {
  const text =
    "import { UnixConn } from 'fdpass'\nUnixConn.fromFd(3).recvFds()\n"
  const { cwd } = project('editor', { 'package.json': esm, 'main.ts': text })
  const file = join(cwd, 'main.ts')
  const tsserver = join(ours, 'typescript/bin/tsserver')
  const options = ['--disableAutomaticTypingAcquisition']
  const editor = [process.execPath, tsserver, ...options]
  const server = new Running(t, editor, { cwd, env })
  for (const [command, place] of [
    ['open', {}],
    ['definition', { line: 2, offset: 22 }],
  ] as const) {
    const request = { command, arguments: { file, ...place } }
    const message = { seq: 1, type: 'request', ...request }
    server.child.stdin?.write(`${JSON.stringify(message)}\n`)
  }
  const [answer] = await server.printed(/^\{.*"command":"definition".*\}$/m)
  const [{ file: source, start }] = JSON.parse(answer).body
  t.match(source, /\/fdpass\/lib\/conn\/conn\.ts$/)
  const line = readFileSync(source, 'utf8').split('\n')[start.line - 1]
  t.match(line, /^ {2}recvFds\(/)
})

t.test('members marked @internal are no part of the types', { skip }, (t) => {
  const conn = 'node_modules/fdpass/dist/conn/conn'
  t.match(readFileSync(join(home, `${conn}.js`), 'utf8'), /static adopt\(/)
  t.notMatch(readFileSync(join(home, `${conn}.d.ts`), 'utf8'), /\badopt\(/)
  t.end()
})

t.test('fdpass/package.json can be imported', { skip }, async (t) => {
  const source = "console.log(require('fdpass/package.json').version)"
  const options = project('json', { 'main.cjs': source })
  const { stdout } = await run(t, [process.execPath, 'main.cjs'], options)
  const { version } = JSON.parse(readFileSync('package.json', 'utf8'))
  t.equal(stdout, `${version}\n`)
})

// npm makes URLs of the relative links and pictures in README.md by what
// package.json has as repository. Without it they would lead nowhere.
t.test('it is not published without repository', { skip: noNpm }, async (t) => {
  const cwd = join(folder, 'publish')
  mkdirSync(cwd)
  const contents = JSON.parse(readFileSync('package.json', 'utf8'))
  const prepublish = async (repository: object | undefined) => {
    const text = JSON.stringify({ ...contents, repository, workspaces: [] })
    writeFileSync(join(cwd, 'package.json'), text)
    const command = ['npm', 'run', '--silent', 'prepublishOnly']
    return await run(t, command, { cwd, env })
  }
  t.match(await prepublish(undefined), {
    code: 1,
    stderr: /^Expected repository in package.json, got none: /,
  })
  const url = 'git+https://example.org/fdpass.git'
  t.match(await prepublish({ type: 'git', url }), { code: 0, stderr: '' })
})

t.test('it brings ffi-rs and nothing else', { skip }, async (t) => {
  const { stdout } = await run(t, ['ls', join(home, 'node_modules')])
  t.equal(stdout, '@yuuang\nfdpass\nffi-rs\n')
})

t.test('import', { skip }, async (t) => {
  const files = { 'package.json': esm, 'main.js': imports + passing }
  await passes(t, [process.execPath, 'main.js'], project('esm', files))
})

const noRequire =
  !('require_module' in process.features) && 'Node 20.19 can require modules'

t.test('require', { skip: skip || noRequire }, async (t) => {
  const source = `const ${names} = require('node:fs')
const { socketpair } = require('fdpass')
${passing}`
  const files = { 'package.json': '{}', 'main.js': source }
  await passes(t, [process.execPath, 'main.js'], project('cjs', files))
})

// Types of each Node from one installation, by other names.
const versions = [20, 22, 24, 26]
const aliases = versions.map(
  (version) => `types-${version}@npm:@types/node@${version}`,
)
const types = join(folder, 'types')
mkdirSync(types)
writeFileSync(join(types, 'package.json'), '{}')
const noTypes =
  skip ||
  (npm(types, 'install', tarball, ...aliases).status !== 0 &&
    '@types/node is neither in the cache of npm nor to be had')

for (const version of versions) {
  const name = `TypeScript with @types/node ${version}`
  t.test(name, { skip: noTypes, timeout: 600_000 }, async (t) => {
    const files = { 'package.json': esm, 'main.ts': imports + passing }
    const { cwd } = project(`types-${version}`, files)
    rmSync(join(cwd, 'node_modules'))
    const modules = join(cwd, 'node_modules')
    mkdirSync(join(modules, '@types'), { recursive: true })
    for (const [name, from] of [
      ['@types/node', `types-${version}`],
      ['fdpass', 'fdpass'],
      ['ffi-rs', 'ffi-rs'],
      ['@yuuang', '@yuuang'],
    ] as const) {
      symlinkSync(join(types, 'node_modules', from), join(modules, name))
    }
    t.match(await run(t, [...tsc, '--init'], { cwd, env }), { code: 0 })
    // With declarations checked as well, a name that is missing in one is an
    // error and not the type any. That takes seconds, so only for the newest.
    const all = ['--skipLibCheck', 'false', '--lib', 'esnext']
    const check = version === 26 ? [...tsc, ...all] : tsc
    t.match(await run(t, check, { cwd, env }), { code: 0, stdout: '' })
    await passes(t, [process.execPath, 'main.js'], { cwd, env })
  })
}

// What a copy takes: ffi-rs, "type": "module", one option for the compiler, and
// Node 22.18 or tsx.
t.test('lib/ in a copy', { skip, timeout: 600_000 }, async (t) => {
  const source = `${imports.replace('fdpass', './lib/index.ts')}${passing}`
  const files = { 'package.json': esm, 'main.ts': source }
  const { cwd } = project('copy', files)
  cpSync('lib', join(cwd, 'lib'), { recursive: true })
  rmSync(join(cwd, 'node_modules'))
  mkdirSync(join(cwd, 'node_modules'))
  for (const name of ['ffi-rs', 'tsx', '@types'])
    symlinkSync(join(ours, name), join(cwd, 'node_modules', name))
  t.match(await run(t, [...tsc, '--init'], { cwd, env }), { code: 0 })
  const options = ['--noEmit', '--allowImportingTsExtensions']
  const check = await run(t, [...tsc, ...options], { cwd, env })
  t.match(check, { code: 0, stdout: '' })

  const strips = 'typescript' in process.features && process.features.typescript
  const loader = strips ? [] : ['--import', 'tsx']
  await passes(t, [process.execPath, ...loader, 'main.ts'], { cwd, env })
})

for (const [name, command] of [
  ['Bun', ['bun']],
  ['Deno', ['deno', 'run', '-A']],
] as const) {
  const without = skip || missing(command[0])
  t.test(`${name} is refused at import`, { skip: without }, async (t) => {
    const files = { 'package.json': esm, 'main.js': imports }
    const options = project(command[0], files)
    const result = await run(t, [...command, 'main.js'], options)
    t.equal(result.code, 1)
    t.equal(result.stdout, '')
    t.match(result.stderr, new RegExp(`Expected Node, got ${name} \\d+\\.`))
  })
}

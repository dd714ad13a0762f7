// README.md and examples/README.md, executed: every console block on terminals
// as a reader has them, every program, every command, file, test and figure
// that they name. In a copy of the checkout; as root, if it is root who runs
// the tests, and as an ordinary user.
//
// Not reached: pages of others that are linked (no test here needs a network),
// and what the table "Runs on" says of other systems.

import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { t } from 'tap'

import * as library from '../lib/index.ts'
import {
  type Block,
  blocksOf,
  inlineCodeOf,
  proseOf,
  read,
  sectionOf,
  withFigures,
} from './readme.ts'
import { commandsOf, groupsOf, type Place, runGroup } from './readme-session.ts'
import { missing, plainEnv, run } from './support.ts'

const FILES = ['README.md', 'examples/README.md'] as const
const NOBODY = 65534

/** Commands in the text that are not run here, and where they are. */
const ELSEWHERE = new Map([
  ['make test', 'this test is a part of it; .ci/run runs it'],
  ['make test-nodes', 'minutes, and downloads; .ci/run runs a part of it'],
  ['make test-musl', 'installs Debian packages'],
  ['make test-arm64', 'minutes, and downloads'],
  ['make test-headers', 'downloads; .ci/run runs it'],
  ['make bench', 'half an hour on an idle machine; this file compares figures'],
  ['make bench-takeover', 'minutes on an idle machine; takeover.test.ts'],
  ['make bench-idle', 'minutes on an idle machine; idle-container.test.ts'],
  ['make plot', 'writes bench/results.svg'],
  ['make soak', '20 minutes; fuzz.test.ts and faults.test.ts run samples'],
  ['make gotchas', 'gotchas.test.ts runs each of them'],
  ['make examples', '.ci/run runs it, and the tests of each example'],
  ['make pictures', 'writes the pictures; pictures.test.ts draws one'],
  ['make examples/dbus/node_modules', 'downloads; a part of make test'],
  ['npm install', 'downloads; package.test.ts runs it'],
])

// A copy that an ordinary user can enter: the checkout may be in a folder of
// root's own. Packages are linked, as copying them takes seconds.
const isRoot = process.getuid?.() === 0
const folder = mkdtempSync(join(tmpdir(), 'fd-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
const copy = join(folder, 'copy')
const project = join(folder, 'project')

const skip =
  missing('git', 'make', 'python3', 'tar', 'sh') ||
  (!existsSync('.git') && 'needs a git checkout') ||
  (process.platform !== 'linux' && 'written for Linux: cp -al, terminals')

// What is ignored may be more than one call can return: .cache has a compiler.
const GIT_FILES = ['ls-files', '-z', '-co', '--exclude-standard']
const IGNORED = /(^|\/)(node_modules|\.tap|\.cache|dist)\//

function makeCopy(): void {
  chmodSync(folder, 0o755)
  mkdirSync(copy)
  const listed = execFileSync('git', GIT_FILES, {
    encoding: 'utf8',
    env: { ...process.env, GIT_OPTIONAL_LOCKS: '0' },
  })
  for (const file of listed.split('\0')) {
    if (file === '' || IGNORED.test(file) || !existsSync(file)) continue
    cpSync(file, join(copy, file))
  }
  for (const modules of ['node_modules', 'examples/dbus/node_modules']) {
    if (!existsSync(modules)) continue
    const link = spawnSync('cp', ['-al', modules, join(copy, modules)])
    if (link.status !== 0) {
      rmSync(join(copy, modules), { recursive: true, force: true })
      execFileSync('cp', ['-a', modules, join(copy, modules)])
    }
  }
  // What is linked is newer than package-lock.json: nothing is to be installed.
  const then = new Date(0)
  for (const file of ['package-lock.json', 'examples/dbus/package-lock.json'])
    utimesSync(join(copy, file), then, then)
}

// Each user in a checkout of its own; what is linked remains the runner's.
function chownAll(uid: number): void {
  for (const top of [copy, project]) {
    lchownSync(top, uid, uid)
    for (const name of readdirSync(top, {
      recursive: true,
      encoding: 'utf8',
    })) {
      if (!IGNORED.test(`${name}/`)) lchownSync(join(top, name), uid, uid)
    }
  }
}

// The package as `make pack` makes it, in a project that has its programs.
function makeProject(): void {
  const modules = join(project, 'node_modules')
  mkdirSync(join(modules, 'fdpass'), { recursive: true })
  const options = { cwd: copy, env: plainEnv(), encoding: 'utf8' } as const
  execFileSync('make', ['pack'], { ...options, stdio: 'pipe' })
  const [tarball = ''] = readdirSync(join(copy, 'dist')).filter((name) =>
    name.endsWith('.tgz'),
  )
  const into = ['-C', join(modules, 'fdpass'), '--strip-components=1']
  execFileSync('tar', ['xzf', join(copy, 'dist', tarball), ...into])
  for (const name of ['ffi-rs', '@yuuang', 'tsx', 'typescript', '@types'])
    symlinkSync(join(copy, 'node_modules', name), join(modules, name))
  writeFileSync(join(project, 'package.json'), '{ "type": "module" }')
  for (const { language, name, lines } of blocksOf(read('README.md'))) {
    if (language === 'ts') {
      writeFileSync(join(project, name), `${lines.join('\n')}\n`)
    }
  }
}

// sudo for a root without sudo.
const SUDO = `#!/bin/sh
[ "$1" = -u ] || exec "$@"
id=$(id -u "$2")
shift 2
exec setpriv --reuid="$id" --regid="$id" --clear-groups "$@"
`

function placeOf(uid: number, cwd: string): Place {
  const temporary = join(folder, `tmp-${uid}`)
  if (!existsSync(temporary)) {
    mkdirSync(temporary)
    chmodSync(temporary, 0o1777)
    if (isRoot) chownAll(uid)
    mkdirSync(join(folder, `bin-${uid}`))
    const sudo = join(folder, `bin-${uid}`, 'sudo')
    writeFileSync(sudo, SUDO, { mode: 0o755 })
  }
  const env = plainEnv({
    PATH: `${join(folder, `bin-${uid}`)}:${process.env.PATH}`,
    TMPDIR: temporary,
    HOME: temporary,
    // What is shown is the default: node:ffi prints a warning beside it.
    FDPASS_FFI: undefined,
    XDG_RUNTIME_DIR: undefined,
    WAYLAND_DISPLAY: undefined,
    DBUS_SESSION_BUS_ADDRESS: undefined,
  })
  return { cwd, uid, env, temporary }
}

/** Why a group of blocks cannot run here, or false. */
async function cannotRun(group: readonly Block[], uid: number) {
  const commands = group.flatMap((block) => commandsOf(block))
  for (const { text } of commands) {
    if (/\bsudo\b/.test(text) && uid !== 0)
      return 'sudo would ask for a password'
    const tools = [...text.matchAll(/(?:^|\| |; )([a-z][\w-]*)/g)].map(
      ([, tool = '']) => (tool === 'sudo' ? 'setpriv' : tool),
    )
    if (missing(...tools)) return missing(...tools)
    if (/window-shot/.test(text) && missing('weston')) return missing('weston')
    if (/postfix/.test(text) && missing('postfix')) return missing('postfix')
    const qemu = missing('qemu-system-x86_64')
    if (/qemu/.test(text) && qemu) return qemu
    if (/dbus/.test(text) && !existsSync('examples/dbus/node_modules'))
      return 'examples/dbus/node_modules is missing: make test installs it'
  }
  const all = commands.map(({ text }) => text).join('\n')
  const ports: string[] = all.match(/\b(8080|8192|7007|2525|5900)\b/g) ?? []
  if (/takeover/.test(all)) ports.push('8080')
  if (/qemu/.test(all)) ports.push('10809')
  if (/sudo.* 80$/m.test(all)) ports.push('80')
  for (const port of ports) {
    if (!(await isFree(Number(port)))) return `port ${port} is taken here`
  }
  return false
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

// Most of the time commands wait for each other.
t.setTimeout(1_200_000)

t.before(() => {
  if (skip) return
  makeCopy()
  makeProject()
})

for (const uid of isRoot ? [0, NOBODY] : [process.getuid?.() ?? 0]) {
  for (const file of FILES) {
    const blocks = blocksOf(read(file))
    const sources = blocks.filter(({ language }) => language === 'ts')
    for (const group of groupsOf(
      blocks.filter(({ language }) => language === 'console'),
    )) {
      const [{ section = '' } = {}] = group
      const name = `${file}, ${section.replace(/[[\]`]/g, '')}, as uid ${uid}`
      t.test(name, { skip, timeout: 600_000 }, async (t) => {
        const reason = await cannotRun(group, uid)
        if (reason) {
          t.pass(name, { skip: reason })
          return
        }
        const isOfProject = sources.some((one) => one.section === section)
        await runGroup(t, group, placeOf(uid, isOfProject ? project : copy))
        t.pass('all that is shown appears, and nothing else')
      })
    }
  }
}

t.test('every block is one that is executed', async (t) => {
  for (const file of FILES) {
    for (const { language, name } of blocksOf(read(file))) {
      t.match(language, /^(console|ts)$/, `${file}: ${language} ${name}`)
    }
  }
})

t.test('the programs type-check under strict', { skip }, async (t) => {
  const files = blocksOf(read('README.md')).filter((b) => b.language === 'ts')
  const flags = ['--noEmit', '--strict', '--noUncheckedIndexedAccess']
  const modules = ['--module', 'nodenext', '--target', 'es2023']
  const types = ['--types', 'node', '--skipLibCheck']
  const tsc = join(copy, 'node_modules/typescript/bin/tsc')
  const names = files.map(({ name }) => name)
  t.ok(names.length >= 2)
  const all = [tsc, ...flags, ...modules, ...types, ...names]
  const options = { cwd: project, env: plainEnv() }
  const result = await run(t, [process.execPath, ...all], options)
  t.match(result, { code: 0, stdout: '' })
})

const commands = (text: string): string[] =>
  inlineCodeOf(text).filter((code) => /^(make|npm|npx|\.\/)\b/.test(code))

t.test(
  'every command in the text is run, or said to be run elsewhere',
  {
    skip,
    timeout: 600_000,
  },
  async (t) => {
    const targets = read('Makefile')
    const all = new Set(FILES.flatMap((file) => commands(read(file))))
    for (const command of all) {
      const [tool, target] = command.split(' ')
      if (tool === 'make' && target !== undefined) {
        const isThere = new RegExp(
          `^([\\w./ -]+ )?${target}( [\\w./ -]+)?:`,
          'm',
        )
        t.match(targets, isThere, `${command} is a target`)
      } else if (tool?.startsWith('./')) t.ok(existsSync(tool), command)
      if (ELSEWHERE.has(command) || tool?.startsWith('./')) continue
      const options = placeOf(process.getuid?.() ?? 0, copy)
      const { code, stderr } = await run(t, ['sh', '-c', command], options)
      t.equal(code, 0, `${command}: ${stderr}`)
    }
    for (const command of ELSEWHERE.keys())
      t.ok(all.has(command), `${command} is in the text`)
  },
)

t.test('every link inside the project leads to a file', async (t) => {
  for (const file of FILES) {
    const text = proseOf(read(file))
    for (const [, link = ''] of text.matchAll(/\]\(([^)]+)\)/g)) {
      if (/^https?:/.test(link)) continue
      t.ok(existsSync(join(dirname(file), link)), `${file}: ${link}`)
    }
  }
})

t.test('every file that is named exists', async (t) => {
  const isPath = /^(lib|test|examples|bench)\/[\w./-]+$/
  for (const file of FILES) {
    for (const code of inlineCodeOf(read(file))) {
      if (isPath.test(code)) t.ok(existsSync(code), `${file}: ${code}`)
    }
  }
})

t.test('every test that is named exists', async (t) => {
  const tests = readdirSync('test', { recursive: true, encoding: 'utf8' })
  const text = read('README.md')
  let count = 0
  for (const [, name = '', titles = ''] of text.matchAll(
    /`([\w-]+\.test\.ts)`((?:,? "[^"]+")+)/g,
  )) {
    const files = tests.filter((path) => path.split('/').at(-1) === name)
    t.ok(files.length > 0, name)
    for (const [, title = ''] of titles.matchAll(/"([^"]+)"/g)) {
      count++
      const found = files.some((path) =>
        read(join('test', path)).includes(title),
      )
      t.ok(found, `${name} "${title}"`)
    }
  }
  t.ok(count > 20)
})

t.test('the table of exports is complete', async (t) => {
  const text = read('README.md')
  const start = text.indexOf('### Everything that')
  const section = text.slice(start, text.indexOf('\n## ', start))
  const rows = section.split('\n').flatMap((line) => line.split(' | ')[0] ?? '')
  const listed = inlineCodeOf(rows.slice(2).join('\n'))
  const names = new Set(listed.map((code) => code.replace(/\(.*/, '')))
  const exported = new Set(Object.keys(library))
  for (const [, list = ''] of read('lib/index.ts').matchAll(
    /export (?:type )?\{([^}]*)\}/g,
  )) {
    for (const name of list.split(',')) {
      if (name.trim()) exported.add(name.replace(/\btype\b/, '').trim())
    }
  }
  t.strictSame([...names].sort(), [...exported].sort())
  for (const of of [library.UnixConn, library.UnixListener, library.FdStream]) {
    const methods = Object.getOwnPropertyNames(of.prototype)
    for (const name of methods.filter((one) => !/^(constructor|_)/.test(one)))
      t.match(section, new RegExp(`\\b${name}\\b`), `${of.name}.${name}`)
  }
})

t.test('each gotcha has its line in the pitfalls', async (t) => {
  const section = sectionOf(read('README.md'), 'Pitfalls')
  const shared = ['all.ts', 'gotcha.ts', 'limited.ts', 'tcp-pair.ts']
  for (const file of readdirSync('examples/gotchas')) {
    if (!shared.includes(file)) t.match(section, `examples/gotchas/${file}`)
  }
})

t.test('the figures are those of bench/results.json', async (t) => {
  t.equal(read('README.md'), withFigures(read('README.md')))
})

t.test('README.md has at most 220 lines', async (t) => {
  t.ok(read('README.md').split('\n').length <= 221)
})

// README.md, examples/README.md and the pages in docs/, executed: every console
// block on terminals as a reader has them, every command, link and file that
// they name, and the figures. In a copy of the checkout, as an ordinary user
// where there is one; what needs sudo runs as root. The programs in docs/, and
// docs/api.md: docs.test.ts.
//
// tap runs the files in the order of their names. This one takes longest, so its
// name is an early one: at the end it would run alone.
//
// Not reached: pages of others that are linked (no test here needs a network),
// and what the tables of platforms say of other systems.

import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  cpSync,
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { t } from 'tap'

import { connect, pipe, readableFrom } from '../lib/index.ts'
import {
  type Block,
  blocksOf,
  inlineCodeOf,
  pages,
  proseOf,
  read,
  sectionOf,
  withFigures,
} from './readme.ts'
import {
  CTRL_D,
  commandsOf,
  groupsOf,
  type Place,
  runGroup,
  type Typed,
} from './readme-session.ts'
import { missing } from './support/missing.ts'
import { plainEnv, Running, run, script } from './support/processes.ts'

/** What a reader types besides the commands: see readme-session.ts. */
const TYPED: Readonly<Record<string, readonly Typed[]>> = {
  './client.ts': [{ text: 'hello wörld\n' }, { text: CTRL_D }],
  './examples/lend-stdout/client.ts': [{ text: 'hello\n' }, { text: CTRL_D }],
  'curl -sN telnet://127.0.0.1:7007': [
    { text: 'hello\n' },
    { text: 'again\n', after: /idle, parked/ },
  ],
}

/** Commands in the text that are not run here, and where they are. */
const ELSEWHERE = new Map([
  ['make test', 'this test is a part of it; .ci/run runs it'],
  ['make test-nodes', 'minutes, and downloads; .ci/run runs a part of it'],
  ['make test-musl', 'installs Debian packages'],
  ['make test-arm64', 'minutes, and downloads'],
  ['make test-arm64-kernel', 'an hour, downloads, and installs QEMU'],
  ['make test-headers', 'downloads; .ci/run runs it'],
  ['make bench', 'half an hour on an idle machine; this file compares figures'],
  ['make bench-takeover', 'minutes on an idle machine; takeover.test.ts'],
  ['make bench-idle', 'minutes on an idle machine; idle-container.test.ts'],
  ['make plot', 'writes bench/results.svg'],
  ['make soak', '20 minutes; fuzz.test.ts and faults.test.ts run samples'],
  ['make gotchas', 'gotchas.test.ts runs each of them'],
  ['make examples', '.ci/run runs it, and the tests of each example'],
  ['make examples/dbus/node_modules', 'downloads; a part of make test'],
])

const runner = process.getuid?.() ?? 0
const NOBODY = 65534
/** An ordinary user, if there can be one. */
const user = runner === 0 && nobodyRunsNode() ? NOBODY : runner

const folder = mkdtempSync(join(tmpdir(), 'fd-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
// What the commands with sudo make in /tmp itself.
t.teardown(() => {
  if (runner === 0) rmSync('/tmp/ports.json', { force: true })
})
/** The copy, under the name that the text has for it. */
const copy = join(folder, 'fdpass')
/** The folder that the section "Use it" makes. */
const notes = join(folder, 'notes')

const skip =
  missing('git', 'make', 'python3', 'tar', 'sh') ||
  (!existsSync('.git') && 'needs a git checkout') ||
  (process.platform !== 'linux' && 'written for Linux: cp -al, terminals')

const IGNORED = /(^|\/)(node_modules|\.tap|\.cache|dist)\//

// A copy that an ordinary user can enter: the checkout may be in a folder of
// root's own. Packages are linked, as copying them takes seconds, and remain
// the runner's.
function makeCopy(): void {
  chmodSync(folder, 0o1777)
  mkdirSync(copy)
  const owned = new Set([copy])
  for (const file of filesHere()) {
    cpSync(file, join(copy, file))
    for (let path = join(copy, file); path !== copy; path = dirname(path)) {
      owned.add(path)
    }
  }
  if (user !== runner) for (const path of owned) lchownSync(path, user, user)
  for (const modules of ['node_modules', 'examples/dbus/node_modules']) {
    if (!existsSync(modules)) continue
    const link = spawnSync('cp', ['-al', modules, join(copy, modules)])
    if (link.status !== 0) {
      rmSync(join(copy, modules), { recursive: true, force: true })
      execFileSync('cp', ['-a', modules, join(copy, modules)])
    }
    // npm writes into this file: linked, it would be the checkout's as well.
    const installed = join(modules, '.package-lock.json')
    rmSync(join(copy, installed))
    cpSync(installed, join(copy, installed))
  }
  // What is linked is newer than package-lock.json: nothing is to be installed.
  const then = new Date(0)
  for (const file of ['package-lock.json', 'examples/dbus/package-lock.json']) {
    utimesSync(join(copy, file), then, then)
  }
}

function filesHere(): string[] {
  const listed = execFileSync(
    'git',
    ['ls-files', '-z', '-co', '--exclude-standard'],
    {
      encoding: 'utf8',
      env: { ...process.env, GIT_OPTIONAL_LOCKS: '0' },
    },
  )
  const files = listed.split('\0').filter((file) => file !== '')
  return files.filter((file) => !IGNORED.test(file) && existsSync(file))
}

// The programs of a page, once the commands of the README made the folder.
function writePrograms(page: string): void {
  for (const { label, lines } of blocksOf(read(page))) {
    if (!/\.(ts|py)$/.test(label)) continue
    writeFileSync(join(notes, label), `${lines.join('\n')}\n`)
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
  const programs = join(folder, 'bin')
  if (!existsSync(temporary)) {
    mkdirSync(temporary)
    chmodSync(temporary, 0o1777)
    mkdirSync(programs, { recursive: true })
    writeFileSync(join(programs, 'sudo'), SUDO, { mode: 0o755 })
  }
  const env = plainEnv({
    PATH: `${programs}:${process.env.PATH}`,
    TMPDIR: temporary,
    // Packages come out of the cache if they are there, and npm says no more
    // than it has to.
    npm_config_prefer_offline: 'true',
    npm_config_audit: 'false',
    npm_config_progress: 'false',
    npm_config_update_notifier: 'false',
    // What is shown is the default: node:ffi prints a warning beside it.
    FDPASS_FFI: undefined,
    XDG_RUNTIME_DIR: undefined,
    WAYLAND_DISPLAY: undefined,
    DBUS_SESSION_BUS_ADDRESS: undefined,
  })
  if (uid !== runner) env.HOME = temporary
  return { cwd, uid, env, temporary }
}

/** Scripts, each with the tool that it starts and that a command does not name. */
const TOOLS_OF = [
  ['window-shot.sh', 'weston'],
  ['postfix.sh', 'postfix'],
  ['qemu/run.ts', 'qemu-system-x86_64'],
] as const

/** Why a group of blocks cannot run here, or false. */
async function cannotRun(group: readonly Block[], uid: number) {
  const commands = group.flatMap((block) => commandsOf(block))
  for (const { text } of commands) {
    if (/\bsudo\b/.test(text) && uid !== 0)
      return 'sudo would ask for a password'
    const tools = [...text.matchAll(/(?:^|\| |; |&& )([a-z][a-z-]*)/g)].map(
      ([, tool = '']) => (tool === 'sudo' ? 'setpriv' : tool),
    )
    if (missing(...tools)) return missing(...tools)
    for (const [script, tool] of TOOLS_OF) {
      if (text.includes(script) && missing(tool)) return missing(tool)
    }
    if (/dbus/.test(text) && !existsSync('examples/dbus/node_modules'))
      return 'examples/dbus/node_modules is missing: make test installs it'
  }
  const all = commands.map(({ text }) => text).join('\n')
  if (/npm install/.test(all) && !hasRegistry())
    return 'packages are neither in the cache of npm nor to be had'
  const ports: string[] =
    all.match(/\b(8080|8192|7007|7070|2525|5900)\b/g) ?? []
  if (/takeover/.test(all)) ports.push('8080')
  if (/sudo.* 80$/m.test(all)) ports.push('80')
  for (const port of ports) {
    if (!(await isFree(Number(port)))) return `port ${port} is taken here`
  }
  return false
}

function hasRegistry(): boolean {
  const view = ['view', '--prefer-offline', 'tsx', 'version']
  return spawnSync('npm', view, { env: plainEnv() }).status === 0
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
  if (!skip) makeCopy()
})

for (const file of pages()) {
  const blocks = blocksOf(read(file))
  const consoles = blocks.filter(({ language }) => language === 'console')
  for (const group of groupsOf(consoles)) {
    const [{ section = '' } = {}] = group
    const texts = group.flatMap(commandsOf).map(({ text }) => text)
    // Whoever runs the tests has a cache of npm's.
    const uid = /\bsudo\b|\bnp[mx]\b/.test(texts.join('\n')) ? runner : user
    const [first = ''] = texts
    const name = `${file}, ${section.replace(/[[\]`]/g, '')}: ${first}`
    t.test(name, { skip, timeout: 600_000 }, async (t) => {
      const isOfNotes = /^npx tsx/.test(first)
      const reason = isOfNotes ? noNotes() : await cannotRun(group, uid)
      if (reason) {
        t.pass(name, { skip: reason })
        return
      }
      if (isOfNotes) writePrograms(file)
      const place = placeOf(uid, isOfNotes ? notes : copy)
      await runGroup(t, group, place, TYPED)
      t.pass('all that is shown appears, and nothing else')
    })
  }
}

function nobodyRunsNode(): boolean {
  const options = { uid: NOBODY, gid: NOBODY, env: plainEnv(), cwd: '/' }
  return spawnSync(process.execPath, ['-e', ''], options).status === 0
}

/** Why there are no programs to run, or false. */
function noNotes(): string | false {
  const isHere = existsSync(join(notes, 'node_modules', 'fdpass'))
  return !isHere && 'the package is not installed: see above'
}

// Else it would take what is typed next from the shell of its client.
t.test('receive.ts stops reading when its client hangs up', async (t) => {
  if (skip || noNotes()) {
    t.pass('', { skip: skip || noNotes() })
    return
  }
  const server = new Running(t, script('receive.ts'), { cwd: notes })
  await server.printed(/Listening/)
  const conn = await connect(join(notes, 'notes.sock'))
  const { read: from, write: to } = pipe()
  await conn.sendFds('x', [from])
  writeSync(to, 'typed\n')
  await server.printed(/^typed$/m)
  conn.close()
  await server.printed(/AbortError/)
  writeSync(to, 'for others')
  for await (const chunk of readableFrom(from)) {
    t.equal(`${chunk}`, 'for others')
    break
  }
  closeSync(to)
  server.child.kill('SIGINT')
  t.match(await server.exit, { code: 0 })
})

const commands = (text: string): string[] =>
  inlineCodeOf(text).filter((code) => /^(make|npm|npx|\.\/)\b/.test(code))

t.test(
  'every command in the text is run, or said to be run elsewhere',
  { skip, timeout: 600_000 },
  async (t) => {
    const targets = read('Makefile')
    const all = new Set(pages().flatMap((page) => commands(read(page))))
    for (const command of all) {
      const [tool, target] = command.split(' ')
      if (tool === 'make' && target !== undefined) {
        const isThere = `^([\\w./ -]+ )?${target}( [\\w./ -]+)?:`
        t.match(targets, new RegExp(isThere, 'm'), `${command} is a target`)
      }
      // A script: what it prints is in a block, if it is not said otherwise.
      if (tool?.startsWith('./')) t.ok(existsSync(join(copy, tool)), command)
      if (ELSEWHERE.has(command) || tool?.startsWith('./')) continue
      const place = placeOf(runner, copy)
      const { code, stderr } = await run(t, ['sh', '-c', command], place)
      t.equal(code, 0, `${command}: ${stderr}`)
    }
    for (const command of ELSEWHERE.keys()) {
      t.ok(all.has(command), `${command} is in the text`)
    }
  },
)

t.test('every link leads to a file, and to a heading', async (t) => {
  for (const page of [...pages(), 'CHANGELOG.md']) {
    const text = proseOf(read(page))
    for (const [, link = ''] of text.matchAll(/\]\(([^)]+)\)/g)) {
      if (/^https?:/.test(link)) continue
      const [path = '', heading] = link.split('#')
      const target = path === '' ? page : join(dirname(page), path)
      t.ok(existsSync(target), `${page}: ${link}`)
      if (heading === undefined) continue
      t.ok(anchorsOf(read(target)).includes(heading), `${page}: ${link}`)
    }
  }
})

// As GitHub makes them.
function anchorsOf(text: string): string[] {
  const headings = [...proseOf(text).matchAll(/^#+ (.*)$/gm)]
  return headings.map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )
}

t.test('every file that is named exists', async (t) => {
  const isPath = /^(lib|test|examples|bench|docs)\/[\w./-]+$/
  for (const page of pages()) {
    for (const code of inlineCodeOf(read(page))) {
      if (isPath.test(code)) t.ok(existsSync(code), `${page}: ${code}`)
    }
  }
})

t.test('each example has its line in both lists', async (t) => {
  const folders = readdirSync('examples', { withFileTypes: true })
  for (const { name } of folders.filter((entry) => entry.isDirectory())) {
    if (name === 'pictures') continue
    t.match(read('examples/README.md'), `](${name})`)
    if (name === 'gotchas') continue
    t.match(sectionOf(read('README.md'), 'Examples'), `](examples/${name})`)
  }
})

t.test('the figures are those of bench/results.json', async (t) => {
  for (const page of pages()) t.equal(read(page), withFigures(read(page)), page)
  for (const page of ['README.md', 'docs/speed.md']) {
    t.match(read(page), /<!-- figures: /, page)
  }
})

// Each script by its own name: from another folder, before the packages are
// installed, and with output that nobody reads.

import {
  chmodSync,
  cpSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { t } from 'tap'

import { temporaryFolder } from './support/folder.ts'
import { missing } from './support/missing.ts'
import { plainEnv, Running, run, script } from './support/processes.ts'
import { asNewUser, missingNobody } from './support/users.ts'

// Those with a first line that says what runs them.
const scripts = ['.', 'examples', 'test', 'bench'].flatMap((folder) =>
  readdirSync(folder, { recursive: folder !== '.' })
    .map((file) => join(folder, String(file)))
    .filter((file) => file.endsWith('.ts') && !/node_modules/.test(file))
    .filter((file) => readFileSync(file, 'utf8').startsWith('#!')),
)

t.test('every script begins with what sh and TypeScript take', async (t) => {
  for (const file of scripts) {
    const [first, second = '', third] = readFileSync(file, 'utf8').split('\n')
    t.equal(first, '#!/bin/sh')
    const here = '$(dirname "$(realpath "$0")")'
    const run = relative(dirname(file), 'lib/script/run')
    // activate.ts asks for the soft limit, which Node raises for itself.
    const exec = second.replace(' SOFT_NOFILE=$(ulimit -Sn)', '')
    t.equal(exec, `true //; exec "${here}/${run}" "$0" "$@"`, file)
    t.equal(third, '')
  }
})

// Not by its name, which takes twice the time and is tried below.
t.test('every script has --help, in another folder too', async (t) => {
  t.ok(scripts.includes('server.ts') && scripts.length > 40)
  const cwd = temporaryFolder(t)
  for (const file of scripts) {
    const command = script(resolve(file), '--help')
    const { code, stdout, stderr } = await run(t, command, { cwd })
    t.equal(code, 0, file)
    t.equal(stderr, '')
    const [usage, called] = stdout.replace('./', '').split(/\s/)
    t.equal(usage, 'Usage:')
    t.equal(called, file, 'as it is called from the root')
  }
})

t.test('a script runs by a symbolic link', async (t) => {
  const folder = temporaryFolder(t)
  for (const file of ['server.ts', 'examples/socket-activation/activate.ts']) {
    const link = join(folder, 'link')
    symlinkSync(resolve(file), link)
    const { stdout, stderr } = await run(t, [link, '--help'], { cwd: folder })
    t.equal(stderr, '', file)
    t.match(stdout, `Usage: ./${file} `)
    rmSync(link)
  }
})

// Alpine's tools: busybox has sh, env and all others in one file.
t.test(
  'a script runs with busybox',
  { skip: missing('busybox') },
  async (t) => {
    const folder = temporaryFolder(t)
    const busybox = ['busybox', '--install', '-s', folder]
    t.equal((await run(t, busybox)).code, 0)
    symlinkSync(process.execPath, join(folder, 'node'))
    const env = plainEnv({ PATH: folder })
    for (const file of [
      'client.ts',
      'examples/socket-activation/activate.ts',
    ]) {
      const command = [join(folder, 'sh'), resolve(file), '--help']
      const { stdout, stderr } = await run(t, command, { env, cwd: '/' })
      t.equal(stderr, '', file)
      t.match(stdout, `Usage: ./${file} `)
    }
  },
)

const noSetpriv = missingNobody() || missing('setpriv')

t.test('a user without a name', { skip: noSetpriv }, async (t) => {
  const folder = temporaryFolder(t)
  chmodSync(folder, 0o777)
  const env = plainEnv({ XDG_RUNTIME_DIR: undefined, TMPDIR: folder })
  const command = [...asNewUser(), resolve('server.ts')]
  const server = new Running(t, command, { env })
  await server.printed(/^Server ready on .*\/fdpass-\d{5}\.sock, pid \d+$/m)
  server.child.kill('SIGINT')
  t.match(await server.exit, { code: 0 })
  t.equal(server.stderr, '')
})

t.test('in a folder that Node imports nothing from', async (t) => {
  for (const name of ['why?', 'back\\slash']) {
    const root = join(temporaryFolder(t), name)
    for (const file of ['package.json', 'lib', 'server.ts'])
      cpSync(file, join(root, file), { recursive: true })
    const { code, stderr } = await run(t, [join(root, 'server.ts')])
    t.equal(code, 1)
    const expected = 'Expected a folder without ? and \\ in its name, got'
    t.equal(stderr, `server.ts: ${expected} ${root}\n`)
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
  const { stdout } = await run(t, ['sh', '-c', 'command -v realpath'])
  symlinkSync(stdout.trim(), join(folder, 'realpath'))
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

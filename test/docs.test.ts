// The pages in docs/: docs/api.md is as the source says, the programs in them
// type-check and do what the text says, and the tests that they name exist.
// What they show of terminals: commands.test.ts.

import { once } from 'node:events'
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import type { Server } from 'node:http'
import { type AddressInfo, Socket } from 'node:net'
import { constants, tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { text } from 'node:stream/consumers'
import { type Test, t } from 'tap'

import { tcpPair } from '../examples/gotchas/tcp-pair.ts'
import {
  connect,
  duplexFrom,
  errorCodes,
  pipe,
  serviceSocket,
} from '../lib/index.ts'
import { declarations, namesOn, PAGE, withApi, withoutApi } from './api.ts'
import { newTerminal } from './lib/stream/support.ts'
import { type Block, blocksOf, pages, proseOf, read, rowsOf } from './readme.ts'
import { leakFree } from './support/descriptors.ts'
import { missing } from './support/missing.ts'
import { Running, run, script } from './support/processes.ts'

const { name: PACKAGE }: { name: string } = JSON.parse(read('package.json'))

// A project that has the programs, and the library as its package.
const folder = mkdtempSync(join(tmpdir(), 'fd-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
const modules = join(folder, 'node_modules')
mkdirSync(join(modules, PACKAGE), { recursive: true })
symlinkSync(resolve('lib/index.ts'), join(modules, PACKAGE, 'index.ts'))
for (const name of ['@types', 'tsx']) {
  symlinkSync(resolve('node_modules', name), join(modules, name))
}
const esm = '{ "type": "module", "exports": "./index.ts" }'
writeFileSync(join(modules, PACKAGE, 'package.json'), esm)
writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')

const programs = pages()
  .flatMap((page) => blocksOf(withoutApi(read(page))))
  .filter(({ language }) => language === 'ts')
for (const { label, lines } of programs) {
  writeFileSync(join(folder, label), `${lines.join('\n')}\n`)
}

t.test('docs/api.md is as the source says', async (t) => {
  const page = read(PAGE)
  t.equal(page, withApi(page), 'node --import tsx test/api.ts --write')
  const exported = [...declarations().keys()]
  t.strictSame([...namesOn(page)].sort(), exported.sort(), 'each export once')
})

t.test('the list of error codes is complete', async (t) => {
  const page = read(PAGE)
  const listed = rowsOf(page.slice(page.indexOf('\n## Errors\n')))
    .flatMap(([first = '']) => first.match(/[A-Z_]{3,}/g) ?? [])
    .sort()
  const known = [...Object.keys(constants.errno), 'ETOOMANYREFS']
  const isCode = (word: string): boolean =>
    /^(ERR_|ABORT_ERR)/.test(word) || known.includes(word)
  const described = page.slice(0, page.indexOf('\n## Errors\n'))
  const said = new Set(described.match(/\b[A-Z_]{3,}\b/g)?.filter(isCode))
  t.ok(listed.length > 20)
  t.strictSame(listed, [...said].sort())
  const ofNode = ['ERR_INVALID_FD_TYPE']
  const ours = listed.filter((code) => /^(ERR_|ABORT_ERR)/.test(code))
  t.strictSame(ours, [...errorCodes, ...ofNode].sort())
})

t.test('every block is one that is executed, or checked', async (t) => {
  for (const page of pages()) {
    for (const { language, label, lines } of blocksOf(withoutApi(read(page)))) {
      // `text` is a picture.
      t.match(language, /^(console|ts|python|text)$/, `${page}: ${lines[0]}`)
      const isProgram = language === 'ts' || language === 'python'
      if (isProgram) t.match(label, /^[\w-]+\.(ts|py)$/, `${page}: ${lines[0]}`)
    }
  }
})

// What the examples in docstrings take from the program around them.
const PRELUDE = `
import { spawn } from 'node:child_process'
import { closeSync, readSync } from 'node:fs'
import * as all from '${PACKAGE}'
const { FdStream, UnixDatagram, connect, framesOf, listen } = all
const { memfd, pairForChild, readableFrom, sendFrame, waitReadable } = all
declare const conn: all.UnixConn
declare const fd: number
declare const eventFd: number
declare const counter: Buffer
declare const file: string
declare const queue: number[]
declare function parse(bytes: Buffer, fds: number[]): void
`

t.test('programs and examples type-check under strict', async (t) => {
  const examples = blocksOf(read(PAGE)).filter(isExample)
  t.ok(examples.length > 8)
  const names = programs.map(({ label }) => label)
  for (const [index, { lines }] of examples.entries()) {
    const name = `example-${index}.ts`
    names.push(name)
    const body = `export async function example() {\n${lines.join('\n')}\n}\n`
    writeFileSync(join(folder, name), PRELUDE + body)
  }
  const flags = ['--noEmit', '--strict', '--noUncheckedIndexedAccess']
  const imports = ['--module', 'nodenext', '--allowImportingTsExtensions']
  const types = ['--target', 'es2023', '--types', 'node', '--skipLibCheck']
  const tsc = resolve('node_modules/typescript/bin/tsc')
  const all = [tsc, ...flags, ...imports, ...types, ...names]
  const result = await run(t, [process.execPath, ...all], { cwd: folder })
  t.match(result, { code: 0, stdout: '' })
})

// Between the comments of the page: neither a signature nor a program.
function isExample({ language, label, lines }: Block): boolean {
  const isSignature = /^(function|class|type|const [A-Z_]+:)/.test(
    `${lines[0]}`,
  )
  return language === 'ts' && label === '' && !isSignature
}

t.test('the programs import the package by its name', async (t) => {
  for (const { label, lines } of programs) {
    const names = lines.join('\n').matchAll(/ from '([^']+)'/g)
    for (const [, name = ''] of names) {
      t.ok(name === PACKAGE || name.startsWith('node:'), `${label}: ${name}`)
    }
  }
})

/** One of the programs, as a module. */
const load = (name: string): Promise<unknown> => import(join(folder, name))

leakFree('http.ts answers on a connection', async (t) => {
  const { serveConnection } = (await load('http.ts')) as {
    serveConnection(fd: number): void
  }
  const [near, far] = tcpPair()
  serveConnection(far)
  const client = new Socket({ fd: near })
  client.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
  t.match(await text(client), /^HTTP\/1\.1 200 OK[\s\S]*hello\n/)
})

leakFree('listening.ts accepts on a socket', async (t) => {
  const { serveSocket } = (await load('listening.ts')) as {
    serveSocket(fd: number): Promise<Server>
  }
  const fd = serviceSocket('tcp', { port: 0, host: '127.0.0.1' })
  const server = await serveSocket(fd)
  const { port } = server.address() as AddressInfo
  const client = new Socket().connect(port, '127.0.0.1')
  client.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
  t.match(await text(client), /^HTTP\/1\.1 200 OK[\s\S]*hello\n/)
  server.close()
  await once(server, 'close')
})

leakFree('file.ts reads where it wants', async (t) => {
  const { firstBytes } = (await load('file.ts')) as {
    firstBytes(fd: number, size: number): string
  }
  const start = read('LICENSE').slice(0, 20)
  const fd = openSync('LICENSE', 'r')
  t.equal(firstBytes(fd, 20), start)
})

leakFree(
  'terminal.ts asks at a terminal',
  async (t) => {
    const { ask } = (await load('terminal.ts')) as {
      ask(fd: number, question: string): Promise<string>
    }
    const { master, slave } = await newTerminal(t)
    const answer = ask(slave, 'Your name? ')
    const person = duplexFrom(master)
    await once(person, 'readable')
    t.match(`${person.read()}`, 'Your name? ')
    person.write('Ada\n')
    t.equal(await answer, 'Ada')
    person.destroy()
    await once(person, 'close')
  },
  missing('python3'),
)

t.test(
  'child.ts gives a child its input',
  { skip: missing('wc') },
  async (t) => {
    const source = `import { openSync } from 'node:fs'
const { countLines } = await import('${join(folder, 'child.ts')}')
await countLines(openSync('LICENSE', 'r'))`
    const command = [...script('--input-type=module', '-e'), source]
    const lines = read('LICENSE').split('\n').length - 1
    t.match(await run(t, command), { code: 0, stdout: `${lines}\n` })
  },
)

t.test('a bundle finds ffi-rs beside it', async (t) => {
  for (const name of ['ffi-rs', '@yuuang']) {
    symlinkSync(resolve('node_modules', name), join(modules, name))
  }
  const source = `import { socketpair } from '${PACKAGE}'
const [one, other] = socketpair()
await one.sendmsg('through a bundle')
console.log(String((await other.recvmsg())?.data))`
  writeFileSync(join(folder, 'main.ts'), source)
  const esbuild = resolve('node_modules/.bin/esbuild')
  const flags = [
    '--bundle',
    '--platform=node',
    '--format=esm',
    '--target=es2022',
  ]
  const files = ['main.ts', '--outfile=bundle.mjs']
  const made = await run(t, [esbuild, ...flags, ...files], { cwd: folder })
  t.equal(made.code, 0, made.stderr)
  const command = [process.execPath, 'bundle.mjs']
  const result = await run(t, command, { cwd: folder })
  t.match(result, { code: 0, stdout: 'through a bundle\n' })
})

async function startCareful(t: Test) {
  const server = new Running(t, script(join(folder, 'careful.ts')), {
    cwd: folder,
  })
  await server.printed(/Listening/)
  return { server, path: join(folder, 'careful.sock') }
}

t.test('careful.ts', async (t) => {
  const { server, path } = await startCareful(t)

  await t.test('counts what comes', async (t) => {
    const conn = await connect(path)
    const fd = openSync('LICENSE', 'r')
    await conn.sendFds('x', [fd])
    closeSync(fd)
    const { length } = Buffer.from(read('LICENSE'))
    t.equal(`${(await conn.recvmsg())?.data}`, `${length} bytes`)
    conn.close()
  })

  await t.test('hangs up on who sends nothing, or no end', async (t) => {
    const silent = await connect(path)
    const slow = await connect(path)
    const { read: from, write: to } = pipe()
    await slow.sendFds('x', [from])
    closeSync(from)
    t.equal(await silent.recvmsg(), null)
    t.equal(await slow.recvmsg(), null)
    closeSync(to)
    for (const conn of [silent, slow]) conn.close()
  })

  await t.test('refuses what is too large, or too many', async (t) => {
    const conn = await connect(path)
    const zero = openSync('/dev/zero', 'r')
    await conn.sendFds('x', [zero])
    t.equal(await conn.recvmsg(), null)
    const other = await connect(path)
    await other.sendFds('x', [zero, zero])
    closeSync(zero)
    t.equal(await other.recvmsg(), null)
    for (const each of [conn, other]) each.close()
    // It may hang up a moment before it says why.
    await server.printed(/Expected at most 1 descriptors/)
    t.match(server.stderr, 'Expected at most 1048576 bytes')
    t.match(server.stderr, 'Expected at most 1 descriptors, got 2')
  })

  server.child.kill('SIGINT')
  t.match(await server.exit, { code: 0 })
})

t.test('every test that is named exists', async (t) => {
  const tests = readdirSync('test', { recursive: true, encoding: 'utf8' })
  let count = 0
  for (const page of ['docs/pitfalls.md', 'docs/security.md']) {
    for (const [promise = '', ...cells] of rowsOf(read(page))) {
      const named = [
        ...`${cells.at(-1)}`.matchAll(/`([\w-]+\.test\.ts)`((?:,? "[^"]+")+)/g),
      ]
      t.ok(named.length > 0, `${page}: ${promise}`)
      for (const [, file = '', titles = ''] of named) {
        const found = tests.filter((path) => basename(path) === file)
        const source = found.map((path) => read(join('test', path))).join('')
        for (const [, title = ''] of titles.matchAll(/"([^"]+)"/g)) {
          count++
          t.ok(source.includes(title), `${page}: ${file} "${title}"`)
        }
      }
    }
  }
  t.ok(count > 30)
})

t.test('each gotcha has its line in the pitfalls', async (t) => {
  const shared = ['all.ts', 'gotcha.ts', 'limited.ts', 'tcp-pair.ts']
  const prose = proseOf(read('docs/pitfalls.md'))
  for (const file of readdirSync('examples/gotchas')) {
    if (shared.includes(file)) continue
    t.match(prose, `(../examples/gotchas/${file})`)
  }
})

#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../lib/script/run" "$0" "$@"

// Runs every example once, as a user would in two terminals, and labels each
// line with the script that printed it. Exit code 0 if all of them did what
// they should. To add an example is to add its steps to the table.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'

import {
  commandLine,
  help,
  messageOf,
  onStop,
  print,
} from '../lib/script/cli.ts'
import { linesOf } from '../lib/script/lines.ts'

type Step = {
  /** A script in examples/, or any other program, and its arguments. */
  readonly run: readonly [program: string, ...args: string[]]
  /** What a line of its output looks like: waited for before the next step. */
  readonly prints: RegExp
  /** A server, stopped with SIGTERM at the end. Others have to end, exit 0. */
  readonly stays?: true
  /** A client that ends no sooner than SIGTERM, sent once it `prints`. */
  readonly stopped?: true
  /** What it has to have printed as well when the example is over. */
  readonly later?: RegExp
  /** A program without which the example is left out. */
  readonly needs?: string
  /** Without root the example is left out. */
  readonly asRoot?: true
  readonly env?: NodeJS.ProcessEnv
  readonly input?: string
  /** The input comes once a program before it has printed this. */
  readonly inputAfter?: RegExp
}

const USAGE = `Usage: test/examples.ts
Runs every example once. Exits 1 if one of them did not do what it should.`

commandLine(USAGE, { options: help }, [0, 0])

const folder = mkdtempSync(join(tmpdir(), 'fdpass-'))
process.once('exit', () => rmSync(folder, { recursive: true, force: true }))

const socket = join(folder, 'socket')
const files = ['one', 'two'].map((name) => {
  const file = join(folder, name)
  writeFileSync(file, `This is file ${name}\n`, { mode: 0o644 })
  return file
})

const isRoot = process.getuid?.() === 0
const echoPort = await freePort()
// Ports below 1024 are what the factory is for, and only root has them to give.
const factory = isRoot ? ['-p', '8', '-u', '65534'] : ['-p', await freePort()]

const rules = join(folder, 'rules.json')
const anyPort = { uid: process.getuid?.(), ports: ['1-65535'] }
const json = JSON.stringify([{ ...anyPort, addresses: ['127.0.0.1'] }])
writeFileSync(rules, json, { mode: 0o600 })
const web = join(folder, 'web')
const idlePort = await freePort()
const storePort = await freePort()

// Postfix's processes run as a user of its own.
const postfix = join(folder, 'postfix')
chmodSync(folder, 0o711)
const mailPort = await freePort()
const [nbdPort, vncPort] = [await freePort(), await freePort()]

const runtime = join(folder, 'run')
mkdirSync(runtime, { mode: 0o700 })
const screen = { XDG_RUNTIME_DIR: runtime, WAYLAND_DISPLAY: 'screen' }

const examples: Readonly<Record<string, readonly Step[]>> = {
  bytes: [
    {
      run: ['bytes.ts', '--fds', '3', '--room', '24'],
      prints: /^3 sent, 2 received: MSG_CTRUNC is set\.$/,
    },
  ],
  stdout: [
    { run: ['stdout/server.ts', socket], prints: /ready/, stays: true },
    { run: ['stdout/client.ts', socket], prints: /displayed on client stdout/ },
  ],
  'lend-stdout': [
    {
      run: ['lend-stdout/server.ts', socket],
      prints: /ready/,
      stays: true,
      later: /^Typed at the client$/,
    },
    {
      run: ['lend-stdout/client.ts', socket],
      prints: /Sending my Stdin/,
      input: 'Typed at the client\n',
    },
  ],
  'two-files': [
    {
      run: ['two-files/server.ts', socket],
      prints: /ready/,
      stays: true,
      later: /^This is file two$/,
    },
    {
      run: ['two-files/client.ts', '-s', socket, ...files],
      prints: /Opened fd/,
    },
  ],
  'fd-factory': [
    {
      run: ['fd-factory/server.ts', '-p', echoPort],
      prints: /ready/,
      stays: true,
      later: /^Connection from .*, received "fdehwudfhweqio"\.$/,
    },
    {
      run: [
        'fd-factory/client.ts',
        ...[...factory, '-A', '127.0.0.1', '-P', echoPort],
        ...['-d', 'fdehwudfhweqio'],
      ],
      prints: /^Received "fdehwudfhweqio"\.$/,
    },
  ],
  socketpair: [
    { run: ['socketpair/parent.ts'], prints: /the child's other offset/ },
  ],
  'socket-activation': [
    {
      run: [
        'socket-activation/activate.ts',
        ...['-l', web, '--fdname=web', '--'],
        './examples/socket-activation/service.ts',
      ],
      prints: /ready/,
      stays: true,
      later: /Server ready on fd 3 \(web\)/,
    },
    { run: get(web), prints: /Hello from web/ },
  ],
  fdstore: [
    {
      run: [
        'fdstore/manager.ts',
        ...['./examples/fdstore/service.ts', '-p', storePort],
      ],
      prints: /: ready$/,
      stays: true,
      later: /^Removed client-0/,
    },
    {
      run: talk(storePort, 'hello\ncrash\n'),
      prints: /^2: again$/,
      input: 'again\n',
      inputAfter: /clients from before: 1$/,
    },
  ],
  takeover: [
    {
      run: ['takeover/server.ts', '-c', socket, '-l', web],
      prints: /Server ready/,
      stays: true,
      later: /Server stopped/,
    },
    {
      run: ['takeover/server.ts', '-c', socket, '-l', web],
      prints: /Server ready/,
      stays: true,
      later: /is gone/,
    },
    { run: get(web), prints: /Hello from process/ },
  ],
  'port-broker': [
    {
      run: ['port-broker/server.ts', rules, socket],
      prints: /ready/,
      stays: true,
      later: /allowed by rule 1$/,
    },
    {
      run: [
        'port-broker/client.ts',
        ...['-s', socket, await freePort(), '--'],
        ...['sh', '-c', 'echo LISTEN_FDS is $LISTEN_FDS'],
      ],
      prints: /LISTEN_FDS is 1/,
    },
  ],
  'file-broker': [
    {
      run: ['file-broker/server.ts', folder, socket],
      prints: /ready/,
      stays: true,
      later: /"one": granted/,
    },
    {
      run: ['file-broker/client.ts', '-s', socket, 'one'],
      prints: /This is file one/,
    },
  ],
  'idle-container': [
    {
      run: ['idle-container/container.ts', socket],
      prints: /ready/,
      stays: true,
      later: /woke fd/,
    },
    {
      run: ['idle-container/front.ts', '-p', idlePort, '-i', '0.2', socket],
      prints: /Container on/,
      stays: true,
      later: /woke as fd/,
    },
    {
      run: talk(idlePort, 'hello\n'),
      prints: /^2: again$/,
      input: 'again\n',
      inputAfter: /idle, parked/,
    },
  ],
  postfix: [
    {
      run: ['sh', 'test/peers/postfix.sh', postfix],
      prints: /daemon started/,
      stays: true,
      later: /disconnect from unknown\[127\.0\.0\.1\]/,
      needs: 'postfix',
      asRoot: true,
    },
    {
      run: [
        'postfix/screen.ts',
        '-p',
        mailPort,
        `${postfix}/queue/private/smtpd`,
      ],
      prints: /^Ready/,
      stays: true,
      later: /Postfix has it$/,
    },
    {
      run: talk(mailPort, ''),
      prints: /^221 /,
      input: 'QUIT\r\n',
      inputAfter: /Postfix has it$/,
    },
  ],
  qemu: [
    {
      run: ['qemu/run.ts', '-n', nbdPort, '-v', vncPort, ...files.slice(0, 1)],
      prints: /^Screen shown/,
      stays: true,
      later: /QEMU has the connection$/,
      needs: 'qemu-system-x86_64',
    },
    { run: talk(vncPort, 'That is all\n'), prints: /^RFB 003\.008$/ },
  ],
  dbus: [
    {
      run: ['dbus/service.ts', folder],
      prints: /^DBUS_SESSION_BUS_ADDRESS=/,
      stays: true,
      later: /: two, fd \d+$/,
      needs: 'dbus-daemon',
    },
    { run: ['dbus/client.ts', 'one', 'two'], prints: /^This is file two$/ },
  ],
  wayland: [
    {
      run: [
        'weston',
        ...['--backend=headless-backend.so', '--use-pixman', '--no-config'],
        `--socket=${screen.WAYLAND_DISPLAY}`,
      ],
      env: screen,
      prints: /launching .*desktop-shell/,
      stays: true,
      needs: 'weston',
    },
    {
      run: ['wayland/window.ts'],
      env: screen,
      prints: /^Sending fd \d+: two buffers/,
      stopped: true,
    },
  ],
}

type Running = {
  readonly step: Step
  readonly child: ChildProcess
  readonly lines: string[]
  readonly news: EventEmitter
  readonly exit: Promise<number | null>
}

const root = fileURLToPath(new URL('..', import.meta.url))

const all = Object.values(examples).flat()
const width = Math.max(...all.map(({ run: [program] }) => program.length))

/** How long a program may run, by far. */
const PATIENCE = 300_000 // ms

const children = new Set<ChildProcess>()
onStop(() => {
  for (const child of children) child.kill('SIGKILL')
  process.exit()
})

const failed: string[] = []
let leftOut = 0
for (const [name, steps] of Object.entries(examples)) {
  console.log(`\n${name}`)
  const [lacking] = steps.flatMap(whatLacks)
  if (lacking !== undefined) {
    console.log(`  Left out: ${lacking}`)
    leftOut++
    continue
  }
  const running: Running[] = []
  try {
    for (const step of steps) {
      const one = start(step)
      running.push(one)
      await give(one, running)
      await printed(one, step.prints)
      if (step.stopped) one.child.kill('SIGTERM')
      if (!step.stays) await ended(one)
    }
    for (const one of running) {
      if (one.step.later) await printed(one, one.step.later)
      if (one.step.stays) one.child.kill('SIGTERM')
      await ended(one)
    }
  } catch (error) {
    console.log(`  FAILED: ${messageOf(error)}`)
    failed.push(name)
    for (const { child } of running) child.kill('SIGKILL')
  }
}
const count = Object.keys(examples).length - leftOut
console.log(
  `\n${count - failed.length} of ${count} examples did as they should`,
)
process.exitCode = failed.length === 0 ? 0 : 1

function start(step: Step): Running {
  const [program, ...args] = step.run
  const command = program.endsWith('.ts')
    ? [process.execPath, ...process.execArgv, `examples/${program}`]
    : [program]
  const [file = '', ...first] = command
  const child = spawn(file, [...first, ...args], {
    cwd: root,
    env: { ...process.env, ...step.env },
    timeout: PATIENCE,
    killSignal: 'SIGKILL',
  })
  children.add(child)
  child.once('close', () => children.delete(child))
  const lines: string[] = []
  const news = new EventEmitter()
  const exit = once(child, 'close').then(([code]) => code as number | null)
  const one = { step, child, lines, news, exit }
  for (const stream of [child.stdout, child.stderr]) void show(stream, one)
  return one
}

async function give(one: Running, running: readonly Running[]): Promise<void> {
  const { input, inputAfter } = one.step
  if (inputAfter !== undefined)
    await Promise.any(running.map((each) => printed(each, inputAfter)))
  one.child.stdin?.end(input)
}

async function show(
  stream: Readable,
  { step, lines, news }: Running,
): Promise<void> {
  const label = step.run[0].padEnd(width)
  for await (const line of linesOf(stream)) {
    print(`  ${label} | ${line.replaceAll(folder, '…')}`)
    lines.push(line)
    news.emit('line')
  }
}

async function printed(
  { step, lines, news, exit }: Running,
  pattern: RegExp,
): Promise<void> {
  let running = true
  while (!lines.some((line) => pattern.test(line))) {
    if (!running)
      throw new Error(`Expected ${pattern} from ${step.run[0]}, got its end`)
    const end = exit.then(() => {
      running = false
    })
    await Promise.race([once(news, 'line'), end])
  }
}

async function ended({ step, exit }: Running): Promise<void> {
  const code = await exit
  if (code !== 0)
    throw new Error(`Expected exit code 0 from ${step.run[0]}, got ${code}`)
}

function whatLacks({ needs, asRoot }: Step): string[] {
  if (needs && !isInstalled(needs)) return [`${needs} is not installed`]
  return asRoot && !isRoot ? ['only root can do this'] : []
}

function isInstalled(program: string): boolean {
  const search = ['-c', 'command -v "$0"', program]
  return spawnSync('sh', search).status === 0
}

// A request over HTTP, for which not every machine has a program.
function get(path: string): Step['run'] {
  const request = { socketPath: path, path: '/' }
  const source =
    `require('http').get(${JSON.stringify(request)}, ` +
    '(response) => response.pipe(process.stdout))'
  return ['node', '-e', source]
}

// Says `words`, is silent until it has input (while it is parked, or screened),
// and says that.
function talk(port: string, words: string): Step['run'] {
  const source =
    `const socket = require('net').connect(${port}, '127.0.0.1', ` +
    `() => socket.write(${JSON.stringify(words)})); ` +
    'socket.pipe(process.stdout); process.stdin.pipe(socket)'
  return ['node', '-e', source]
}

async function freePort(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  return `${port}`
}

// What is measured. Each peer is a program of its own in peers/, all with the
// command line that peers/plain.c describes. What this machine lacks is a peer
// that says why.

import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'

import { messageOf } from '../lib/script/cli.ts'

export type Peer = {
  readonly name: string
  /** Of what it is made with, for the head of the report. */
  readonly version?: string
  readonly command: readonly string[]
  /** What its environment has besides ours. */
  readonly env?: Readonly<Record<string, string>>
  /** Why it cannot be measured here at all. */
  readonly missing?: string
  /** Rows that do not apply to it, each with the reason. */
  readonly without?: Readonly<Record<string, string>>
  /** Rows in which it does not do quite the same, and what it does. */
  readonly remarks?: Readonly<Record<string, string>>
}

export const OURS = 'this library'

/** This library, with Node's own foreign function interface in place of ffi-rs. */
export const NODE_FFI = 'this on node:ffi'

/** Bytes alone, by the Node that has node:ffi: for the row of bytes. */
export const NET_26 = 'net.Socket of 26'

const ROWS_OF_NET = [
  'one-at-a-time',
  'in-flight',
  'ping-pong',
  'stream',
  'wake-up',
  'connect',
  'idle',
]

const here = import.meta.dirname
const built = join(here, '../.cache/bench')

/** All peers, made ready: the C and Go programs built, usocket installed. */
export function findPeers(): Peer[] {
  mkdirSync(built, { recursive: true })
  return [
    peer('C', plainC),
    peer('Python', () => python('plain.py')),
    peer('Python asyncio', () => python('aio.py')),
    peer('Go', go),
    peer('usocket', usocket),
    subprocess('socket'),
    subprocess('server'),
    {
      ...peer('net.Socket', () => node('net.ts')),
      without: { full: 'a byte alone says nothing about descriptors' },
      remarks: {
        'one-at-a-time': 'the bytes alone',
        'in-flight': 'the bytes alone',
        'ping-pong': 'the bytes alone',
        stream: 'the bytes alone',
        connect: 'the bytes alone',
      },
    },
    {
      ...peer(NET_26, () => node('net.ts', withNodeFfi())),
      without: Object.fromEntries(
        [...ROWS_OF_NET, 'full'].map((row) => [row, 'see net.Socket']),
      ),
    },
    {
      ...peer(OURS, () => node('ours.ts')),
      env: { FDPASS_FFI: 'ffi-rs' },
      remarks: { bytes: 'FdStream' },
    },
    {
      ...peer(NODE_FFI, nodeFfi),
      env: { FDPASS_FFI: 'node', NODE_NO_WARNINGS: '1' },
      remarks: { bytes: 'FdStream' },
    },
  ]
}

type Made = Pick<Peer, 'command' | 'version' | 'without' | 'remarks'>

function peer(name: string, make: () => Made): Peer {
  try {
    return { name, ...make() }
  } catch (error) {
    const [missing = ''] = messageOf(error).split('\n')
    return { name, command: [], missing }
  }
}

function plainC(): Made {
  const version = output('cc', '--version')
  const program = join(built, 'plain')
  output('cc', '-O2', '-Wall', '-o', program, join(here, 'peers/plain.c'))
  return { command: [program], version }
}

function python(file: string): Made {
  const version = output('python3', '--version')
  output('python3', '-c', 'from socket import send_fds, recv_fds')
  return { command: ['python3', join(here, 'peers', file)], version }
}

function go(): Made {
  const version = output('go', 'version')
  const program = join(built, 'plain-go')
  output('go', 'build', '-o', program, join(here, 'peers/plain.go'))
  return { command: [program], version }
}

function usocket(): Made {
  const folder = join(here, 'node_modules/usocket')
  const tryIt = () =>
    output(process.execPath, '-e', `require(${JSON.stringify(folder)})`)
  try {
    tryIt() // built already, and for this version of Node
  } catch {
    output('npm', 'ci', '--prefix', here, '--no-audit', '--loglevel=error')
    tryIt()
  }
  const { version } = JSON.parse(
    readFileSync(join(folder, 'package.json'), 'utf8'),
  )
  return {
    ...node('usocket.ts'),
    version: `usocket ${version}`,
    without: { bytes: 'measured with descriptors only' },
    remarks: {
      full: '64 descriptors a message: it drops what is more',
      'in-flight':
        'with a window: it drops descriptors when the socket is full',
      stream: 'with a window, as above',
    },
  }
}

function subprocess(kind: 'socket' | 'server'): Peer {
  const what = kind === 'socket' ? 'net.Socket' : 'net.Server'
  const sends = `subprocess.send of a ${what}`
  return {
    ...peer(`subprocess ${kind}`, () => node(`subprocess-${kind}.ts`)),
    without: {
      'one-at-a-time': 'always two processes, see ping-pong',
      full: 'one handle a message',
      bytes: 'objects, not bytes',
      'wake-up': 'always two processes, see ping-pong',
      connect: 'the channel is there from the start',
      idle: 'one channel to each child process',
    },
    remarks: {
      'in-flight': sends,
      'ping-pong': sends,
      stream: `${sends}, serialization: advanced`,
    },
  }
}

function node(file: string, node = process.execPath): Made {
  const program = join(here, 'peers', file)
  return { command: [node, '--import', 'tsx', program] }
}

function nodeFfi(): Made {
  const path = withNodeFfi()
  const version = `node:ffi of Node ${output(path, '--version')}`
  return { ...node('ours.ts', path), version }
}

// The Node that runs this, if it has node:ffi, else Node 26.
function withNodeFfi(): string {
  if (process.getBuiltinModule?.('node:ffi')) return process.execPath
  return output('npx', '-y', '-p', 'node@26', '-c', 'command -v node')
}

// The first line that a command prints.
function output(command: string, ...args: string[]): string {
  try {
    const printed = execFileSync(command, args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    return printed.split('\n', 1)[0] ?? ''
  } catch (error) {
    const { code, stderr } = error as { code?: string; stderr?: string }
    if (code === 'ENOENT' || code === 'EACCES')
      throw new Error(`${command} is not installed`)
    const lines = `${stderr ?? ''}`.trim().split('\n')
    const line = lines.find((one) => /error/i.test(one)) ?? lines[0] ?? ''
    throw new Error(`${basename(command)} failed: ${line.slice(0, 200)}`)
  }
}

#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../lib/script/run" "$0" "$@"

// What it costs to hold connections on which nothing happens. Starts
// examples/idle-container/container.ts, parks ten thousand TCP connections in
// it, and looks at it from outside: memory, CPU, and how long a peer's byte
// takes to the front that reads it. This program is the front, and all peers.
//
// Takes about a minute. The limit of open descriptors has to leave room
// for the connections twice: once for the peers here, once in the container.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createServer, connect as dial, Socket } from 'node:net'
import { cpus, release, tmpdir, totalmem, type } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  connect,
  connectionsOn,
  framesOf,
  sendFrame,
  serviceSocket,
} from '../lib/index.ts'
import { commandLine, fail, help, numberOption } from '../lib/script/cli.ts'
import { cpuTime, residentSet } from './processes.ts'

const USAGE = `Usage: bench/idle.ts [OPTIONS]
Measures examples/idle-container with parked connections. Linux only.
  --connections N  so many (10000)
  --seconds N      of doing nothing, for the CPU (10)
  --wakes N        one after the other, for the latency (2000)`

const { values } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      connections: { type: 'string', default: '10000' },
      seconds: { type: 'string', default: '10' },
      wakes: { type: 'string', default: '2000' },
    },
  },
  [0, 0],
)
if (process.platform !== 'linux') fail('Expected Linux: this reads /proc')
const count = (name: 'connections' | 'seconds' | 'wakes'): number =>
  numberOption(USAGE, `--${name}`, values[name], [1, 9_999_999])
const connections = count('connections')
const seconds = count('seconds')
const wakes = count('wakes')

/** Memory is told for those after these, which pay for the code. */
const FIRST = Math.min(1000, Math.floor(connections / 2))

/** Connections on their way at once. */
const WINDOW = 250

const folder = mkdtempSync(join(tmpdir(), 'bench-'))
process.once('exit', () => rmSync(folder, { recursive: true, force: true }))

console.log(`${type()} ${release()}, ${cpus().length} x ${cpus()[0]?.model}`)
console.log(`Node ${process.version}, ${Math.round(totalmem() / 2 ** 30)} GiB`)

const container = await startContainer()
const conn = await connect(join(folder, 'socket')).catch(fail)
const port = await freePort()
const stop = new AbortController()
const listening = serviceSocket('tcp', { host: '127.0.0.1', port })
const accepted = connectionsOn(listening, { signal: stop.signal })

type Front = { readonly fd: number; readonly socket: Socket }

/** The peers, and who waits for the first read from which of them. */
const peers: Socket[] = []
const readers = new Map<number, (front: Front) => void>()
void takeBack()

const empty = look()
let parking = 0
await fill(FIRST)
const first = await lookAtRest(2)
await fill(connections)
const full = await lookAtRest(9)
await sleep(seconds * 1000)
const idled = look()
const unparked = await latencies(await liveConnection())
const woken = await latencies(wakeOne)
const waking = await wakeAll()

const fewer = connections - FIRST
const memory = (full.rss - first.rss) / fewer
const fds = (full.fds - empty.fds) / connections
const cpu = (idled.cpu - full.cpu) / seconds
row(`${connections} parked connections`, 'measured', 'goal')
row(`memory each, beyond the first ${FIRST}`, `${memory.toFixed(2)} KiB`, '< 2')
row('descriptors each', fds.toFixed(3), '1')
row(`CPU while idle, over ${seconds} s`, `${cpu.toFixed(3)} ms/s`, '0')
row('a byte to the first read: median', us(unparked, 0.5), 'not parked')
row('                          p99', us(unparked, 0.99), 'not parked')
row('                          median', us(woken, 0.5), 'parked')
row('                          p99', us(woken, 0.99), 'parked')
row('parked per second', rate(parking), '')
row('woken per second', rate(waking), '')
row(
  'resident memory of the container',
  `${Math.round(full.rss / 1024)} MiB`,
  '',
)
process.exit(0)

// Connects and parks until there are `most`. Only the parking is timed, until
// the last one is watched: then all are, and its byte comes back.
async function fill(most: number): Promise<void> {
  while (peers.length < most) {
    const fds: [id: number, fd: number][] = []
    const until = Math.min(most, peers.length + WINDOW)
    while (peers.length < until) {
      const { peer, fd } = await open()
      fds.push([peers.push(peer) - 1, fd])
    }
    const start = performance.now()
    const last = say(peers.length - 1)
    await Promise.all(fds.map(([id, fd]) => park(id, fd)))
    const { fd, socket } = await last
    parking += performance.now() - start
    await sendFrame(conn, { tag: `${peers.length - 1}` }, [fd])
    socket.destroy()
  }
}

async function open(): Promise<{ peer: Socket; fd: number }> {
  const peer = dial(port, '127.0.0.1').setNoDelay()
  const [next] = await Promise.all([accepted.next(), once(peer, 'connect')])
  return { peer, fd: next.value ?? -1 }
}

async function park(id: number, fd: number): Promise<void> {
  await sendFrame(conn, { tag: `${id}` }, [fd])
  closeSync(fd)
}

// The front: reads from every connection that comes back.
async function takeBack(): Promise<void> {
  for await (const { value, fds } of framesOf(conn, { maxFds: 1 })) {
    const [fd = -1] = fds
    const socket = new Socket({ fd })
    socket.once('data', () => readers.get(Number(value.woke))?.({ fd, socket }))
  }
  fail('The container went away')
}

/** Has the peer send a byte, and waits until the front has read it. */
function say(id: number): Promise<Front> {
  return new Promise((resolve) => {
    readers.set(id, resolve)
    peers[id]?.write('x')
  })
}

/** In ms, sorted. */
async function latencies(round: () => Promise<number>): Promise<number[]> {
  const found: number[] = []
  for (let i = 0; i < wakes; i++) found.push(await round())
  return found.sort((a, b) => a - b)
}

async function wakeOne(): Promise<number> {
  const id = Math.floor(Math.random() * connections)
  const start = performance.now()
  const { fd, socket } = await say(id)
  const took = performance.now() - start
  await sendFrame(conn, { tag: `${id}` }, [fd])
  socket.destroy()
  return took
}

// What it takes anyway: a connection that the front has kept.
async function liveConnection(): Promise<() => Promise<number>> {
  const { peer, fd } = await open()
  const socket = new Socket({ fd })
  return async () => {
    const start = performance.now()
    peer.write('x')
    await once(socket, 'data')
    return performance.now() - start
  }
}

async function wakeAll(): Promise<number> {
  const start = performance.now()
  await Promise.all(
    peers.map(async (_, id) => {
      const { socket } = await say(id)
      socket.destroy()
    }),
  )
  return performance.now() - start
}

async function startContainer(): Promise<number> {
  const script = join(
    import.meta.dirname,
    '../examples/idle-container/container.ts',
  )
  const args = [
    '--import',
    'tsx',
    script,
    '--quiet',
    '--most',
    `${connections}`,
  ]
  const child = spawn(process.execPath, [...args, join(folder, 'socket')], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  process.once('exit', () => child.kill())
  await once(child.stdout, 'data').catch(fail)
  return child.pid ?? -1
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' ? (address?.port ?? 0) : 0
}

// After much work V8 tidies up at once, and again when it has been idle for
// eight seconds. Then nothing is left to do.
async function lookAtRest(quiet: number): Promise<ReturnType<typeof look>> {
  let last = look()
  for (let passed = 0; passed < quiet; ) {
    await sleep(1000)
    const next = look()
    passed = next.cpu - last.cpu < 0.5 ? passed + 1 : 0
    last = next
  }
  return last
}

/** The container from outside: KiB, ms of CPU since its start, descriptors. */
function look(): { rss: number; cpu: number; fds: number } {
  return {
    rss: residentSet(container),
    cpu: cpuTime(container) / 1e6,
    fds: readdirSync(`/proc/${container}/fd`).length,
  }
}

function us(sorted: readonly number[], share: number): string {
  const at = Math.min(sorted.length - 1, Math.floor(sorted.length * share))
  return `${Math.round((sorted[at] ?? Number.NaN) * 1000)} us`
}

function rate(ms: number): string {
  return `${Math.round((connections / ms) * 1000)}`
}

function row(what: string, measured: string, goal: string): void {
  console.log(`${what.padEnd(48)}${measured.padStart(12)}  ${goal}`)
}

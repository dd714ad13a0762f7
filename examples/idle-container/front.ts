#!/usr/bin/env -S sh -c 'exec "${0%/*}/../../lib/script/run" "$0" "$@"'
// A TCP server that pays for live connections only. It answers lines, counts
// them, and keeps a buffer and a stream for each connection. One on which
// nothing comes for a while is parked: its descriptor goes to the container,
// with a tag that says all there is to know, and everything else is freed.
// When its peer speaks again it comes back, and the peer has noticed nothing.
//
// Partner: container.ts, to be started first. Try it with
// (printf 'hello\n'; sleep 5; printf 'again\n') | nc 127.0.0.1 7007
// and open tcp(7), read(2), unix(7) with it.
//
// New here: a live connection changes its process, and changes back.

import { closeSync } from 'node:fs'
import { type ConnectOpts, Socket, type SocketConstructorOpts } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  connect,
  connectionsOn,
  framesOf,
  sendFrame,
  serviceSocket,
  type UnixConn,
} from '../../lib/index.ts'
import {
  commandLine,
  defaultSocketPath,
  fail,
  help,
  messageOf,
  usageError,
} from '../../lib/script/cli.ts'

const USAGE = `Usage: ./examples/idle-container/front.ts [OPTIONS] [SOCKET]
Answers lines on a TCP port, and parks idle connections with the container on
SOCKET. The line "quit" hangs up. Ctrl-C ends it.
  -p, --port PORT     to listen on, at 127.0.0.1 (7007)
  -i, --idle SECONDS  without a byte, then a connection is parked (2)
  -q, --quiet         no line for each connection`

/** Bytes read at a time, and of a line. */
const BUFFER = 16384

/** What a front knows about a connection, as JSON in its tag. */
type Session = { readonly id: number; lines: number }

const { values, positionals } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      port: { type: 'string', short: 'p', default: '7007' },
      idle: { type: 'string', short: 'i', default: '2' },
      quiet: { type: 'boolean', short: 'q', default: false },
    },
    allowPositionals: true,
  },
  [0, 1],
)
const idle = Number(values.idle) * 1000
if (!(idle >= 1 && idle < 2 ** 31))
  usageError(USAGE, `Expected --idle in seconds, got "${values.idle}"`)
if (!/^\d+$/.test(values.port))
  usageError(USAGE, `Expected --port as a number, got "${values.port}"`)
const path = positionals[0] ?? defaultSocketPath('fdpass-idle')
const log = values.quiet ? (): void => {} : console.log

const stop = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => stop.abort())
}

let container: UnixConn | undefined
let parked = 0
const live = new Set<Socket>()

const listening = listenOn(Number(values.port))
console.log(`Front ready on 127.0.0.1:${values.port}, pid ${process.pid}`)
void keepContainer() // not awaited: clients are served without one, too

let id = 0
for await (const fd of connectionsOn(listening, stop.signal)) {
  id++
  log(`connection ${id}: accepted`)
  serve(fd, { id, lines: 0 })
}
container?.close()
for (const socket of live) socket.destroy()
console.log('Front stopped')

// Dials the container, and again if it is gone. Without one all goes on, only
// that nothing is parked.
async function keepContainer(): Promise<void> {
  let told = false
  while (!stop.signal.aborted) {
    try {
      container = await dial()
      told = false
      for await (const { value, fds } of framesOf(container, { maxFds: 1 })) {
        wake(value.woke, fds[0])
      }
      throw new Error('it hung up')
    } catch (error) {
      if (!told && !stop.signal.aborted) complain(messageOf(error))
      told = true
    }
    container?.close()
    container = undefined
    await sleep(1000, undefined, { signal: stop.signal }).catch(() => {})
  }
}

function complain(why: string): void {
  if (container === undefined)
    return console.log(`No container: ${why}; connections stay live`)
  // Its descriptors were closed with it, and we had no others.
  const lost = `the ${parked} that it held are lost`
  console.log(`Container gone: ${why}; ${lost}, ${live.size} live ones go on`)
  parked = 0
}

async function dial(): Promise<UnixConn> {
  const conn = await connect(path)
  // Whoever listens there gets to read what our clients say.
  const { pid, uid } = conn.peerCredentials()
  if (uid !== process.getuid?.()) {
    conn.close()
    throw new Error(
      `Expected a container of this user's, got one of uid ${uid}`,
    )
  }
  console.log(`Container on ${path}, pid ${pid}`)
  return conn
}

// Takes the descriptor over, whatever happens.
function wake(tag: unknown, fd: number | undefined): void {
  if (fd === undefined) throw new Error('Expected a descriptor, got none')
  parked--
  try {
    const session: Session = JSON.parse(String(tag))
    log(`connection ${session.id}: woke as fd ${fd}`)
    serve(fd, session)
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

function listenOn(port: number): number {
  try {
    return serviceSocket('tcp', '127.0.0.1', port)
  } catch (error) {
    return fail(error)
  }
}

// One connection, from its first byte or from where it was parked.
function serve(fd: number, session: Session): void {
  const name = `connection ${session.id}`
  // With a buffer of our own the stream never holds a byte, and pause() stops
  // the reading at once.
  const onread = { buffer: Buffer.alloc(BUFFER), callback: take }
  const options: SocketConstructorOpts & ConnectOpts = { fd, onread }
  const socket = new Socket(options)
  let rest = Buffer.alloc(0)
  live.add(socket)
  socket.setTimeout(idle)
  socket.on('timeout', () => void park())
  socket.on('drain', () => socket.resume()) // see take()
  socket.on('error', (error) => log(`${name}: ${messageOf(error)}`))
  socket.once('end', () => log(`${name}: hung up`))
  socket.once('close', () => live.delete(socket))

  // Returns whether to go on reading: not while the peer reads no answers.
  function take(length: number): boolean {
    const lines = Buffer.concat([rest, onread.buffer.subarray(0, length)])
    let start = 0
    let goOn = true
    for (;;) {
      const end = lines.indexOf('\n', start)
      if (end < 0) break
      if (!socket.writableEnded) {
        goOn = answer(lines.toString('utf8', start, end))
      }
      start = end + 1
    }
    rest = lines.subarray(start)
    if (rest.length > BUFFER)
      socket.destroy(new Error('Expected a shorter line'))
    return goOn
  }

  function answer(line: string): boolean {
    session.lines++
    log(`${name}: line ${session.lines}: ${JSON.stringify(line.slice(0, 80))}`)
    const text = `${session.lines}: ${line}\n`
    if (line !== 'quit') return socket.write(text)
    socket.end(text)
    return true
  }

  async function park(): Promise<void> {
    if (socket.writableEnded) return void socket.destroy()
    socket.setTimeout(idle) // again, should it stay
    // Not within a line or an answer: the tag has no place for the rest.
    const isBetween = rest.length === 0 && socket.writableLength === 0
    if (container === undefined || !isBetween) return
    try {
      // What the peer says from here on stays in the kernel.
      socket.pause()
      await sendFrame(container, { tag: JSON.stringify(session) }, [fd])
    } catch {
      return void socket.resume()
    }
    // Closes our descriptor. The connection has another, and does not notice.
    socket.destroy()
    live.delete(socket)
    parked++
    log(`${name}: idle, parked, ${parked} parked, ${live.size} live`)
  }
}

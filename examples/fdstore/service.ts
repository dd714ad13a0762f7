#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A TCP server whose connections outlive it. It answers lines and counts them,
// and gives each connection to the service manager to keep. If it crashes, or is
// replaced by a new version, the manager starts it anew with all of them, and no
// client notices: it only has to wait for its next answer. What was counted is
// kept in the same way, in a file that has no path.
//
// Partner: manager.ts, or systemd, where it goes by the name of "file descriptor
// store" (one shell command, without the line breaks):
//
//    systemd-run --user -p FileDescriptorStoreMax=66 -p Restart=always
//        -p Type=notify ./examples/fdstore/service.ts
//
// Try it with `nc 127.0.0.1 7070`: the line "crash" kills this process. Open
// sd_notify(3), sd_pid_notify_with_fds(3), sd_listen_fds(3), memfd_create(2).
//
// New here: descriptors that nobody uses are kept open by a third process, and
// with them all that the kernel keeps for them.
//
// Simplification: a line that was read when this process is killed, and not yet
// counted, gets no answer.

import { once } from 'node:events'
import { readSync, writeSync } from 'node:fs'
import { Socket } from 'node:net'

import {
  closeReceived,
  connectionsOn,
  memfd,
  serviceSocket,
  setCloseOnExec,
  UnixDatagram,
} from '../../lib/index.ts'
import {
  commandLine,
  fail,
  help,
  kindOf,
  messageOf,
  numberOption,
  onStop,
  PORTS,
  print,
} from '../../lib/script/cli.ts'
import { linesOf } from '../../lib/script/lines.ts'

const USAGE = `Usage: ./examples/fdstore/service.ts [-p PORT]
Answers lines on PORT of 127.0.0.1 (7070), and counts them. "quit" hangs up,
"crash" kills it. A service manager, which NOTIFY_SOCKET names, keeps its
connections; without one they end with it. Ctrl-C ends it.`

/** Connections at once. The store has to have room for two more descriptors. */
const CLIENTS = 64

/** SD_LISTEN_FDS_START: 0, 1 and 2 are the standard streams. */
const FIRST = 3

const COUNT_SIZE = 4

const { values } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      port: { type: 'string', short: 'p', default: '7070' },
    },
  },
  [0, 0],
)
const port = numberOption(USAGE, '--port', values.port, PORTS)

const stop = new AbortController()
onStop(() => stop.abort())

const manager = await openManager().catch(fail)
const kept = keptForUs()

// Made and given to the manager when this is started for the first time.
const counts = await keptOr('counts', () => {
  const size = COUNT_SIZE * CLIENTS
  return memfd('counts', { size, seal: ['shrink', 'grow'] })
}).catch(fail)
const listening = await keptOr('listening', () => {
  return serviceSocket('tcp', { host: '127.0.0.1', port })
}).catch(fail)

/** By the number that a connection's name in the store ends with. */
const clients = new Map<number, Socket>()
for (const [name, fd] of kept) {
  const [, number] = /^client-(\d+)$/.exec(name) ?? []
  if (number !== undefined) void serve(Number(number), fd)
  else await drop(name, fd)
}
print(
  `Server ready on 127.0.0.1 port ${port}, pid ${process.pid}, ` +
    `clients from before: ${clients.size}`,
)
await notify('READY=1')

try {
  for await (const fd of connectionsOn(listening, { signal: stop.signal }))
    await accept(fd)
} catch (error) {
  fail(error)
}
// Closes the descriptors that are open here. Kept by the manager, the
// connections go on.
for (const client of clients.values()) client.destroy()
manager?.close()

// Given to the manager before a line is answered: from then on a crash here does
// not end the connection.
async function accept(fd: number): Promise<void> {
  const number = freeNumber()
  if (number === undefined) {
    const socket = new Socket({ fd })
    socket.end('Expected fewer clients\n', () => socket.destroy())
    return
  }
  setCount(number, 0)
  await notify('FDSTORE=1', `client-${number}`, [fd])
  void serve(number, fd)
}

// Owns the descriptor. Never rejects.
async function serve(number: number, fd: number): Promise<void> {
  const socket = new Socket({ fd })
  clients.set(number, socket)
  try {
    for await (const line of linesOf(socket)) {
      if (socket.writableEnded) continue
      if (line === 'crash') process.kill(process.pid, 'SIGKILL')
      const count = countOf(number) + 1
      setCount(number, count)
      const hasRoom = socket.write(`${count}: ${line}\n`)
      if (line === 'quit') socket.end()
      else if (!hasRoom) await once(socket, 'drain', { signal: stop.signal })
    }
  } catch {
    socket.destroy() // the client is gone, or this service is to end
  }
  if (stop.signal.aborted) return
  await notify('FDSTOREREMOVE=1', `client-${number}`)
  clients.delete(number)
}

// The descriptors that the manager has kept, by name. It passes them as it
// passes the sockets of a socket unit: from descriptor 3 on, with their names in
// the environment. Each name of ours is there once, as it is stored once.
function keptForUs(): Map<string, number> {
  const { LISTEN_PID, LISTEN_FDS = '0', LISTEN_FDNAMES = '' } = process.env
  // The environment is inherited, and may be meant for a process before us.
  if (LISTEN_PID !== `${process.pid}`) return new Map()
  const names = LISTEN_FDNAMES.split(':')
  const fds = Array.from({ length: Number(LISTEN_FDS) }, (_, n) => FIRST + n)
  // All are checked before any is touched: where nothing was passed, descriptor
  // 3 is open all the same. It belongs to Node's event loop.
  for (const fd of fds) checkKind(fd)
  return new Map(
    fds.map((fd, n) => [names[n] ?? 'unknown', setCloseOnExec(fd)]),
  )
}

function checkKind(fd: number): void {
  const kind = kindOf(fd)
  if (kind === 'socket' || kind === 'file') return
  fail(`Expected a socket or a file as descriptor ${fd}, got: ${kind}`)
}

async function keptOr(name: string, make: () => number): Promise<number> {
  const fd = kept.get(name) ?? make()
  if (!kept.delete(name)) await notify('FDSTORE=1', name, [fd])
  return fd
}

// One that an earlier version of this service had stored.
async function drop(name: string, fd: number): Promise<void> {
  closeReceived(fd)
  await notify('FDSTOREREMOVE=1', name)
}

/** The socket of the service manager, if there is one: see sd_notify(3). */
async function openManager(): Promise<UnixDatagram | undefined> {
  const { NOTIFY_SOCKET: path } = process.env
  if (path === undefined) return undefined
  return await UnixDatagram.open({ peer: path.replace(/^@/, '\0') })
}

// Resolved once the datagram is in the manager's socket, where it stays, with
// its descriptors, if this process is killed.
async function notify(
  what: string,
  name?: string,
  fds: readonly number[] = [],
): Promise<void> {
  const words = name === undefined ? [what] : [what, `FDNAME=${name}`]
  try {
    await manager?.send(words.join('\n'), { fds })
  } catch (error) {
    print(`Not told to the manager: ${messageOf(error)}`)
  }
}

function freeNumber(): number | undefined {
  for (let number = 0; number < CLIENTS; number++) {
    if (!clients.has(number)) return number
  }
  return undefined
}

function countOf(number: number): number {
  const bytes = Buffer.alloc(COUNT_SIZE)
  readSync(counts, bytes, 0, COUNT_SIZE, number * COUNT_SIZE)
  return bytes.readUInt32LE()
}

function setCount(number: number, count: number): void {
  const bytes = Buffer.alloc(COUNT_SIZE)
  bytes.writeUInt32LE(count)
  writeSync(counts, bytes, 0, COUNT_SIZE, number * COUNT_SIZE)
}

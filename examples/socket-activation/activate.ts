#!/bin/sh
true //; SOFT_NOFILE=$(ulimit -Sn) exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// Listens on behalf of a service and starts it when the first client connects:
// what systemd does with a .socket unit, and systemd-socket-activate on a
// terminal. Until then the service costs nothing. The client waits in the queue
// of the socket and notices nothing but the delay. The command may be any that
// knows the contract: service.ts, the partner, or
//    ./examples/socket-activation/activate.ts -l 2000 --accept --inetd cat
// Open sd_listen_fds(3), systemd-socket-activate(1), inetd(8).
// New here: descriptors given to a program at its start, under agreed numbers.

import type { ChildProcess } from 'node:child_process'
import { closeSync } from 'node:fs'

import {
  connectionsOn,
  duplicate,
  ListeningSocket,
  serviceSocket,
  waitReadable,
} from '../../lib/index.ts'
import { fail, messageOf, onStop, orFail } from '../../lib/script/cli.ts'
import { printable } from '../../lib/script/printable.ts'
import { listenFds } from './listen-fds.ts'
import { MOST_INSTANCES, settings } from './settings.ts'
import { environment, exitOf, start } from './start.ts'

// An activator may itself have been activated. The sockets that it was given go
// to the command, like those that it opens.
const passed = orFail(listenFds).map(({ fd }) => {
  return new ListeningSocket(fd, `fd ${fd}`)
})
const { addresses, accept, datagram, inetd, names, setenv, command } = settings(
  passed.length,
)
const env = environment(setenv, names)

const stop = new AbortController()
const commands = new Set<ChildProcess>()
onStop((signal) => {
  stop.abort()
  // Ctrl-C has reached them already: it is for the whole foreground.
  if (signal === 'SIGINT') return
  for (const child of commands) child.kill(signal)
})

const sockets = [...passed]
for (const address of addresses) {
  sockets.push(await open(address).catch(giveUp))
}
const where = sockets.map(({ address }) => printable(address)).join(', ')
console.log(`Server ready on ${where}, pid ${process.pid}`)

await (accept ? startForEach() : startForFirst())
for (const socket of sockets) socket.unlink()

// Waits without accepting: the connection is for the command to accept. After
// that only the command has the sockets: if it ends, clients are refused.
async function startForFirst(): Promise<void> {
  const visited = await firstVisit().catch(giveUp)
  if (visited === undefined) return
  try {
    const child = begin(sockets.map(({ fd }) => fd))
    console.log(`Somebody came to ${visited}: started pid ${child.pid}`)
    for (const socket of sockets) socket.close()
    process.exitCode = await ended(child)
  } catch (error) {
    giveUp(error)
  }
}

// The address that a client has connected to; undefined after a signal.
async function firstVisit(): Promise<string | undefined> {
  const visited = new AbortController()
  const signal = AbortSignal.any([stop.signal, visited.signal])
  const visits = sockets.map(async ({ fd, address }) => {
    await waitReadable(fd, { signal })
    return printable(address)
  })
  try {
    return await Promise.race(visits)
  } catch (error) {
    if (stop.signal.aborted) return undefined
    throw error
  } finally {
    visited.abort()
  }
}

// Accepts, and gives each connection to a command. Our copy is closed at once:
// a client gets the end of file only when every copy is closed.
async function startForEach(): Promise<void> {
  const acceptOn = async ({ fd, address }: ListeningSocket) => {
    for await (const conn of connectionsOn(duplicate(fd), {
      signal: stop.signal,
    })) {
      startFor(conn, printable(address))
      closeSync(conn)
    }
  }
  await Promise.all(sockets.map(acceptOn)).catch(giveUp)
}

// If a command cannot be started, its client alone loses the connection.
function startFor(conn: number, address: string): void {
  if (commands.size >= MOST_INSTANCES)
    return console.log(
      `Turned away from ${address}: ${commands.size} are running`,
    )
  const told = (error: unknown): void => {
    console.error(printable(`Could not start COMMAND: ${messageOf(error)}`))
  }
  try {
    const child = begin([conn])
    console.log(`Somebody came to ${address}: started pid ${child.pid}`)
    ended(child).catch(told)
  } catch (error) {
    told(error)
  }
}

function begin(fds: readonly number[]): ChildProcess {
  const child = start(command, { env, fds, inetd })
  commands.add(child)
  return child
}

async function ended(child: ChildProcess): Promise<number> {
  try {
    const code = await exitOf(child)
    console.log(`Process ${child.pid} ended: exit ${code}`)
    return code
  } finally {
    commands.delete(child)
  }
}

async function open(address: string): Promise<ListeningSocket> {
  if (!datagram) return await ListeningSocket.open(address)
  const [, host = '', port] = /^\[?(.+?)\]?:(\d+)$/.exec(address) ?? []
  const fd = serviceSocket('udp', { host, port: Number(port) })
  return new ListeningSocket(fd, address)
}

function giveUp(error: unknown): never {
  for (const socket of sockets) socket.unlink()
  return fail(error)
}

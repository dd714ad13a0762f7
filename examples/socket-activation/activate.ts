#!/usr/bin/env -S sh -c 'exec "${0%/*}/../../lib/script/run" "$0" "$@"'
// Listens on behalf of a service and starts it when somebody comes: what
// systemd does with a .socket unit, and systemd-socket-activate on a terminal.
// Until then the service costs nothing, and the client that woke it waits in
// the socket's queue and notices nothing but the delay. The command may be
// anything that knows the contract: service.ts, the partner, or
//    ./examples/socket-activation/activate.ts -l 2000 --accept -- \
//        sh -c 'cat <&3 >&3'
// Open sd_listen_fds(3), systemd-socket-activate(1), fcntl(2) for F_SETFL.
// New here: descriptors given to a program at its start, under agreed numbers.

import type { ChildProcess } from 'node:child_process'
import { closeSync } from 'node:fs'
import {
  canonicalAddress,
  connectionsOn,
  duplicate,
  ListeningSocket,
  Watcher,
} from '../../lib/index.ts'
import {
  commandLine,
  cutAtCommand,
  fail,
  help,
  messageOf,
  usageError,
} from '../../lib/script/cli.ts'
import { environment, exitOf, start } from './start.ts'

const USAGE = `Usage: ./activate.ts -l ADDRESS... [OPTIONS] -- COMMAND...
Listens, waits for the first connection and starts COMMAND with the sockets
from descriptor 3 on. Ctrl-C ends it.
  -l, --listen ADDRESS  PORT (of 127.0.0.1), ADDR:PORT, [ADDR]:PORT or a path
  -a, --accept          start a COMMAND for each connection, with that as 3
      --fdname NAMES    names of the sockets, with colons between them
  -E, --setenv NAME[=VALUE]  a variable for COMMAND, whose environment is new`

/** Most commands at once with --accept. */
const MOST_INSTANCES = 64

const options = {
  ...help,
  listen: { type: 'string', short: 'l', multiple: true },
  accept: { type: 'boolean', short: 'a' },
  fdname: { type: 'string' },
  setenv: { type: 'string', short: 'E', multiple: true },
} as const
const { args, command } = cutAtCommand(options)
const { values } = commandLine(USAGE, { args, options }, [0, 0])
if (command.length === 0) usageError(USAGE, 'Expected COMMAND, got none')
const addresses = checkedAddresses(values.listen ?? [])
const names = checkedNames(values.fdname)
const env = environment(checkedSettings(values.setenv ?? []), names)

const stop = new AbortController()
const commands = new Set<ChildProcess>()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    stop.abort()
    // Ctrl-C has reached them already: it is for the whole foreground.
    if (signal === 'SIGINT') return
    for (const child of commands) child.kill(signal)
  })
}

const sockets: ListeningSocket[] = []
for (const address of addresses) {
  sockets.push(await ListeningSocket.open(address).catch(giveUp))
}
console.log(`Server ready on ${addresses.join(', ')}, pid ${process.pid}`)

await (values.accept ? startForEach() : startForFirst())
for (const socket of sockets) socket.unlink()

// Waits without accepting: the connection is for the command to accept. Then
// the command has the sockets alone, and if it ends nobody is kept waiting.
async function startForFirst(): Promise<void> {
  const visited = await firstVisit().catch(giveUp)
  if (visited === undefined) return
  const child = begin(sockets.map(({ fd }) => fd))
  console.log(`Somebody came to ${visited}: started pid ${child.pid}`)
  for (const socket of sockets) socket.close()
  process.exitCode = await ended(child)
}

// The address that somebody has come to; undefined after a signal. A watcher
// closes its descriptor in the end, hence the duplicates.
async function firstVisit(): Promise<string | undefined> {
  const watchers: Watcher[] = []
  const visited = await new Promise<string | undefined>((resolve, reject) => {
    stop.signal.addEventListener('abort', () => resolve(undefined))
    for (const { fd, address } of sockets) {
      const watcher = new Watcher(duplicate(fd), (failure) => {
        failure ? reject(failure) : resolve(address)
      })
      watchers.push(watcher)
      watcher.watch()
    }
  })
  for (const watcher of watchers) watcher.close()
  return visited
}

// Accepts, and gives each connection away. Ours is closed at once: a client is
// at the end of its input when all holders have closed, not only the command.
async function startForEach(): Promise<void> {
  const acceptOn = async ({ fd, address }: ListeningSocket) => {
    for await (const conn of connectionsOn(duplicate(fd), stop.signal)) {
      if (commands.size >= MOST_INSTANCES) {
        console.log(`Turned away from ${address}: ${commands.size} are running`)
      } else {
        const child = begin([conn])
        console.log(`Somebody came to ${address}: started pid ${child.pid}`)
        void ended(child)
      }
      closeSync(conn)
    }
  }
  await Promise.all(sockets.map(acceptOn))
}

function begin(fds: readonly number[]): ChildProcess {
  const child = start(command, env, fds)
  commands.add(child)
  return child
}

async function ended(child: ChildProcess): Promise<number> {
  const code = await exitOf(child).catch(giveUp)
  commands.delete(child)
  console.log(`Process ${child.pid} ended: exit ${code}`)
  return code
}

function checkedAddresses(listen: readonly string[]): string[] {
  try {
    if (listen.length === 0) throw new Error('Expected -l ADDRESS, got none')
    return listen.map(canonicalAddress)
  } catch (error) {
    return usageError(USAGE, messageOf(error))
  }
}

function checkedNames(names: string | undefined): string | undefined {
  const expected = values.accept ? 1 : addresses.length
  const got = names?.split(':').length ?? expected
  if (got !== expected)
    usageError(USAGE, `Expected ${expected} names in --fdname, got ${got}`)
  return names
}

function checkedSettings(settings: readonly string[]): readonly string[] {
  const wrong = settings.find((setting) => !/^\w+(=|$)/.test(setting))
  if (wrong !== undefined)
    usageError(USAGE, `Expected -E NAME or NAME=VALUE, got ${wrong}`)
  return settings
}

function giveUp(error: unknown): never {
  for (const socket of sockets) socket.unlink()
  return fail(error)
}

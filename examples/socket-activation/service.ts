#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// An HTTP service that need not open its own sockets: it serves those that it
// was started with, under our activate.ts, under systemd-socket-activate or
// under systemd itself, and opens a port only if it is started by hand.
//
// You will see one line for each socket, then requests answered:
//
//    ./examples/socket-activation/activate.ts -l 8080 -l /tmp/web.sock \
//        --fdname=web:local -- ./examples/socket-activation/service.ts
//    curl localhost:8080; curl --unix-socket /tmp/web.sock localhost
//
// Partners: listen-fds.ts, activate.ts. Open sd_listen_fds(3).
// New here: a descriptor that is there from the start, and of which nothing is
// known but its number.

import { once } from 'node:events'
import { createServer, type Server } from 'node:http'

import {
  commandLine,
  fail,
  help,
  messageOf,
  numberOption,
  onStop,
  orFail,
  PORTS,
  usageError,
} from '../../lib/script/cli.ts'
import { printable } from '../../lib/script/printable.ts'
import { listenFds, otherAddressee } from './listen-fds.ts'

const USAGE = `Usage: ./examples/socket-activation/service.ts [PORT]
Serves HTTP on the sockets that it was started with (LISTEN_FDS), or, if there
are none, on PORT of 127.0.0.1. Ctrl-C ends it.`

const { positionals } = commandLine(
  USAGE,
  { options: help, allowPositionals: true },
  [0, 1],
)

const servers: Server[] = []
const ready: string[] = []
const other = otherAddressee()
const passed = orFail(listenFds)
for (const { fd, name } of passed) {
  servers.push(await serve({ fd }, name))
  ready.push(`fd ${fd} (${printable(name)})`)
}
if (passed.length === 0) {
  const server = await serve({ port: ownPort(), host: '127.0.0.1' }, 'own')
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : address
  servers.push(server)
  ready.push(`port ${port}`)
}

onStop(() => {
  for (const server of servers) server.close()
})

for (const where of ready)
  console.log(`Server ready on ${where}, pid ${process.pid}`)

// The server owns the descriptor: close() closes it, but leaves a socket file,
// which is the activator's. It may start us again.
async function serve(
  where: { fd: number } | { port: number; host: string },
  name: string,
): Promise<Server> {
  const server = createServer((request, response) => {
    response.end(`Hello from ${name}, pid ${process.pid}: ${request.url}\n`)
  })
  server.listen(where)
  // A connection, as from an activator with --accept, is EINVAL to listen(2).
  await once(server, 'listening').catch((error) => {
    fail(`Expected a socket that listens as ${name}, got ${messageOf(error)}`)
  })
  return server
}

function ownPort(): number {
  const [port] = positionals
  if (port !== undefined) return numberOption(USAGE, 'PORT', port, PORTS)
  const expected = 'Expected sockets from an activator, or a PORT'
  if (!other) return usageError(USAGE, expected)
  return usageError(USAGE, `${expected}: ${other}; a wrapper has to exec it`)
}

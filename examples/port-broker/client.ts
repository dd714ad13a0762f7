#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// Asks the broker for a port, and uses it: with a command behind `--` that is
// started with the socket as its fd 3, in the way of socket activation, so that
// any program made for systemd's sockets will do; without one, as a web server
// that answers with one line. Needs no privilege at all, whatever the port.
//
// Partner: server.ts, to be started first. Open sd_listen_fds(3), accept(2).
//
// New here: net.Server on a socket that another process, and user, has bound.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { createServer } from 'node:http'
import { isIPv6 } from 'node:net'
import { constants } from 'node:os'
import { framesOf, sendFrame } from '../../lib/index.ts'
import {
  commandLine,
  cutAtCommand,
  defaultSocketPath,
  dial,
  fail,
  help,
  numberOption,
  onStop,
  ownPeer,
  usageError,
} from '../../lib/script/cli.ts'
import { printable } from '../../lib/script/printable.ts'

const USAGE = `Usage: ./examples/port-broker/client.ts [OPTIONS] PORT
       ./examples/port-broker/client.ts [OPTIONS] PORT -- COMMAND [ARG...]
Serves a line on http://ADDRESS:PORT/, or runs COMMAND with the socket as its
fd 3 (LISTEN_FDS=1).
  -a, --address ADDRESS  to bind to, in digits (127.0.0.1)
  -u, --udp              UDP, which needs a COMMAND
  -s, --socket SOCKET    where the server is, if another user runs it`

const options = {
  ...help,
  address: { type: 'string', short: 'a', default: '127.0.0.1' },
  udp: { type: 'boolean', short: 'u', default: false },
  socket: { type: 'string', short: 's' },
} as const
const {
  args: own,
  command: [command, ...args],
} = cutAtCommand(options, 1)
const { values, positionals } = commandLine(
  USAGE,
  { args: own, options, allowPositionals: true },
  [1, 1],
)
const [given = ''] = positionals
const port = numberOption(USAGE, 'PORT', given, [1, 65535])
const { address, udp } = values
if (udp && command === undefined) usageError(USAGE, 'Expected COMMAND with -u')
const path = values.socket ?? defaultSocketPath('fdpass-port-broker')

const fd = await obtain().catch(fail)
if (command === undefined) await serve()
else await runCommand(command)

// The socket. The caller owns it.
async function obtain(): Promise<number> {
  const conn = await dial(path, './examples/port-broker/server.ts RULES')
  // A server of another user could keep a copy, and take our clients.
  ownPeer(conn)
  const protocol = udp ? 'udp' : 'tcp'
  // If the server has hung up, what it said before tells more than EPIPE.
  await sendFrame(conn, { protocol, address, port }).catch(() => {})
  for await (const { value, fds } of framesOf(conn, { maxFds: 1 })) {
    const [fd] = fds
    if (fd === undefined) fail(value.error)
    const what = printable(String(value.granted))
    console.error(`Got ${what} as fd ${fd}, pid ${process.pid}`)
    conn.close()
    return fd
  }
  return fail('The server went away')
}

async function serve(): Promise<void> {
  const line = `Hello from pid ${process.pid}, uid ${process.getuid?.()}\n`
  const server = createServer((_, response) => response.end(line))
  // The server owns the descriptor from here on. Listening again is harmless.
  server.listen({ fd })
  await once(server, 'listening').catch(fail)
  onStop(() => {
    server.close()
    server.closeAllConnections()
  })
  const host = isIPv6(address) ? `[${address}]` : address
  console.log(`Serving on http://${host}:${port}/`)
}

async function runCommand(command: string): Promise<void> {
  // An activator that has started this client gave names to other descriptors.
  const { LISTEN_FDNAMES: _, ...environment } = process.env
  // LISTEN_PID has to be the pid of the program itself, which is known only
  // once that process exists. So the shell that becomes the program sets it.
  const shell = ['-c', 'LISTEN_PID=$$ exec "$@"', 'sh', command, ...args]
  // Before there is a child, so that no signal ends this process alone.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => child.kill(signal))
  }
  const child = spawn('sh', shell, {
    stdio: ['inherit', 'inherit', 'inherit', fd],
    env: { ...environment, LISTEN_FDS: '1' },
  })
  // The child has it. A copy here would keep the port taken after its end.
  closeSync(fd)
  const [code, signal] = await once(child, 'exit').catch(fail)
  // As a shell tells it.
  process.exitCode = code ?? 128 + constants.signals[signal as NodeJS.Signals]
}

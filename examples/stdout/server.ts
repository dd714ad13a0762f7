#!/usr/bin/env -S sh -c 'exec "${0%/*}/../../lib/script/run" "$0" "$@"'
// The server prints on its clients' standard output: what each of them sends
// becomes that of a child process. The child is echo(1), which knows nothing
// about sockets and prints on its fd 1, whatever that may be.
//
// Partner: client.ts, or any program that sends its fd 1 beside some bytes. The
// line appears there, not here. Open unix(7), dup2(2), fork(2) with it.
// After: the dup2 program of "Passing open file descriptors over unix domain
// sockets".
// New here: a received descriptor becomes a child's fd 1. spawn() forks, and
// in the child does with dup2 what `stdio` asks for.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { describeFd, listen, type UnixConn } from '../../lib/index.ts'
import {
  commandLine,
  defaultSocketPath,
  fail,
  help,
  messageOf,
} from '../../lib/script/cli.ts'

const USAGE = `Usage: ./examples/stdout/server.ts [SOCKET]
Waits for clients on SOCKET and prints a line on the standard output that each
of them sends. Ctrl-C ends it.`

const LINE = 'This message will be displayed on client stdout'

const { positionals } = commandLine(
  USAGE,
  { options: help, allowPositionals: true },
  [0, 1],
)
const path = positionals[0] ?? defaultSocketPath('fdpass-stdout')

const listener = await listen(path).catch(fail)
console.log(`Server ready on ${path}, pid ${process.pid}`)

// Closing the listener ends the loop below and removes the socket file.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => listener.close())
}

const clients = new Set<UnixConn>()
const children = new Set<ChildProcess>()
let count = 0
for await (const conn of listener) {
  count++
  clients.add(conn)
  // Not awaited: nobody has to wait for a client that is slow or silent.
  void serve(conn, `client ${count}`)
}

for (const conn of clients) conn.close()
for (const child of children) child.kill()
console.log('Server stopped')

async function serve(conn: UnixConn, client: string): Promise<void> {
  try {
    // What comes beside the descriptor means nothing: C clients send whatever
    // bytes they have at hand.
    const message = await conn.recvFds({ maxFds: 1 })
    if (message === null) return console.log(`${client}: left without a word`)
    const [fd] = message.fds
    if (fd === undefined) return console.log(`${client}: No descriptor came`)

    const child = start(fd)
    await once(child, 'spawn')
    children.add(child)
    console.log(`${client}: fd ${fd} here is fd 1 of child ${child.pid}`)
    const [code, signal] = await once(child, 'close')
    children.delete(child)
    const end = code === 0 ? 'printed there' : 'could not print there'
    console.log(`${client}: ${end}, ${signal ?? `exit code ${code}`}`)
  } catch (error) {
    console.log(`${client}: ${messageOf(error)}`)
  } finally {
    conn.close()
    clients.delete(conn)
  }
}

// Takes the descriptor over, whatever happens. stderr is ignored: echo would
// complain here about a terminal that is gone there.
function start(fd: number): ChildProcess {
  try {
    if (describeFd(fd).access === 'read')
      throw new Error('Expected a descriptor to write to, got a read-only one')
    return spawn('echo', [LINE], { stdio: ['ignore', fd, 'ignore'] })
  } finally {
    // The child has its own by now: spawn() returns after the fork. As long as
    // any copy is open, whoever reads the client's pipe waits for the end.
    closeSync(fd)
  }
}

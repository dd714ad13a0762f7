#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// The server prints on its clients' standard output: what each of them sends
// becomes that of a child process. The child is echo(1), which knows nothing
// about sockets and prints on its fd 1, whatever that may be.
//
// Partner: client.ts, or any program that sends its fd 1 beside some bytes. The
// line appears there, not here. Open unix(7), dup2(2), fork(2) with it.
// Modelled on: the dup2 program of "Passing open file descriptors over unix
// domain sockets".
// New here: a received descriptor becomes a child's fd 1. spawn() forks, and
// in the child does with dup2 what `stdio` asks for.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeReceived,
  describeFd,
  listen,
  type ReceivedFds,
  type UnixConn,
} from '../../lib/index.ts'
import {
  fail,
  firstMessage,
  messageOf,
  onStop,
  print,
  socketArgument,
} from '../../lib/script/cli.ts'

const USAGE = `Usage: ./examples/stdout/server.ts [SOCKET]
Waits for clients on SOCKET and prints a line on the standard output that each
of them sends. Ctrl-C ends it.`

/** How long a child may take to print a line, in ms. */
const PATIENCE = 5000

const LINE = 'This message will be displayed on client stdout'

const path = socketArgument(USAGE, 'fdpass-stdout')

const listener = await listen(path).catch(fail)

// close() removes the socket file and hangs up on all clients.
const children = new Set<ChildProcess>()
onStop(() => {
  listener.close()
  for (const child of children) child.kill()
})
print(`Server ready on ${path}, pid ${process.pid}`)

// While there are 50 clients, the next one waits to be accepted.
let count = 0
const handler = async (conn: UnixConn): Promise<void> => {
  // What comes beside the descriptor means nothing: C clients send whatever
  // bytes they have at hand.
  const got = await firstMessage(conn, { maxFds: 1 }).catch(
    (error: Error) => error,
  )
  // Who hangs up at once is a second server, asking whether this path is taken.
  if (got === null || conn.fd < 0) return
  const client = `client ${++count}`
  const end = await printThere(got, client).catch(messageOf)
  if (conn.fd >= 0) print(`${client}: ${end}`)
}
await listener.serve(handler, { maxConnections: 50 }).catch(fail)
print('Server stopped')

async function printThere(
  got: ReceivedFds | Error,
  client: string,
): Promise<string> {
  if (got instanceof Error) return got.message
  const [fd] = got.fds
  if (fd === undefined) return 'No descriptor came'

  const child = start(fd)
  await once(child, 'spawn')
  children.add(child)
  print(`${client}: fd ${fd} here is fd 1 of child ${child.pid}`)
  // It would wait for ever where nobody reads what it prints.
  const deadline = setTimeout(() => child.kill(), PATIENCE)
  const [code, signal] = await once(child, 'close')
  clearTimeout(deadline)
  children.delete(child)
  const end = code === 0 ? 'printed there' : 'could not print there'
  return `${end}, ${signal ?? `exit code ${code}`}`
}

// Takes the descriptor over, whatever happens. stderr is ignored: echo would
// complain here about a terminal that is gone there.
function start(fd: number): ChildProcess {
  try {
    if (describeFd(fd).access === 'read')
      throw new Error('Expected a descriptor to write to, got a read-only one')
    return spawn('echo', [LINE], { stdio: ['ignore', fd, 'ignore'] })
  } finally {
    // The child has its own by now: spawn() returns after the fork. While any
    // copy is open, the reader of the client's pipe gets no end of file.
    closeReceived(fd)
  }
}

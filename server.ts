#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/lib/script/run" "$0" "$@"

// The server reads what people type at their clients, from the clients' own
// standard input. Start it in one terminal and client.ts in another: the lines
// that you type there appear here, and the client never touches them.
//
// The client's fd 0 is another fd here, for the same open file description,
// and that is what the server reads. Partner: client.ts. Open unix(7), cmsg(3)
// and recvmsg(2) with it. Read next: examples/bare.ts.

import {
  listen,
  type ReceivedFds,
  readableFrom,
  type UnixConn,
} from './lib/index.ts'
import {
  fail,
  firstMessage,
  kindOf,
  messageOf,
  onStop,
  print,
  socketArgument,
} from './lib/script/cli.ts'
import { linesOf } from './lib/script/lines.ts'

const USAGE = `Usage: ./server.ts [SOCKET]
Waits for clients on SOCKET and prints the lines that can be read from the
standard input that each of them sends. Ctrl-C ends it.`

const path = socketArgument(USAGE, 'fdpass')
const listener = await listen(path).catch(fail)

// close() removes the socket file and hangs up on all clients.
onStop(() => listener.close())
print(`Server ready on ${path}, pid ${process.pid}`)

// Each connection has its own call of the handler and is closed when that ends.
// While there are 50, the next client waits to be accepted.
let count = 0
const handler = async (conn: UnixConn): Promise<void> => {
  // From the kernel: the client cannot choose what this says.
  const { pid, uid } = conn.peerCredentials()
  // Bytes and descriptors. More than `maxFds` are an error: each takes memory.
  const got = await firstMessage(conn, { maxFds: 8 }).catch(
    (error: Error) => error,
  )
  // Who hangs up at once is a second server, asking whether this path is taken.
  if (got === null || conn.fd < 0) return
  const client = `client ${++count}`
  print(`${client}: connected, pid ${pid}, uid ${uid}`)
  const reason = await serve(conn, client, got).catch(messageOf)
  if (conn.fd < 0) return // This server is stopping and has closed it.
  print(`${client}: ${reason}`)
  await conn.sendmsg(reason).catch(() => {}) // The client may be gone already.
}
await listener.serve(handler, { maxConnections: 50 }).catch(fail)
print('Server stopped')
process.exit() // A read that never ends would keep it.

// Returns why the server has stopped reading.
async function serve(conn: UnixConn, client: string, got: ReceivedFds | Error) {
  if (got instanceof Error) return got.message
  const { data, fds } = got
  print(`${client}: says "${data.toString('utf8', 0, 200)}"`)
  if (fds.length === 0) return 'No descriptor came'

  // The numbers are the lowest that were free here; the client's are others.
  const over = new AbortController()
  const readings = fds.map(async (fd, index) => {
    const theirs = index === 0 ? 'fd 0 there' : 'another there'
    print(`${client}: fd ${fd} here, ${theirs}: ${kindOf(fd)}`)
    return printLines(fd, client, over.signal)
  })
  const ends = readings.map((reading) => reading.catch(messageOf))
  const end = Promise.all(ends).then((all) => [...new Set(all)].join('; '))
  try {
    return await Promise.race([end, hungUp(conn)])
  } finally {
    // Before the client is told: if the server went on reading, it would take
    // from the shell a part of what is typed.
    over.abort()
  }
}

// The stream closes the descriptor, at its end or when it is over.
async function printLines(fd: number, client: string, over: AbortSignal) {
  for await (const line of linesOf(readableFrom(fd, { signal: over }))) {
    if (over.aborted) break
    await print(`${client}> ${line}`) // Long inputs leave time for others.
  }
  return 'End of input'
}

// The client has nothing more to send, so this waits until it hangs up.
async function hungUp(conn: UnixConn): Promise<string> {
  const more = await conn.recvFds({ maxFds: 0 })
  if (more !== null) return 'Expected one message, got two'
  return 'hung up, its input is closed'
}

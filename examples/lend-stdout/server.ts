#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// The server sends its standard output to every client that asks: it sends
// "Send me your Stdout", gets it, and what it writes then appears here,
// although no line of this file prints it.
//
// Partner: client.ts, or the client of markdingo's go-fdpass-demo (with --go
// here). Open unix(7), sendmsg(2) with it.
//
// Security: by design. Whoever may connect, which is this user and root, writes
// to this terminal whatever it likes, control sequences as well, and reads from
// it too if it was opened for both. Nothing here sees those bytes.
// Modelled on: the server of that program.
// New here: the server sends the descriptor, and the client receives it. Over a
// connection descriptors go both ways.

import { listen, type ReceivedFds, type UnixConn } from '../../lib/index.ts'
import {
  commandLine,
  defaultSocketPath,
  fail,
  firstMessage,
  help,
  messageOf,
  onStop,
  print,
  usageError,
} from '../../lib/script/cli.ts'

const USAGE = `Usage: ./examples/lend-stdout/server.ts [OPTIONS] [SOCKET]
Sends its standard output to everyone who asks on SOCKET. Ctrl-C ends it.
That gives a terminal away: they write to it as they like, control sequences
too, and nothing takes it back.
      --go            on /tmp/mysocket, as the Go program does
  -m, --message TEXT  what to send beside it ("Here is my stdout")`

const { values, positionals } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      go: { type: 'boolean' },
      message: { type: 'string', short: 'm', default: 'Here is my stdout' },
    },
    allowPositionals: true,
  },
  [0, 1],
)
if (values.message === '') usageError(USAGE, 'Expected TEXT, got an empty one')
const usual = values.go ? '/tmp/mysocket' : defaultSocketPath('fdpass-lend')
const path = positionals[0] ?? usual

const listener = await listen(path).catch(fail)

// close() removes the socket file and hangs up on all clients.
onStop(() => listener.close())
print(`Server ready on ${path}, pid ${process.pid}`)

// While there are 50 clients, the next one waits to be accepted.
let count = 0
const handler = async (conn: UnixConn): Promise<void> => {
  // Any words will do, as in the Go program: to ask is to send something.
  const limits = { maxBytes: 1024, maxFds: 0 }
  const asked = await firstMessage(conn, limits).catch((error: Error) => error)
  // Who hangs up at once is a second server, asking whether this path is taken.
  if (asked === null || conn.fd < 0) return
  const client = `client ${++count}`
  const end = await lend(conn, client, asked).catch(messageOf)
  if (end !== undefined && conn.fd >= 0) print(`${client}: ${end}`)
}
await listener.serve(handler, { maxConnections: 50 }).catch(fail)
print('Server stopped')

async function lend(
  conn: UnixConn,
  client: string,
  asked: ReceivedFds | Error,
): Promise<string | undefined> {
  const { pid } = conn.peerCredentials()
  print(`New Client: ${client}, pid ${pid}`)
  if (asked instanceof Error) return asked.message
  print(`Client Request: ${asked.data}`)

  // Lent for good: nothing can take it back, so that the client can write
  // here for as long as it likes, even after this program has ended.
  await conn.sendFds(values.message, [1])
  return undefined
}

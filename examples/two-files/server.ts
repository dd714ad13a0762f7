#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// The server prints files that it never opened: each client sends descriptors
// of its own, two or any other number, and leaves.
//
// Partner: client.ts, or a C program that sends two descriptors beside 256
// bytes of filler, which mean nothing. Open unix(7), cmsg(3), read(2) with it.
// Modelled on: "Passing open file descriptors over unix domain sockets".
// New here: several descriptors, which come in the order they were sent in.
// Simplification: files of two clients at once are printed mixed. Printed one
// by one, a pipe to which its sender never writes would hold up all the others.

import type { Readable } from 'node:stream'
import {
  closeReceived,
  describeFd,
  listen,
  type ReceivedFds,
  readableFrom,
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
import { show } from '../../lib/script/print.ts'

const USAGE = `Usage: ./examples/two-files/server.ts [SOCKET]
Waits for clients on SOCKET and prints the files that they pass to it. Ctrl-C
ends it.`

/** How long an input may give nothing, in ms. */
const PATIENCE = 5000

const path = socketArgument(USAGE, 'fdpass-files')

const listener = await listen(path).catch(fail)

// close() removes the socket file and hangs up on all clients.
const inputs = new Set<Readable>()
onStop(() => {
  listener.close()
  for (const input of inputs) input.destroy()
})
print(`Server ready on ${path}, pid ${process.pid}`)

// Any number of files may be on their way to it at once.
process.stdout.setMaxListeners(0)

// While there are 50 clients, the next one waits to be accepted.
let count = 0
const handler = async (conn: UnixConn): Promise<void> => {
  // No limit but the kernel's, which is 253 in a message on Linux. They come
  // whole with its first byte, however the bytes behind it are cut.
  const got = await firstMessage(conn, {}).catch((error: Error) => error)
  // Who hangs up at once is a second server, asking whether this path is taken.
  if (got === null || conn.fd < 0) return
  const client = `client ${++count}`
  const problem = await printFiles(got).catch(messageOf)
  if (problem !== undefined && conn.fd >= 0) print(`${client}: ${problem}`)
}
await listener.serve(handler, { maxConnections: 50 }).catch(fail)
print('Server stopped')
process.exit() // A read that never ends would keep it.

async function printFiles(
  got: ReceivedFds | Error,
): Promise<string | undefined> {
  if (got instanceof Error) return got.message
  const { fds } = got
  if (fds.length === 0) return 'No descriptor came'
  try {
    for (const fd of fds) refuseWriteEnd(fd)
    while (fds.length > 0) await printFile(fds.shift() ?? -1)
    return undefined
  } finally {
    for (const fd of fds) closeReceived(fd)
  }
}

// While it waited here for its turn, the read end that came before it would not
// come to its end: its sender would have a place here for good.
function refuseWriteEnd(fd: number): void {
  const { kind, access } = describeFd(fd)
  if (kind === 'pipe' && access !== 'read')
    throw new Error('Expected descriptors to read, got the write end of a pipe')
}

// Owns the descriptor: the stream closes it.
async function printFile(fd: number): Promise<void> {
  print(`Reading from passed fd ${fd}`)
  const input = readableFrom(fd)
  inputs.add(input)
  try {
    await show(inTime(input), process.stdout)
  } finally {
    inputs.delete(input)
  }
}

// The chunks of `input`. What gives neither bytes nor an end, such as a socket
// that is connected to itself, would keep its sender's place here for good.
async function* inTime(input: Readable): AsyncGenerator<Buffer, void, void> {
  const why = `Expected bytes or the end within ${PATIENCE / 1000} s, got neither`
  const chunks = input[Symbol.asyncIterator]()
  for (;;) {
    const deadline = setTimeout(() => input.destroy(new Error(why)), PATIENCE)
    const { value, done } = await chunks.next().finally(() => {
      clearTimeout(deadline)
    })
    if (done) return
    yield value
  }
}

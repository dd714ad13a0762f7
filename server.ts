#!/usr/bin/env -S sh -c 'exec "${0%/*}/lib/script/run" "$0" "$@"'
// The server reads what people type at their clients, from the clients' own
// standard input. Start it in one terminal and client.ts in another: the lines
// that you type there appear here, and the client never touches them.
//
// What travels is not a number but access to an open file description: the
// client's fd 0 becomes another fd here, and both refer to the same terminal,
// pipe or file. Partner: client.ts. Open unix(7), cmsg(3), recvmsg(2) with it.

import type { Readable } from 'node:stream'
import {
  describeFd,
  listen,
  parseControlMessages,
  parseUnixRights,
  readableFrom,
  type UnixConn,
} from './lib/index.ts'
import {
  commandLine,
  defaultSocketPath,
  fail,
  help,
  messageOf,
} from './lib/script/cli.ts'
import { linesOf } from './lib/script/lines.ts'

const USAGE = `Usage: ./server.ts [SOCKET]
Waits for clients on SOCKET and prints the lines that can be read from the
standard input that each of them sends. Ctrl-C ends it.`

const { positionals } = commandLine(
  USAGE,
  { options: help, allowPositionals: true },
  [0, 1],
)
const path = positionals[0] ?? defaultSocketPath('fdpass')

const listener = await listen(path).catch(fail)
console.log(`Server ready on ${path}, pid ${process.pid}`)

// Closing the listener ends the loop below and removes the socket file.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => listener.close())
}

const clients = new Map<UnixConn, Promise<void>>()
let count = 0
for await (const conn of listener) {
  count++
  // Not awaited: nobody has to wait for a client that is slow or silent.
  clients.set(conn, serve(conn, `client ${count}`))
}

const last = [...clients.values()]
for (const conn of clients.keys()) conn.close()
await Promise.all(last)
console.log('Server stopped')

async function serve(conn: UnixConn, client: string): Promise<void> {
  const inputs = new Set<Readable>()
  try {
    // From the kernel, not from the client, who could say anything.
    const { pid, uid } = conn.peerCredentials()
    console.log(`${client}: connected, pid ${pid}, uid ${uid}`)

    const message = await conn.recvmsg()
    if (message === null) return console.log(`${client}: left without a word`)
    console.log(`${client}: says ${quote(message.data)}`)

    // A message carries control messages, possibly several, of various types.
    // Those of type SCM_RIGHTS carry descriptors, possibly several.
    const fds: number[] = []
    for (const control of parseControlMessages(message.control)) {
      fds.push(...parseUnixRights(control))
    }
    if (fds.length === 0)
      return await dismiss(conn, client, 'No descriptor came')

    const readings = fds.map((fd, index) => {
      // The number is only good in one process: theirs stays where it is, ours
      // is the lowest that was free here.
      const theirs = index === 0 ? 'fd 0 there' : 'another there'
      console.log(`${client}: fd ${fd} here, ${theirs}: ${describeFd(fd).kind}`)
      return printLines(fd, client, inputs)
    })
    void Promise.all(readings).then((ends) => {
      return dismiss(conn, client, [...new Set(ends)].join('; '))
    })

    // The client says nothing more, so this waits until one of us hangs up. If
    // the client goes first, whatever the reason, its terminal must be let go
    // at once: a server that went on reading would take every other keystroke
    // from the shell.
    const more = await conn.recvmsg({ maxFds: 0 })
    if (more !== null)
      await dismiss(conn, client, 'Expected one message, got two')
    else if (inputs.size > 0)
      console.log(`${client}: hung up, its input is closed`)
  } catch (error) {
    console.log(`${client}: ${messageOf(error)}`)
  } finally {
    for (const input of inputs) input.destroy()
    conn.close()
    clients.delete(conn)
  }
}

// Reads the descriptor to its end and returns how that went. From here on the
// stream owns it, and closes it.
async function printLines(
  fd: number,
  client: string,
  inputs: Set<Readable>,
): Promise<string> {
  try {
    const input = readableFrom(fd)
    inputs.add(input)
    for await (const line of linesOf(input)) console.log(`${client}> ${line}`)
    inputs.delete(input)
    return 'End of input'
  } catch (error) {
    return messageOf(error)
  }
}

// Tells both sides why it is over, and hangs up.
async function dismiss(
  conn: UnixConn,
  client: string,
  why: string,
): Promise<void> {
  if (conn.fd < 0) return
  console.log(`${client}: ${why}`)
  await conn.sendmsg(why).catch(() => {}) // the client may be gone already
  conn.close()
}

// Without the control characters that could play tricks on this terminal.
function quote(text: Buffer): string {
  return JSON.stringify(text.toString('utf8', 0, 200))
}

#!/usr/bin/env -S sh -c 'exec "${0%/*}/lib/script/run" "$0" "$@"'
// The client lends its standard input to the server and waits. Start server.ts
// in one terminal and this in another: the lines that you type here appear
// there, although nothing in this file reads them.
//
// What travels is not the number 0 but access to the open file description
// behind it: the server gets an fd of its own for the same terminal, pipe or
// file. Partner: server.ts. Open unix(7), cmsg(3), sendmsg(2) with it.

import { fstatSync, statSync } from 'node:fs'
import { connect, describeFd, unixRights } from './lib/index.ts'
import {
  codeOf,
  commandLine,
  defaultSocketPath,
  fail,
  help,
  messageOf,
} from './lib/script/cli.ts'

const USAGE = `Usage: ./client.ts [SOCKET]
Sends its standard input to the server on SOCKET, which reads it from then on.
Ends with the input (Ctrl-D) or with Ctrl-C.`

const { positionals } = commandLine(
  USAGE,
  { options: help, allowPositionals: true },
  [0, 1],
)
const path = positionals[0] ?? defaultSocketPath('fdpass')

if (isClosed(0)) fail('Expected a standard input to send, got a closed one')

const conn = await connect(path).catch((error) => fail(explain(error)))
const { pid, uid } = conn.peerCredentials()
console.log(`Connected to ${path}, server pid ${pid}`)

// Whoever listens there gets to read this terminal: it had better be us.
if (uid !== process.getuid?.() && uid !== 0)
  fail(`Expected a server of this user's, got one of uid ${uid}`)

// Descriptors ride on real bytes, at least one, hence the text. Our fd 0 stays
// open and stays ours, but from here on nothing may read it: of two readers of
// one open file description each gets what the other has not taken yet.
await conn.sendmsg('Here is my stdin', unixRights(0))
console.log(`Sent fd 0, pid ${process.pid}: ${describeFd(0).kind}`)

// The server says how it went, then hangs up. If it hangs up without a word, it
// died. That is all there is to wait for: the lines go past us.
const answer = await conn.recvmsg().catch(() => null)
if (answer === null) fail('The server went away')
console.log(`Server: ${answer.data}`)
conn.close()
process.exitCode = `${answer.data}` === 'End of input' ? 0 : 1

function explain(error: unknown): string {
  const code = codeOf(error)
  if (code !== 'ENOENT' && code !== 'ECONNREFUSED') return messageOf(error)
  return `No server on ${path}: start ./server.ts first`
}

// Node opens /dev/null, for reading and writing, in place of a standard stream
// that is closed (PlatformInit in node.cc). A user's < /dev/null only reads.
function isClosed(fd: number): boolean {
  const isNull = fstatSync(fd).rdev === statSync('/dev/null').rdev
  return isNull && describeFd(fd).access === 'read-write'
}

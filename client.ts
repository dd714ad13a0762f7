#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/lib/script/run" "$0" "$@"

// The client lends its standard input to the server and waits. Start server.ts
// in one terminal and this in another: the lines that you type here appear
// there, although nothing in this file reads them.
//
// What travels is not the number 0 but access to the open file description
// behind it: the server gets an fd of its own for the same terminal, pipe or
// file. Partner: server.ts. Open unix(7), cmsg(3), sendmsg(2) with it. How the
// message is made, by hand: examples/bare.ts. Read next: server.ts.

import {
  dial,
  fail,
  kindOf,
  ownPeer,
  print,
  socketArgument,
} from './lib/script/cli.ts'
import { endWhenSuspended, inForeground } from './lib/script/job.ts'

const USAGE = `Usage: ./client.ts [SOCKET]
Sends its standard input to the server on SOCKET, which reads it from then on.
Ends with the input (Ctrl-D) or with Ctrl-C.`

const path = socketArgument(USAGE, 'fdpass')

// Once, or again after each Ctrl-Z and `fg`: in the background the terminal is
// the shell's to read, and cannot be lent.
await inForeground(async (suspended) => {
  const conn = await dial(path, './server.ts')
  // The server will read this terminal, so it has to be this user's, or root's.
  print(`Connected to ${path}, server pid ${ownPeer(conn).pid}`)
  endWhenSuspended(conn, suspended)

  // A descriptor needs at least one byte of data beside it, hence the text. Our
  // fd 0 stays open and ours, but from here on nothing here may read it: of two
  // readers of one input each gets what the other has not taken yet.
  await conn.sendFds('Here is my stdin', [0]).catch(fail)
  print(`Sent fd 0, pid ${process.pid}: ${kindOf(0)}`)

  // The server, which alone reads the lines, says why it has stopped reading.
  const answer = await conn.recvmsg().catch(() => null)
  conn.close()
  if (suspended.aborted) return
  if (answer === null) return fail('The server went away')
  print(`Server: ${answer.data}`)
  process.exitCode = `${answer.data}` === 'End of input' ? 0 : 1
})

#!/usr/bin/env -S sh -c 'exec "${0%/*}/lib/script/run" "$0" "$@"'
// The client lends its standard input to the server and waits. Start server.ts
// in one terminal and this in another: the lines that you type here appear
// there, although nothing in this file reads them.
//
// What travels is not the number 0 but access to the open file description
// behind it: the server gets an fd of its own for the same terminal, pipe or
// file. Partner: server.ts. Open unix(7), cmsg(3), sendmsg(2) with it.

import { unixRights } from './lib/index.ts'
import {
  dial,
  fail,
  kindOf,
  ownPeer,
  print,
  socketArgument,
} from './lib/script/cli.ts'
import { waitForForeground } from './lib/script/job.ts'
import { shutdownWriting } from './lib/socket/unix.ts'

const USAGE = `Usage: ./client.ts [SOCKET]
Sends its standard input to the server on SOCKET, which reads it from then on.
Ends with the input (Ctrl-D) or with Ctrl-C.`

const path = socketArgument(USAGE, 'fdpass')

for (;;) {
  // In the background (`&`, Ctrl-Z) the terminal is the shell's to read.
  waitForForeground()
  const conn = await dial(path, './server.ts')
  // The server will read this terminal, so it has to be this user's, or root's.
  print(`Connected to ${path}, server pid ${ownPeer(conn).pid}`)

  // Ctrl-Z: at the end of file the server closes the input and hangs up; only
  // then does this process stop. A server that is stopped too gets one second.
  let isSuspended = false
  process.once('SIGTSTP', () => {
    isSuspended = true
    shutdownWriting(conn.fd)
    setTimeout(() => conn.close(), 1000).unref()
  })

  // A descriptor needs at least one byte of data beside it, hence the text. Our
  // fd 0 stays open and ours, but from here on nothing here may read it: of two
  // readers of one input each gets what the other has not taken yet.
  await conn.sendmsg('Here is my stdin', unixRights(0)).catch(fail)
  print(`Sent fd 0, pid ${process.pid}: ${kindOf(0)}`)

  // The server, which alone reads the lines, says why it has stopped reading.
  const answer = await conn.recvmsg().catch(() => null)
  conn.close()
  process.removeAllListeners('SIGTSTP')
  if (isSuspended) process.kill(process.pid, 'SIGSTOP') // Until `fg`.
  if (isSuspended) continue
  if (answer === null) fail('The server went away')
  print(`Server: ${answer.data}`)
  process.exitCode = `${answer.data}` === 'End of input' ? 0 : 1
  break
}

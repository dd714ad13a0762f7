#!/usr/bin/env -S sh -c 'exec "${0%/*}/../../lib/script/run" "$0" "$@"'

// The client sends its standard output to the server and leaves at once. Start
// server.ts in one terminal and this in another: a line appears here that no
// line of this file prints, perhaps after the shell's next prompt.
//
// Partner: server.ts, which tells what this is after. Open unix(7), sendmsg(2)
// with it.
// New here: a descriptor that was sent arrives even if its sender is gone. The
// socket keeps what is on its way in it.

import { connect } from '../../lib/index.ts'
import {
  codeOf,
  commandLine,
  defaultSocketPath,
  fail,
  help,
  messageOf,
} from '../../lib/script/cli.ts'

const USAGE = `Usage: ./examples/stdout/client.ts [SOCKET]
Sends its standard output to the server on SOCKET, which prints a line on it.`

const { positionals } = commandLine(
  USAGE,
  { options: help, allowPositionals: true },
  [0, 1],
)
const path = positionals[0] ?? defaultSocketPath('fdpass-stdout')

const conn = await connect(path).catch((error) => fail(explain(error)))

// Whoever listens there may write on this terminal: it had better be us.
const { uid } = conn.peerCredentials()
if (uid !== process.getuid?.() && uid !== 0)
  fail(`Expected a server of this user's, got one of uid ${uid}`)

await conn.sendFds('hello world', [1]).catch(fail)
conn.close()

function explain(error: unknown): string {
  const code = codeOf(error)
  if (code !== 'ENOENT' && code !== 'ECONNREFUSED') return messageOf(error)
  return `No server on ${path}: start ./examples/stdout/server.ts first`
}

#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// The client sends its standard output to the server and leaves at once. Start
// server.ts in one terminal and this in another: a line appears here that no
// line of this file prints, perhaps after the shell's next prompt.
//
// Partner: server.ts, which names what this is modelled on. Open unix(7),
// sendmsg(2) with it.
// New here: a descriptor that was sent arrives even if its sender is gone.
// While it is in flight the kernel keeps its open file description open.

import { dial, fail, ownPeer, socketArgument } from '../../lib/script/cli.ts'

const USAGE = `Usage: ./examples/stdout/client.ts [SOCKET]
Sends its standard output to the server on SOCKET, which prints a line on it.`

const path = socketArgument(USAGE, 'fdpass-stdout')

const conn = await dial(path, './examples/stdout/server.ts')

// The server can write on this terminal, so it has to be of this user, or root.
ownPeer(conn)

await conn.sendFds('hello world', [1]).catch(fail)
conn.close()

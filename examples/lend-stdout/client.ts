#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// The client borrows the server's standard output and copies its own standard
// input to it: type lines here and they appear there, without the server.
//
// Partner: server.ts, which names what this is modelled on, or (with --go here)
// the server of markdingo's go-fdpass-demo. Open unix(7), recvmsg(2), write(2).
// New here: writing to a received descriptor.

import { pipeline } from 'node:stream/promises'

import { writableFrom } from '../../lib/index.ts'
import {
  commandLine,
  defaultSocketPath,
  dial,
  fail,
  help,
  ownPeer,
  print,
  usageError,
} from '../../lib/script/cli.ts'

const USAGE = `Usage: ./examples/lend-stdout/client.ts [OPTIONS] [SOCKET]
Asks the server on SOCKET for its standard output, and copies standard input
there. Ends with the input (Ctrl-D) or with Ctrl-C.
      --go            on /tmp/mysocket, as the Go program does
  -m, --message TEXT  how to ask ("Send me your Stdout")`

const { values, positionals } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      go: { type: 'boolean' },
      message: { type: 'string', short: 'm', default: 'Send me your Stdout' },
    },
    allowPositionals: true,
  },
  [0, 1],
)
if (values.message === '') usageError(USAGE, 'Expected TEXT, got an empty one')
const usual = values.go ? '/tmp/mysocket' : defaultSocketPath('fdpass-lend')
const path = positionals[0] ?? usual

const server = './examples/lend-stdout/server.ts'
const start = values.go ? `${server} --go` : server
const conn = await dial(path, start, path === usual)

// The server gets what is typed here, so it has to be of this user, or of root.
ownPeer(conn)

await conn.sendmsg(values.message).catch(fail)

// Fd 1 of the server is fd 20 or so here: the number is the lowest that was
// free in this process, and refers to the server's terminal.
const answer = await conn.recvFds({ maxFds: 1 }).catch(fail)
if (answer === null) fail('Expected a descriptor, got a hang-up')
const [fd] = answer.fds
if (fd === undefined)
  fail(`Expected a descriptor, got ${JSON.stringify(`${answer.data}`)} alone`)

// Nothing more goes over this socket: the lines go to the terminal directly.
conn.close()
print(`Sending my Stdin to Server's Stdout as fd ${fd}`)
await pipeline(process.stdin, writableFrom(fd)).catch(fail)

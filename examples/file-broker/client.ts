#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// Gets a file from the broker and writes it to standard output. The file may
// lie where this user cannot go: what comes is not a path but the open file.
//
// Partner: server.ts, to be started first. Open unix(7), read(2) with it.
//
// New here: an answer with or without a descriptor, told apart by what it says.

import {
  type Frame,
  framesOf,
  readableFrom,
  sendFrame,
} from '../../lib/index.ts'
import {
  commandLine,
  defaultSocketPath,
  dial,
  fail,
  help,
  ownPeer,
  usageError,
} from '../../lib/script/cli.ts'
import { show } from '../../lib/script/print.ts'
import { printable } from '../../lib/script/printable.ts'

const USAGE = `Usage: ./examples/file-broker/client.ts [-s SOCKET] NAME
       ./examples/file-broker/client.ts [-s SOCKET] --list
Writes the file NAME, from the server on SOCKET, to standard output.
  -l, --list           what there is to get, with sizes in bytes
  -s, --socket SOCKET  where the server is`

const { values, positionals } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      list: { type: 'boolean', short: 'l', default: false },
      socket: { type: 'string', short: 's' },
    },
    allowPositionals: true,
  },
  [0, 1],
)
const [name] = positionals
if ((name === undefined) !== values.list)
  usageError(USAGE, 'Expected either NAME or --list')
const path = values.socket ?? defaultSocketPath('fdpass-file-broker')

const conn = await dial(path, './examples/file-broker/server.ts DIR')
// What is asked for is this user's business, or root's.
ownPeer(conn)
try {
  // If the server has hung up, what it said before tells more than EPIPE.
  await sendFrame(conn, values.list ? { list: true } : { name }).catch(() => {})
  let isDone = false
  for await (const frame of framesOf(conn, { maxFds: 1, maxBytes: 65536 })) {
    isDone = await take(frame)
    if (isDone) break
  }
  if (!isDone) fail('The server went away')
  conn.close()
} catch (error) {
  fail(error)
}

// True if nothing more is to come.
async function take({ value, fds: [fd] }: Frame): Promise<boolean> {
  if (fd !== undefined) {
    // The stream owns the descriptor from here on.
    await show(readableFrom(fd), process.stdout)
    return true
  }
  if (typeof value.error === 'string') fail(value.error)
  if (!Array.isArray(value.files)) fail('Expected a file or a list, got none')
  for (const { name, size } of value.files) {
    // Quoted, less the quotes: a name may hold control characters.
    const shown = printable(JSON.stringify(name).slice(1, -1))
    console.log(`${String(size).padStart(10)} ${shown}`)
  }
  return value.end === true
}

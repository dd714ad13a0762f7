#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// The client opens files and passes all of them to the server in one message.
// The server prints them without opening anything: it may well be a program
// that has no right to. Either all can be opened, or nothing is sent.
//
// Partner: server.ts, which names what this is modelled on, or a C program that
// receives two descriptors beside 256 bytes. Open unix(7), cmsg(3), open(2).
// New here: several descriptors in one message.

import { openSync } from 'node:fs'
import { describeFd } from '../../lib/index.ts'
import {
  commandLine,
  defaultSocketPath,
  dial,
  fail,
  help,
  orFail,
  ownPeer,
  print,
} from '../../lib/script/cli.ts'

const USAGE = `Usage: ./examples/two-files/client.ts [OPTIONS] FILE...
Opens each FILE and passes all of them to the server, which prints them.
  -s, --socket SOCKET  where the server waits`

/** SCM_MAX_FD: what Linux carries in one message. */
const MOST_FILES = 253

/** The bytes beside the descriptors. One would do; the C programs send 256. */
const FILLER = Buffer.alloc(256)

const { values, positionals: files } = commandLine(
  USAGE,
  {
    options: { ...help, socket: { type: 'string', short: 's' } },
    allowPositionals: true,
  },
  [1, MOST_FILES],
)
const path = values.socket ?? defaultSocketPath('fdpass-files')

const fds = files.map((file) => orFail(() => open(file)))

const conn = await dial(path, './examples/two-files/server.ts')

// The server can read the files, so it has to be of this user, or of root.
ownPeer(conn)

// Our copies close as this process ends, which is now: the message holds the
// open file descriptions until the server takes them.
await conn.sendFds(FILLER, fds).catch(fail)
conn.close()

function open(file: string): number {
  const fd = openSync(file, 'r')
  // open(2) takes a directory, read(2) does not.
  if (describeFd(fd).kind === 'directory')
    throw new Error(`Expected a file to read, got a directory: ${file}`)
  print(`Opened fd ${fd} in parent`)
  return fd
}

#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// The child reads a file through a descriptor that its parent passes to it,
// then opens the same file itself, which makes a second open file description
// with an offset of its own, and passes that one back.
//
// Partner: parent.ts, which starts this and names what it is modelled on. Open
// open(2), close(2) with it.
// New here: UnixConn.fromFd, a connection from a descriptor that was there.

import { closeSync, openSync, readSync } from 'node:fs'
import { UnixConn } from '../../lib/index.ts'
import { commandLine, fail, help, print } from '../../lib/script/cli.ts'

const USAGE = `Usage: ./examples/socketpair/child.ts FILE
Not to be started by hand, but by parent.ts, with a socket as its fd 3.`

const LINE_LENGTH = 10 // bytes

const { positionals } = commandLine(
  USAGE,
  { options: help, allowPositionals: true },
  [1, 1],
)
const [file = ''] = positionals

// What spawn() was given as stdio[3]. The two scripts agree on the number; the
// system does not know of it.
const conn = adopt(3)

const [fd] = await turn(1)
if (fd === undefined) fail('Expected a descriptor, got none')
say(`received fd ${fd}`)
say(`read "${readLine(fd)}" through fd ${fd}: where the parent had stopped`)
await conn.sendmsg('Done').catch(fail)

await turn()
say(`read "${readLine(fd)}" through fd ${fd}: closed there, open here`)

const own = openSync(file, 'r')
say(`opened the file itself as fd ${own}`)
say(`read "${readLine(own)}" through fd ${own}: an offset of its own`)

say(`passes fd ${own} to the parent`)
await conn.sendFds('And this is mine', [own]).catch(fail)
closeSync(own)
closeSync(fd)
conn.close()

function say(what: string): void {
  print(`child ${process.pid}: ${what}`)
}

// Without a position, read(2) reads at the offset and moves it.
function readLine(fd: number): string {
  const line = Buffer.alloc(LINE_LENGTH)
  readSync(fd, line, 0, LINE_LENGTH, null)
  return line.toString().trim()
}

async function turn(maxFds = 0): Promise<number[]> {
  const message = await conn.recvFds({ maxFds }).catch(fail)
  if (message === null) fail('Expected a message of the parent, got a hang-up')
  return message.fds
}

function adopt(fd: number): UnixConn {
  try {
    return UnixConn.fromFd(fd)
  } catch {
    return fail(`Expected a socket as fd ${fd}: start parent.ts, not this`)
  }
}

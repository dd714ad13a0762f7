#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// Parent and child read one file in turns, through a descriptor each. Every
// line of the file says at which offset it stands, so that every read shows
// where the one offset was. At the end a descriptor goes the other way.
//
// Partner: child.ts, which this starts. Open open(2), "open file description",
// and socketpair(2), close(2) with it.
// Modelled on: "File Descriptor Transfer over Unix Domain Sockets".
// New here: a descriptor is a number in one process; what is passed is access
// to the open file description behind it. And a socketpair, which needs no
// path, so that no other process can connect.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { socketpair } from '../../lib/index.ts'
import { commandLine, fail, help, onStop, print } from '../../lib/script/cli.ts'

const USAGE = `Usage: ./examples/socketpair/parent.ts
Shares an open file with a child process, and shows what it is that they share.`

commandLine(USAGE, { options: help }, [0, 0])

const LINE_LENGTH = 10 // bytes

const folder = mkdtempSync(join(tmpdir(), 'fdpass-'))
process.once('exit', () => rmSync(folder, { recursive: true }))
onStop(() => process.exit(0))
const file = join(folder, 'lines')
writeFileSync(file, 'offset 00\noffset 10\noffset 20\noffset 30\n')

// The child inherits one end as its fd 3. The parent has to close its copy of
// that end, or it would never get the end of file when the child is gone.
const [conn, theirs] = socketpair()
const script = fileURLToPath(new URL('child.ts', import.meta.url))
const child = spawn(process.execPath, [...process.execArgv, script, file], {
  stdio: ['ignore', 'inherit', 'inherit', theirs.fd],
})
const exit = once(child, 'exit').catch(fail)
theirs.close()

const fd = openSync(file, 'r')
say(`opened the file as fd ${fd}`)
say(`read "${readLine(fd)}" through fd ${fd}`)

say(`passes fd ${fd} to the child`)
await conn.sendFds('Read on', [fd]).catch(fail)
await turn()
say(`read "${readLine(fd)}" through fd ${fd}: the child has moved our offset`)

// The child's descriptor is not this one, and keeps the description open.
closeSync(fd)
say(`closed fd ${fd}`)
await conn.sendmsg('Closed').catch(fail)

const [passed] = await turn(1)
if (passed === undefined) fail('Expected a descriptor, got none')
say(`received fd ${passed}`)
say(`read "${readLine(passed)}" through fd ${passed}: the child's other offset`)
closeSync(passed)

conn.close()
const [code] = await exit
process.exitCode = code ?? 1

function say(what: string): void {
  print(`parent ${process.pid}: ${what}`)
}

// Without a position, read(2) reads at the offset and moves it.
function readLine(fd: number): string {
  const line = Buffer.alloc(LINE_LENGTH)
  readSync(fd, line, 0, LINE_LENGTH, null)
  return line.toString().trim()
}

// Waits until the child has had its turn.
async function turn(maxFds = 0): Promise<number[]> {
  const message = await conn.recvFds({ maxFds }).catch(fail)
  if (message === null) fail('Expected an answer of the child, got a hang-up')
  return message.fds
}

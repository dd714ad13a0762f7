#!/usr/bin/env -S sh -c 'exec "${0%/*}/../../lib/script/run" "$0" "$@"'
// Two readers of one terminal share what is typed: each line goes to one of
// them. Ctrl-Z stops the job in the foreground; a reader that is not in that
// job, such as a server that was sent the terminal, reads on. Open pty(7),
// termios(3) beside it.

import { constants, openSync, readFileSync, readSync, writeSync } from 'node:fs'

import { declare } from '../../lib/libc.ts'
import { check, pass, skip } from './gotcha.ts'

const CLAIM = 'two readers share the lines of a terminal, and Ctrl-Z stops one'
if (process.platform !== 'linux') skip(CLAIM, 'expected Linux, for /dev/ptmx')

const { O_RDWR, O_NOCTTY } = constants
const keyboard = openSync('/dev/ptmx', O_RDWR | O_NOCTTY)
// int unlockpt(int fd)
declare('unlockpt', 'int', ['int'])(keyboard)
const info = readFileSync(`/proc/self/fdinfo/${keyboard}`, 'utf8')
const number = /tty-index:\s*(\d+)/.exec(info)?.[1]

// The shell's job reads the terminal; the server reads what it was sent.
const job = openSync(`/dev/pts/${number}`, O_RDWR | O_NOCTTY)
const server = pass(job)

const CTRL_Z = '\x1a'
writeSync(keyboard, 'one\ntwo\n')
const lines = [readLine(job), readLine(server)]
writeSync(keyboard, `${CTRL_Z}three\n`)
lines.push(readLine(server))
check({
  claim: CLAIM,
  expected: 'the job read one, the server two and, after Ctrl-Z, three',
  observed: `the job read ${lines[0]}, the server ${lines[1]} and, after Ctrl-Z, ${lines[2]}`,
})

function readLine(terminal: number): string {
  const line = Buffer.alloc(80)
  return line.toString('utf8', 0, readSync(terminal, line)).trimEnd()
}

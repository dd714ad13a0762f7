#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// Two readers of one terminal share what is typed: each line goes to one of
// them. Ctrl-Z stops the job in the foreground; a reader that is not in that
// job, such as a server that was sent the terminal, reads on. The job here is
// cat(1), started by a shell with job control. Open pty(7), termios(3) and
// setsid(1) beside it.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { constants, openSync, readFileSync, readSync, writeSync } from 'node:fs'

import { declare } from '../../lib/libc.ts'
import { linesOf } from '../../lib/script/lines.ts'
import { check, pass, skip } from './gotcha.ts'

const CLAIM = 'two readers share the lines of a terminal, and Ctrl-Z stops one'
if (process.platform !== 'linux') skip(CLAIM, 'expected Linux, for /dev/ptmx')

const { O_RDWR, O_NOCTTY } = constants
const keyboard = openSync('/dev/ptmx', O_RDWR | O_NOCTTY)
// int unlockpt(int fd)
declare('unlockpt', 'int', ['int'])(keyboard)
const info = readFileSync(`/proc/self/fdinfo/${keyboard}`, 'utf8')
const number = /tty-index:\s*(\d+)/.exec(info)?.[1]
const terminal = openSync(`/dev/pts/${number}`, O_RDWR | O_NOCTTY)
const server = pass(terminal)

// A session whose terminal this is. The shell goes on when its job has stopped,
// and waits for fd 3, because its own end would hang the terminal up.
const script = 'cat; echo stopped; read _ <&3'
const shell = spawn('setsid', ['-c', 'sh', '-mc', script], {
  stdio: [terminal, 'pipe', 'ignore', 'pipe'],
})
await once(shell, 'spawn').catch(() => skip(CLAIM, 'expected setsid(1)'))
const said = shell.stdout && linesOf(shell.stdout)

const CTRL_Z = '\x1a'
writeSync(keyboard, 'one\n')
const first = await said?.next()
writeSync(keyboard, CTRL_Z)
const second = await said?.next()
writeSync(keyboard, 'two\n')
const line = Buffer.alloc(80)
const third = line.toString('utf8', 0, readSync(server, line)).trimEnd()
shell.kill()
check({
  claim: CLAIM,
  expected: 'the job read one, was stopped, and the server read two',
  observed:
    `the job read ${first?.value}, was ${second?.value}, ` +
    `and the server read ${third}`,
})

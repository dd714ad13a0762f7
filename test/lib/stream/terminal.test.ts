// Streams for terminals: how the master side ends, and what a process in the
// background of its own terminal may do.

import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { type Test, t } from 'tap'

import { duplexFrom, readableFrom } from '../../../lib/index.ts'
import * as libc from '../../../lib/libc.ts'
import * as watch from '../../../lib/wait/watch.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing } from '../../support/missing.ts'
import { isStopped, run, script } from '../../support/processes.ts'
import { noTerminal, terminal } from '../../support/terminal.ts'
import { turns, until } from '../../support/waiting.ts'
import { newTerminal, type Open } from './support.ts'

type Terminal = typeof import('../../../lib/stream/terminal.ts')

const needsPython = missing('python3')

/** Waits until a stream is closed; what it failed with, if it did. */
async function ended(stream: Readable | Writable): Promise<unknown> {
  stream.on('error', () => {})
  await until('a stream that is closed', () => stream.closed, 20)
  return stream.errored ?? undefined
}

leakFree(
  'the master side ends when the last who has the other closes it',
  async (t) => {
    const { master, slave } = await newTerminal(t)
    const stream = readableFrom(master)
    writeSync(slave, 'last words\n')
    closeSync(slave)
    t.equal(await text(stream), 'last words\r\n')
    t.equal(await ended(stream), undefined)
  },
  needsPython,
)

leakFree(
  'duplexFrom() takes the master side: types, and sees',
  async (t) => {
    const { master, slave } = await newTerminal(t)
    const keyboard = duplexFrom(master)
    const program = duplexFrom(slave)
    keyboard.write('typed\n')
    t.equal(`${(await once(program, 'data'))[0]}`, 'typed\n')
    program.end('seen\n')
    let screen = ''
    keyboard.on('data', (chunk) => {
      screen += chunk
    })
    await until('all', () => screen.endsWith('seen\r\n'), 20)
    t.equal(screen, 'typed\r\nseen\r\n')
    t.equal(await ended(program.destroy()), undefined)
    keyboard.end()
    t.equal(await ended(keyboard), undefined, 'the end is no error')
  },
  needsPython,
)

leakFree(
  'a terminal that has hung up is at its end',
  async (t) => {
    const { master, slave } = await newTerminal(t)
    const stream = readableFrom(slave)
    stream.resume()
    closeSync(master)
    t.equal(await ended(stream), undefined)
  },
  needsPython,
)

t.test(
  'a received terminal does not become the controlling one',
  { skip: missing('python3') },
  async (t) => {
    // setsid(2): a process without one, which gets the next that it opens.
    const python = `
import os, pty, sys
master, slave = pty.openpty()
os.dup2(slave, 3)
os.setsid()
os.execvp(sys.argv[1], sys.argv[1:])`
    // The seventh field of proc_pid_stat(5) is the controlling terminal.
    const source = `
      import { readFileSync } from 'node:fs'
      import { duplexFrom } from './lib/index.ts'
      const stream = duplexFrom(3).resume()
      const stat = readFileSync('/proc/self/stat', 'utf8')
      console.log(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[4])
      stream.destroy()`
    const { stdout, stderr } = await run(t, [
      ...['python3', '-c', python],
      ...script('--input-type=module', '-e'),
      source,
    ])
    t.equal(stdout, '0\n', stderr)
  },
)

// Reads its own controlling terminal, whose shell has job control.
const READER = `
import { openSync } from "node:fs"
import { readableFrom } from "./lib/index.ts"
const stream = readableFrom(openSync("/dev/tty"))
stream.on("data", (line) => console.log("got-" + String(line).trim()))
stream.on("error", ({ message }) => console.log("failed-" + message))
stream.on("close", () => console.log("clo" + "sed"))
console.log("started-" + process.pid + "-")
`.replaceAll('\n', ';')

const WHY =
  /failed-read EIO cannot read this: it is the terminal of this process, which runs in the background there/g

const command = [...script('--input-type=module', '-e'), `'${READER}'`].join(
  ' ',
)

t.test(
  'a process in the background gets one error, and is not stopped',
  noTerminal,
  async (t) => {
    const { shell, type } = await terminal(t)
    type(`${command} & wait $!; echo status-$?-\n`)
    // It comes to its end by itself: nobody has stopped it.
    await shell.printed(/status-0-/)
    t.equal(shell.stdout.match(WHY)?.length, 1)
    type('exit\n')
    await shell.exit
  },
)

t.test(
  'a process that goes into the background leaves to others what is typed',
  noTerminal,
  async (t) => {
    const { shell, type } = await terminal(t)
    type(`${command}\n`)
    const [, pid = ''] = await shell.printed(/started-(\d+)-/)
    type('for-it\n')
    await shell.printed(/got-for-it/)
    type('\x1a')
    await shell.printed(/Stopped/)
    type('bg\n')
    for (let i = 0; i < 10; i++) {
      type(`echo typed-$((${i} + 1000))\n`)
      await shell.printed(new RegExp(`typed-${1000 + i}`))
    }
    // What nobody reads wakes it up.
    const path = join(temporaryFolder(t), 'over')
    type(`until [ -e ${path} ]; do sleep 0.1; done\n`)
    type('echo typed-$((5000 + 1))\n')
    await shell.printed(/closed/)
    writeFileSync(path, '')
    await shell.printed(/typed-5001/)
    const stat = `/proc/${pid}/stat`
    const isOver = (): boolean =>
      !existsSync(stat) || /\) Z /.test(readFileSync(stat, 'utf8'))
    await until('its end', isOver)
    t.equal(shell.stdout.match(WHY)?.length, 1)
    t.notMatch(shell.stdout, /got-(echo|typed|until)/)
    type('exit\n')
    await shell.exit
  },
)

t.test(
  'a process that is stopped meanwhile reads on after fg',
  noTerminal,
  async (t) => {
    const { shell, type } = await terminal(t)
    type(`${command}\n`)
    const [, pid = ''] = await shell.printed(/started-(\d+)-/)
    type('\x1a')
    await until('it is stopped', () => isStopped(pid))
    type('fg\n')
    type('for-it\n')
    await shell.printed(/got-for-it/)
    type('\x04')
    await shell.printed(/closed/)
    type('exit\n')
    await shell.exit
  },
)

/** lib/stream/terminal.ts in a process of the session 7 and the group 8. */
function terminalWith(t: Test, of: { session: number; group: number }) {
  const answers: Record<string, number> = {
    tcgetsid: of.session,
    tcgetpgrp: of.group,
    getsid: 7,
    getpgrp: 8,
  }
  const declare = (...[name, ...rest]: Parameters<typeof libc.declare>) => {
    const answer = answers[name]
    return answer === undefined ? libc.declare(name, ...rest) : () => answer
  }
  return t.mockImport<Terminal>('../../../lib/stream/terminal.ts', {
    '../../../lib/libc.ts': { ...libc, declare },
  })
}

leakFree(
  'isInBackground() asks for its own terminal only, and not for a master',
  async (t) => {
    const { master, slave } = await newTerminal(t)
    for (const [session, group, expected] of [
      [7, 8, false],
      [7, 9, true],
      [6, 9, false],
      // ENOTTY: it is the controlling terminal of another, or of nobody.
      [-25, -25, false],
    ] as const) {
      const { isInBackground } = await terminalWith(t, { session, group })
      t.equal(isInBackground(slave), expected)
      t.equal(isInBackground(master), false)
    }
    for (const fd of [master, slave]) closeSync(fd)
  },
  needsPython,
)

leakFree(
  'a stream of its own terminal fails in the background, before it reads',
  async (t) => {
    const { master, slave } = await newTerminal(t)
    const terminal = await import('../../../lib/stream/terminal.ts')
    let isAway = false
    const { readableFrom } = await t.mockImport<Open>(
      '../../../lib/stream/open.ts',
      {
        '../../../lib/wait/watch.ts': watch,
        '../../../lib/stream/terminal.ts': {
          ...terminal,
          isInBackground: () => isAway,
        },
      },
    )
    const stream = readableFrom(slave)
    writeSync(master, 'here\n')
    t.equal(`${(await once(stream, 'data'))[0]}`, 'here\n')
    await turns()
    isAway = true
    writeSync(master, 'away\n')
    t.match(await ended(stream), {
      code: 'EIO',
      syscall: 'read',
      message: /^read EIO cannot read this: it is the terminal of this process/,
    })
    closeSync(master)
  },
  needsPython,
)

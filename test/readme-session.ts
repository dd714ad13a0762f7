// Runs the console blocks of a Markdown file as a reader would: each block on a
// terminal of its own, the commands behind `$`, what is typed where a line ends
// in ⏎, and compares all that appears with what the block shows. Not a test
// itself: readme.test.ts has the tests.

import { resolve } from 'node:path'
import type { Test } from 'tap'

import type { Block } from './readme.ts'
import { Running, until } from './support.ts'

/** Where, as whom and with which environment commands run. */
export type Place = {
  readonly cwd: string
  readonly uid: number
  readonly env: NodeJS.ProcessEnv
  /** What is /tmp to the reader. */
  readonly temporary: string
}

type Command = { readonly text: string; readonly shown: string[] }

const TERMINAL = resolve('test/peers/terminal.py')

/** The commands of a console block, each with the lines that follow it. */
export function commandsOf(block: Block): Command[] {
  const commands: Command[] = []
  for (const line of block.lines) {
    if (line.startsWith('$ ')) commands.push({ text: line.slice(2), shown: [] })
    else if (commands.length === 0) throw new Error(`Expected $, got ${line}`)
    else commands.at(-1)?.shown.push(line)
  }
  return commands
}

/** Blocks that run at the same time: 1, 2, 3, up to the next 1. */
export function groupsOf(blocks: readonly Block[]): Block[][] {
  const groups: Block[][] = []
  for (const block of blocks) {
    if (block.name === '1' || block.name === '') groups.push([])
    groups.at(-1)?.push(block)
  }
  return groups
}

/**
 * Runs a group. A block starts once the one before it has printed a line, or is
 * done; ^C is typed once all blocks behind are done. What still runs at the end
 * is stopped with Ctrl-C.
 */
export async function runGroup(t: Test, group: readonly Block[], place: Place) {
  const terminals = group.map((block) => new Terminal(t, block, place))
  const ends: Promise<void>[] = []
  for (const [index, terminal] of terminals.entries()) {
    const behind = terminals.slice(index + 1)
    const end = terminal.run(behind)
    end.catch(() => {}) // Awaited below.
    ends.push(end)
    await Promise.race([terminal.started, end])
  }
  await Promise.all(ends)
  for (const terminal of terminals) await terminal.stop()
}

class Terminal {
  readonly #t: Test
  readonly #block: Block
  readonly #place: Place
  #running: Running | undefined
  #onStart = (): void => {}
  #onDone = (): void => {}
  /** Its first line has appeared. */
  readonly started = new Promise<void>((resolve) => {
    this.#onStart = resolve
  })
  readonly done = new Promise<void>((resolve) => {
    this.#onDone = resolve
  })

  constructor(t: Test, block: Block, place: Place) {
    this.#t = t
    this.#block = block
    this.#place = place
  }

  async run(behind: readonly Terminal[]): Promise<void> {
    const commands = commandsOf(this.#block)
    for (const command of commands) {
      // A server goes on while others are to come.
      const goesOn = command === commands.at(-1) && behind.length > 0
      await this.#runOne(command, goesOn, behind)
    }
    this.#onStart()
    this.#onDone()
  }

  async stop(): Promise<void> {
    const { child, exit } = this.#running ?? {}
    if (child === undefined || child.exitCode !== null) return
    child.stdin?.write('\x03')
    await exit
  }

  async #runOne(
    { text, shown }: Command,
    goesOn: boolean,
    behind: readonly Terminal[],
  ): Promise<void> {
    const { cwd, env, uid } = this.#place
    const command = ['python3', TERMINAL, `${uid}`, 'sh', '-c', asRun(text)]
    const running = new Running(this.#t, command, { cwd, env })
    this.#running = running
    // What is typed after the command has ended is read by no one.
    running.child.stdin?.on('error', () => {})
    let expected = ''
    let isEnded = false
    for (const line of shown) {
      const typed = /^(.*) ⏎$/.exec(line)?.[1]
      if (line === '^D') running.child.stdin?.write('\x04')
      else if (line === '^C') {
        await Promise.all(behind.map((other) => other.done))
        running.child.stdin?.write('\x03')
        expected += '(\\^C)?'
        isEnded = true
      } else {
        if (typed !== undefined) running.child.stdin?.write(`${typed}\n`)
        expected += patternOf(typed ?? line)
        await this.#appears(running, expected, text)
        this.#onStart()
      }
    }
    if (!goesOn || isEnded) await running.exit
    if (running.child.exitCode !== null) {
      await this.#appears(running, `${expected}\n?$`, text)
    }
  }

  async #appears(running: Running, expected: string, command: string) {
    const start = new RegExp(`^${expected}`)
    const seen = (): string =>
      running.stdout
        .replaceAll('\r', '')
        .replaceAll(this.#place.temporary, '/tmp')
    const isSeen = (): boolean => start.test(seen())
    let isOver = false
    const over = running.exit.then(() => {
      isOver = true
    })
    await until(command, () => isSeen() || isOver).catch(() => {})
    if (isOver) await over
    if (isSeen()) return
    throw new Error(
      `$ ${command}\nExpected ${start}, got:\n${seen()}${running.stderr}`,
    )
  }
}

// Node strips types from 22.18 on, which the README says: before, tsx does it.
// What a reader waits for by sleeping takes longer on a slow machine.
function asRun(command: string): string {
  const { typescript } = process.features as { typescript?: unknown }
  const slow = command.replace(/\bsleep 5\b/, 'sleep 12')
  if (typescript) return slow
  return slow.replace(/^node (\w+\.ts)/, 'node --import tsx $1')
}

/** A line as shown, as a regular expression. */
export function patternOf(line: string): string {
  if (line === '…') return '(?:.*\\n)*?'
  const escaped = line.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
  return `${escaped.replace(/‹[^›]*›/g, '.+?')}\\n`
}

// Runs the console blocks of a page as a reader would: each terminal is a shell
// on a pseudo-terminal of its own, in which the commands behind `$` are typed,
// and all that appears on it is compared with what the page shows, the prompts
// and what is typed included. Not a test itself: commands.test.ts has the tests.
//
// A page shows what one run has printed, with nothing said about what differs
// from run to run. So here, once, is what is compared:
//
// - A number of one digit, one that stands in a command of the same group of
//   terminals, or in quotes: as it is (client 1, fd 0, port 8080).
// - One of four digits or more, a process or a user: any number, but the same
//   one wherever the page has the same one.
// - Any other, such as a descriptor or a size: any number.
// - `…`: anything that was left out, lines or the rest of one.
// - A line of another process on the same terminal may come behind the prompt.
// - /tmp is the folder that the tests have for temporary files.

import { writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Test } from 'tap'

import type { Block } from './readme.ts'
import { Running } from './support/processes.ts'
import { until } from './support/waiting.ts'

/** Where, as whom and with which environment commands run. */
export type Place = {
  readonly cwd: string
  readonly uid: number
  readonly env: NodeJS.ProcessEnv
  /** What is /tmp to the reader. */
  readonly temporary: string
}

/** What a reader types while a command runs. */
export type Typed = {
  /** A line of what the page shows, or CTRL_D. */
  readonly text: string
  /** What has to have appeared before, in any terminal of the group. */
  readonly after?: RegExp
}

type Command = { readonly text: string; readonly shown: string[] }

const TERMINAL = resolve('test/peers/terminal.py')
const PROMPT = '$ '
const CTRL_C = '\x03'
/** How long a line may come behind the end of its command, in seconds. */
const PATIENCE = 10
export const CTRL_D = '\x04'

/** The commands of a console block, each with the lines that follow it. */
export function commandsOf(block: Block): Command[] {
  const commands: Command[] = []
  for (const line of block.lines) {
    if (line.startsWith(PROMPT)) {
      commands.push({ text: line.slice(PROMPT.length), shown: [] })
    } else if (commands.length === 0) {
      throw new Error(`Expected ${PROMPT}, got ${line}`)
    } else commands.at(-1)?.shown.push(line)
  }
  return commands
}

/**
 * Blocks whose terminals are open at the same time: from each that is labelled
 * Terminal 1, or has no label, up to the next.
 */
export function groupsOf(blocks: readonly Block[]): Block[][] {
  const groups: Block[][] = []
  for (const block of blocks) {
    if (/^(Terminal 1)?$/.test(block.label)) groups.push([])
    groups.at(-1)?.push(block)
  }
  return groups
}

/**
 * Runs a group. A block starts once the one before it has printed a line, or is
 * done; ^C is typed once all blocks behind are done. What still runs at the end
 * is stopped with Ctrl-C.
 */
export async function runGroup(
  t: Test,
  group: readonly Block[],
  place: Place,
  typed: Readonly<Record<string, readonly Typed[]>> = {},
): Promise<void> {
  const numbers = new Numbers(group.flatMap(commandsOf))
  const terminals = new Map<string, Terminal>()
  const hasAppeared = (text: RegExp): boolean =>
    [...terminals.values()].some((terminal) => text.test(terminal.screen))
  const done = group.map(() => new Signal())
  const ends: Promise<void>[] = []
  for (const [index, block] of group.entries()) {
    const terminal =
      terminals.get(block.label) ?? new Terminal(t, place, numbers)
    terminals.set(block.label, terminal)
    await terminal.idle
    const started = new Signal()
    const session = {
      typed,
      hasAppeared,
      started,
      isLast: index === group.length - 1,
      allDone: () => Promise.all(done.slice(index + 1).map((d) => d.given)),
    }
    const end = terminal.run(block, session).finally(() => done[index]?.give())
    terminal.idle = end
    end.catch(() => {}) // Awaited below.
    ends.push(end)
    await Promise.race([started.given, end])
  }
  await Promise.all(ends)
  // Clients first, then those that they need.
  for (const terminal of [...terminals.values()].reverse()) {
    await terminal.stop()
  }
}

class Signal {
  give = (): void => {}
  readonly given = new Promise<void>((resolve) => {
    this.give = resolve
  })
}

// What a shell reads first: of root's it would be another prompt.
function profile({ temporary }: Place): string {
  const path = join(temporary, 'profile')
  writeFileSync(path, `PS1='${PROMPT}'\n`)
  return path
}

/** What a block has to know of the others. */
type Session = {
  readonly typed: Readonly<Record<string, readonly Typed[]>>
  readonly hasAppeared: (text: RegExp) => boolean
  /** To be given when the first line has appeared. */
  readonly started: Signal
  /** No block comes behind it. */
  readonly isLast: boolean
  /** All blocks behind it are done. */
  readonly allDone: () => Promise<unknown>
}

class Terminal {
  readonly #place: Place
  readonly #numbers: Numbers
  readonly #shell: Running
  /** The end of the block that it runs. */
  idle: Promise<void> = Promise.resolve()
  /** All lines that the page shows of it so far. */
  readonly #expected: string[] = []
  /** Lines that another process has printed behind the next prompt. */
  readonly #late: string[] = []
  /** How much was on the screen when the last command was typed. */
  #typedAt = 0

  constructor(t: Test, place: Place, numbers: Numbers) {
    const { cwd, uid } = place
    const env = { ...place.env, ENV: profile(place), TERM: 'dumb' }
    this.#place = place
    this.#numbers = numbers
    this.#shell = new Running(t, ['python3', TERMINAL, `${uid}`, 'sh'], {
      cwd,
      env,
    })
    // What is typed after the shell has ended is read by no one.
    this.#shell.child.stdin?.on('error', () => {})
  }

  get screen(): string {
    const text = this.#shell.stdout
      .replaceAll('\r', '')
      .replaceAll(this.#place.temporary, '/tmp')
    return this.#late.reduce(
      (all, line) => all.replace(`${PROMPT}${line}\n`, `${line}\n${PROMPT}`),
      text,
    )
  }

  async run(block: Block, session: Session): Promise<void> {
    const commands = commandsOf(block)
    for (const command of commands) {
      await this.#appears(PROMPT, command)
      this.#typedAt = this.screen.length
      this.#type(`${command.text}\n`)
      await this.#appears(PROMPT + command.text, command)
      await this.#follow(command, session)
      // A server goes on while others are to come.
      const mayGoOn = command === commands.at(-1) && !session.isLast
      if (!mayGoOn) await this.#ends(command)
    }
    session.started.give()
  }

  /** Ends what runs, and the shell. */
  async stop(): Promise<void> {
    if (!this.#hasPrompt) {
      this.#type(CTRL_C)
      await until('the prompt', () => this.#hasPrompt)
    }
    this.#type('exit\n')
    await this.#shell.exit
  }

  // Types what is to be typed, and sees all that is shown.
  async #follow(command: Command, session: Session): Promise<void> {
    const typed = [...(session.typed[command.text] ?? [])]
    const typeNext = async (): Promise<void> => {
      const { text = '', after } = typed.shift() ?? {}
      if (after) await until(`${after}`, () => session.hasAppeared(after))
      this.#type(text)
    }
    for (const line of command.shown) {
      if (typed[0]?.text === `${line}\n`) await typeNext()
      if (line.startsWith('^C')) {
        await session.allDone()
        this.#type(CTRL_C)
      }
      await this.#appears(line, command)
      session.started.give()
      while (typed[0]?.text === CTRL_D) await typeNext()
    }
  }

  async #ends(command: Command): Promise<void> {
    const isEnd = (): boolean => this.#isOver || this.#hasPrompt
    await until(`the end of ${command.text}`, isEnd)
    // Nothing but what is shown has appeared.
    const shown = this.#numbers.patternOf(this.#expected)
    const all = new RegExp(`^${shown}\\$ $`)
    if (!all.test(this.screen)) throw this.#unexpected(all, command)
  }

  // Waits for a line, whole unless it is the prompt.
  async #appears(line: string, command: Command): Promise<void> {
    const isPrompt = line === PROMPT
    if (!isPrompt) this.#expected.push(line)
    const pattern = this.#numbers.patternOf(this.#expected)
    const start = new RegExp(`^${pattern}${isPrompt ? '\\$ $' : ''}`)
    const isSeen = (): boolean => start.test(this.screen)
    const isEnded = (): boolean => this.#hasPrompt || this.#isLate(line)
    const isEnd = (): boolean => isSeen() || this.#isOver || isEnded()
    await until(line, isEnd).catch(() => {})
    if (!isSeen() && isEnded()) await this.#comesLate(line)
    const match = start.exec(this.screen)
    if (!match) throw this.#unexpected(start, command)
    this.#numbers.note(match)
  }

  // Who has this terminal as well may print on it when the command has ended.
  async #comesLate(line: string): Promise<void> {
    await until(line, () => this.#isLate(line), PATIENCE).catch(() => {})
    if (this.#isLate(line)) this.#late.push(line)
  }

  #isLate(line: string): boolean {
    return this.screen.endsWith(`\n${PROMPT}${line}\n`)
  }

  #type(text: string): void {
    this.#shell.child.stdin?.write(text)
  }

  // The command has ended.
  get #hasPrompt(): boolean {
    const isNew = this.screen.length > this.#typedAt
    return isNew && this.screen.endsWith(PROMPT)
  }

  get #isOver(): boolean {
    return this.#shell.child.exitCode !== null
  }

  #unexpected(expected: RegExp, { text }: Command): Error {
    const got = this.screen + this.#shell.stderr
    return new Error(`$ ${text}\nExpected ${expected}, got:\n${got}`)
  }
}

/** What the numbers of a page are in this run: see the head of this file. */
export class Numbers {
  /** Those that are as the page has them. */
  readonly #same: ReadonlySet<string>
  /** Of those of four digits or more, what they are here. */
  readonly #here = new Map<string, string>()

  constructor(commands: readonly Command[]) {
    const texts = commands.map(({ text }) => text)
    this.#same = new Set(texts.join(' ').match(/\d+/g))
  }

  /** Lines of a page as a regular expression. */
  patternOf(lines: readonly string[]): string {
    const named = new Set<string>()
    const patterns = lines.map((line) => this.#patternOf(line, named))
    return patterns.join('')
  }

  /** Takes what numbers are from a match of the expression. */
  note({ groups = {} }: RegExpExecArray): void {
    for (const [name, number] of Object.entries(groups)) {
      this.#here.set(name.slice(1), number)
    }
  }

  #patternOf(line: string, named: Set<string>): string {
    if (line === '…') return '(?:.*\\n)*?'
    const escaped = line.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
    const pattern = escaped
      .replace(/"[^"]*"|\d+/g, (part) => this.#numberOf(part, named))
      .replaceAll('…', '.*')
    return `${pattern}\\n`
  }

  #numberOf(part: string, named: Set<string>): string {
    if (part.startsWith('"') || part.length === 1 || this.#same.has(part)) {
      return part
    }
    if (part.length < 4) return '\\d+'
    const here = this.#here.get(part)
    if (here !== undefined) return here
    if (named.has(part)) return `\\k<n${part}>`
    named.add(part)
    return `(?<n${part}>\\d+)`
  }
}

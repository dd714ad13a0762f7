// What every script here does around its story: options, --help, the default
// socket path, dialling a server, stopping at a signal, and giving up with one
// line. Not for copying. Read next: lib/script/print.ts.

import { existsSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { type ParseArgsConfig, parseArgs } from 'node:util'
import {
  type Credentials,
  connect,
  describeFd,
  type ReceivedFds,
  type ReceiveOptions,
  type UnixConn,
} from '../index.ts'
import { _exit } from '../socket/pool-calls.ts'
import { linePrinter } from './print.ts'
import { printable } from './printable.ts'

/** Prints a line on stdout: see linePrinter(). */
export const print = linePrinter(process.stdout)

const script = basename(process.argv[1] ?? '')

/** The option that every script has. */
export const help = { help: { type: 'boolean', short: 'h' } } as const

/**
 * The command line, parsed. `--help` prints `usage` and exits 0; an option or
 * argument that is unknown, missing or too much exits 2, saying which.
 *
 * @param config for parseArgs; its options include `help`
 * @param positionals the least and the most positional arguments
 */
export function commandLine<T extends ParseArgsConfig>(
  usage: string,
  config: T,
  [least, most]: readonly [number, number],
): ReturnType<typeof parseArgs<T>> {
  try {
    const parsed = parseArgs(config)
    if ('help' in parsed.values && parsed.values.help === true) {
      console.log(usage)
      process.exit(0)
    }
    const { length } = parsed.positionals
    if (length < least || length > most) {
      const expected = amount(least, most)
      throw new Error(`Expected ${expected}, got ${length}`)
    }
    return parsed
  } catch (error) {
    return usageError(usage, messageOf(error))
  }
}

/** For numberOption(): the ports of TCP and UDP. 0 is any that is free. */
export const PORTS = [0, 65535] as const

/**
 * A whole number from the command line. Exits 2 for any other text, and for a
 * number out of bounds, saying what was expected.
 *
 * @param name of the option or argument, as the user knows it: '--port'
 */
export function numberOption(
  usage: string,
  name: string,
  text: string,
  [least, most]: readonly [number, number],
): number {
  const value = Number(text)
  if (/^\d+$/.test(text) && value >= least && value <= most) return value
  const range = `from ${least} to ${most}`
  const expected = DECIMAL.test(text) ? range : 'as a number'
  return usageError(usage, `Expected ${name} ${expected}, got "${text}"`)
}

const DECIMAL = /^-?\d*\.?\d+$/

/** The most that setTimeout() takes, in whole seconds. */
const MOST_SECONDS = 2_147_483

/**
 * Seconds from the command line, such as 5 or 0.2, in milliseconds. Exits 2 as
 * numberOption() does.
 *
 * @param least in seconds: a millisecond, unless 0 makes sense as well
 */
export function secondsOption(
  usage: string,
  name: string,
  text: string,
  least = 0.001,
): number {
  const value = Number(text)
  const isDecimal = DECIMAL.test(text)
  if (isDecimal && value >= least && value <= MOST_SECONDS)
    return Math.round(value * 1000)
  const range = `from ${least} to ${MOST_SECONDS} seconds`
  const expected = isDecimal ? range : 'in seconds'
  return usageError(usage, `Expected ${name} ${expected}, got "${text}"`)
}

function amount(least: number, most: number): string {
  const noun = most === 1 || least === 1 ? 'argument' : 'arguments'
  if (most === Number.POSITIVE_INFINITY) return `at least ${least} ${noun}`
  return least === most ? `${least} ${noun}` : `${least} to ${most} arguments`
}

/**
 * The arguments of a script that runs a COMMAND, cut in two where COMMAND
 * begins: what follows is COMMAND's own, options too, as with env(1).
 *
 * @param options as for parseArgs: they tell an option's value from COMMAND
 * @param before how many arguments of the script's own precede COMMAND
 */
export function cutAtCommand(
  options: NonNullable<ParseArgsConfig['options']>,
  before = 0,
): { args: string[]; command: string[] } {
  const all = process.argv.slice(2)
  // Not strict: what is wrong in the first part, commandLine will say.
  const found = parseArgs({
    args: all,
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  }).tokens.filter(({ kind }) => kind === 'positional')[before]
  const end = found?.index ?? all.length
  return { args: all.slice(0, end), command: all.slice(end) }
}

/** Exits 2: the command line is wrong. */
export function usageError(usage: string, reason: string): never {
  console.error(`${script}: ${printable(reason)}\n${usage}`)
  process.exit(2)
}

/** Exits 1 with one line: the rest cannot be done. */
export function fail(reason: unknown): never {
  console.error(`${script}: ${printable(messageOf(reason))}`)
  process.exit(1)
}

/** What `make` returns; exits 1 with one line if it throws. */
export function orFail<T>(make: () => T): T {
  try {
    return make()
  } catch (error) {
    return fail(error)
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

export function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | undefined)?.code
}

/** What a descriptor refers to, or why that cannot be told. */
export function kindOf(fd: number): string {
  try {
    return describeFd(fd).kind
  } catch (error) {
    return messageOf(error)
  }
}

/**
 * How many descriptors this process may have: RLIMIT_NOFILE in getrlimit(2).
 * Node tells it in its report alone.
 */
export function descriptorLimit(): number {
  const report = process.report.getReport() as Report
  const { soft } = report.userLimits.open_files
  return soft === 'unlimited' ? Number.POSITIVE_INFINITY : soft
}

type Report = {
  readonly userLimits: {
    readonly open_files: { readonly soft: number | 'unlimited' }
  }
}

/** Those that a server has if it is given none. */
const defaultPaths = new Set<string>()

/**
 * A socket path of this user's own: in $XDG_RUNTIME_DIR, which no other user
 * can enter, else in the temporary directory, with the uid in its name. Exits 1
 * if that variable does not name a directory.
 */
export function defaultSocketPath(name: string): string {
  const { XDG_RUNTIME_DIR } = process.env
  // Not by os.userInfo(): in a container the uid may have no entry in passwd.
  const path = XDG_RUNTIME_DIR
    ? join(checkRuntimeFolder(XDG_RUNTIME_DIR), `${name}.sock`)
    : join(tmpdir(), `${name}-${process.getuid?.()}.sock`)
  defaultPaths.add(path)
  return path
}

function checkRuntimeFolder(folder: string): string {
  if (existsSync(`${folder}/.`)) return folder
  return fail(`Expected a directory as XDG_RUNTIME_DIR, got ${folder}`)
}

/** The path for a script whose only argument is an optional SOCKET. */
export function socketArgument(usage: string, name: string): string {
  const config = { options: help, allowPositionals: true } as const
  const { positionals } = commandLine(usage, config, [0, 1])
  return positionals[0] ?? defaultSocketPath(name)
}

/**
 * Connects to the server on `path`, or exits 1 with one line. The caller owns
 * the connection.
 *
 * @param server how its script is called from the root: './server.ts'
 * @param isDefault whether the server has `path` without being given it
 */
export async function dial(
  path: string,
  server: string,
  isDefault = defaultPaths.has(path),
): Promise<UnixConn> {
  try {
    return await connect(path)
  } catch (error) {
    if (!foundNoServer(error)) return fail(error)
    const command = isDefault ? server : `${server} ${path}`
    return fail(`No server on ${path}: start ${command} first`)
  }
}

/** Whether connect() found no server: no socket, or one that it left behind. */
export function foundNoServer(error: unknown): boolean {
  const code = codeOf(error)
  return code === 'ENOENT' || code === 'ECONNREFUSED'
}

/**
 * Who is at the other end; exits 1 unless that is this user, or root. To be
 * called before anything is sent that no other user should have.
 */
export function ownPeer(conn: UnixConn): Credentials {
  const peer = conn.peerCredentials()
  if (peer.uid !== process.getuid?.() && peer.uid !== 0)
    return fail(`Expected a server of this user's, got one of uid ${peer.uid}`)
  return peer
}

/** How long a client may take for its first message, in ms. */
const PATIENCE = 5000

/**
 * The first message of a client, as conn.recvFds() gives it; null if it hangs
 * up. A client that sends nothing would keep a place that others wait for.
 *
 * @throws Error as conn.recvFds(), and if nothing comes in time
 */
export async function firstMessage(
  conn: UnixConn,
  limits: ReceiveOptions,
  patience = PATIENCE,
): Promise<ReceivedFds | null> {
  try {
    const signal = AbortSignal.timeout(patience)
    return await conn.recvFds({ ...limits, signal })
  } catch (error) {
    if (codeOf(error) !== 'ABORT_ERR') throw error
    throw new Error(`Expected a message within ${patience / 1000} s, got none`)
  }
}

/**
 * Calls `stop` at SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal is gone),
 * and with SIGTERM when the reader of stdout has closed it. A second signal of
 * the same kind ends the process at once, as it would have without this. To be
 * called before a program says that it is ready: a signal may follow at once.
 */
export function onStop(stop: (signal: NodeJS.Signals) => void): void {
  for (const signal of STOP_SIGNALS) process.once(signal, () => stop(signal))
  stops.push(stop)
}

const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

const stops: ((signal: NodeJS.Signals) => void)[] = []

// Process 1 of a container gets no signal that it has no handler for. Here is
// one that does what the kernel does to every other process: at the first
// signal where there is no onStop(), else at the second of the same kind.
if (process.pid === 1) {
  const seen = new Set<NodeJS.Signals>()
  for (const signal of STOP_SIGNALS) {
    process.on(signal, () => {
      if (stops.length === 0 || seen.has(signal)) {
        _exit(128 + constants.signals[signal])
      }
      seen.add(signal)
    })
  }
}

let isUnread = false

// `./server.ts | head -1`: what would be SIGPIPE elsewhere is an error here,
// because Node ignores that signal.
process.stdout.on('error', (error) => {
  if (codeOf(error) !== 'EPIPE') fail(error)
  stopUnread()
})

function stopUnread(): void {
  if (stops.length === 0) process.exit()
  if (isUnread) return
  isUnread = true
  for (const stop of stops) stop('SIGTERM')
}

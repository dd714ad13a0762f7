// Child processes, which are waited for by what they print, and the project's
// scripts as such. Not a test itself.

import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'

import { temporaryFolder } from './folder.ts'

/** The environment for a child that runs as a user's would. */
export function plainEnv(extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const env = { ...process.env }
  for (const name of Object.keys(env)) if (/TAP/.test(name)) delete env[name]
  return { ...env, ...extra }
}

// Node warns once that node:ffi is experimental; the tests expect no warnings.
const quiet =
  process.env.FDPASS_FFI === 'node'
    ? ['--disable-warning=ExperimentalWarning']
    : []

// What strips types in the tests: test/strip/register.js says why it is not tsx.
export const strip = [
  '--import',
  new URL('../strip/register.js', import.meta.url).href,
]

/** The command and arguments that run one of the project's scripts. */
export function script(file: string, ...args: string[]): string[] {
  return [process.execPath, ...quiet, ...strip, file, ...args]
}

/** A child process, killed at the end, with what it printed so far. */
export class Running {
  readonly child: ChildProcess
  stdout = ''
  stderr = ''
  readonly exit: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  readonly #command: string

  constructor(t: Test, command: readonly string[], options: SpawnOptions = {}) {
    const [file = '', ...args] = command
    this.#command = command.join(' ')
    this.child = spawn(file, args, { env: plainEnv(), ...options })
    // A character may be cut between two reads.
    this.child.stdout?.setEncoding('utf8')
    this.child.stderr?.setEncoding('utf8')
    this.child.stdout?.on('data', (chunk) => {
      this.stdout += chunk
    })
    this.child.stderr?.on('data', (chunk) => {
      this.stderr += chunk
    })
    this.exit = new Promise((resolve, reject) => {
      this.child.once('error', reject)
      this.child.once('close', (code, signal) => resolve({ code, signal }))
    })
    this.exit.catch(() => {})
    t.teardown(() => {
      this.child.kill('SIGKILL')
      return this.exit.catch(() => {})
    })
  }

  get pid(): number {
    return this.child.pid ?? -1
  }

  /** Resolves once `pattern` was printed (stdout, stderr), with its match. */
  async printed(pattern: RegExp, seconds = 120): Promise<RegExpMatchArray> {
    const giveUp = AbortSignal.timeout(seconds * 1000)
    let ended = false
    const end = this.exit.then(
      () => {
        ended = true
      },
      () => {
        ended = true
      },
    )
    for (;;) {
      const match = `${this.stdout}\n${this.stderr}`.match(pattern)
      if (match) return match
      if (giveUp.aborted || ended) {
        throw new Error(
          `Expected ${pattern} from ${this.#command}, got:\n${this.stdout}\n${this.stderr}`,
        )
      }
      await Promise.race([output(this.child, giveUp), end])
    }
  }
}

/** Resolves when the child has printed something, or `giveUp` is aborted. */
function output(child: ChildProcess, giveUp: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      child.stdout?.off('data', done)
      child.stderr?.off('data', done)
      giveUp.removeEventListener('abort', done)
      resolve()
    }
    child.stdout?.on('data', done)
    child.stderr?.on('data', done)
    giveUp.addEventListener('abort', done)
  })
}

/** Runs a command to its end. */
export async function run(
  t: Test,
  command: readonly string[],
  options: SpawnOptions & { input?: string } = {},
) {
  const { input, ...rest } = options
  const running = new Running(t, command, rest)
  if (input !== undefined) running.child.stdin?.end(input)
  const { code, signal } = await running.exit
  return { code, signal, stdout: running.stdout, stderr: running.stderr }
}

/** A server of this repository, ready on `path`, or in a new folder. */
export async function startServer(
  t: Test,
  file = 'server.ts',
  path = join(temporaryFolder(t), 's'),
) {
  const server = new Running(t, script(file, path))
  await server.printed(/^Server ready on .*, pid \d+$/m)
  return { path, server }
}

/** Whether a process is stopped: by SIGSTOP, SIGTSTP or SIGTTIN. */
export function isStopped(pid: number | string): boolean {
  return /\) T /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
}

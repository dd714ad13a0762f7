// Child processes of faults.ts: clients, which run to their end or to a limit,
// and servers, which are waited for by what they print.

import { type ChildProcess, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'

export type Run = {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** Had to be killed at its time limit. */
  readonly hung: boolean
  /** Had ended, but something else had its output open until the limit. */
  readonly held?: boolean
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end, for `limit` ms at most. */
export function run(
  [file = '', ...args]: readonly string[],
  limit: number,
  input = '',
): Promise<Run> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { detached: true })
    let hung = false
    let stdout = ''
    let stderr = ''
    let held = false
    const timer = setTimeout(() => {
      held = child.exitCode !== null || child.signalCode !== null
      hung = !held
      if (hung) killGroup(child)
      child.stdout.destroy()
      child.stderr.destroy()
    }, limit)
    child.stdin.on('error', () => {}) // it may end without reading
    child.stdin.end(input)
    child.stdout.on('data', (chunk) => {
      stdout += chunk
    })
    child.stderr.on('data', (chunk) => {
      stderr += chunk
    })
    child.once('error', reject)
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      resolve({ code, signal, hung, held, stdout, stderr })
    })
  })
}

// strace with its client, or a client with its command.
function killGroup({ pid }: ChildProcess): void {
  if (pid !== undefined) process.kill(-pid, 'SIGKILL')
}

/** A server, with what it printed so far. */
export class Server {
  readonly pid: number
  stdout = ''
  stderr = ''
  /** Of stderr, what came with the last client. */
  recent = ''
  /** Undefined while it runs. */
  end: { code: number | null; signal: NodeJS.Signals | null } | undefined
  readonly #child: ChildProcess

  constructor([file = '', ...args]: readonly string[]) {
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    child.stdout.on('data', (chunk) => {
      this.stdout += chunk
    })
    child.stderr.on('data', (chunk) => {
      this.stderr += chunk
      this.recent += chunk
    })
    child.once('close', (code, signal) => {
      this.end = { code, signal }
    })
    this.#child = child
    this.pid = child.pid ?? -1
  }

  /** What it prints from now on is another client's. */
  forget(): void {
    this.stdout = ''
    this.recent = ''
  }

  /** Asks it to end; SIGKILL if it does not within `limit` ms. */
  async stop(limit: number): Promise<boolean> {
    this.#child.kill('SIGTERM')
    if (await until(() => this.end !== undefined, limit)) return true
    this.#child.kill('SIGKILL')
    await until(() => this.end !== undefined, limit)
    return false
  }
}

/** Whether `condition` came to hold within `limit` ms. */
export async function until(
  condition: () => boolean,
  limit: number,
): Promise<boolean> {
  const end = performance.now() + limit
  while (!condition()) {
    if (performance.now() > end) return false
    await sleep(5)
  }
  return true
}

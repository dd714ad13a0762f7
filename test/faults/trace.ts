// strace(1), as a way to let system calls fail: attached to a running server,
// or in front of a client. Only the main thread is traced, which makes all of
// the scripts' calls; the thread pool and child processes are left alone.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'

import { until } from './run.ts'

export type Fault = {
  readonly call: string
  readonly errno: string
  /** Which call of that name fails, from 1 on. */
  readonly when: number
}

/** How strace is told what to trace, and what to let fail. */
export function traceArguments(
  log: string,
  calls: readonly string[],
  fault?: Fault,
): string[] {
  const traced = [WAITS, ...calls].map((call) => `?${call}`).join(',')
  const args = ['-o', log, '-e', `trace=${traced}`, '-e', 'signal=none']
  if (fault === undefined) return args
  const { call, errno, when } = fault
  return [...args, '-e', `inject=${call}:error=${errno}:when=${when}`]
}

/** strace, attached to a process. */
export class Trace {
  readonly #strace: ChildProcess
  readonly #log: string

  private constructor(strace: ChildProcess, log: string) {
    this.#strace = strace
    this.#log = log
  }

  /** @throws Error ENOENT if there is no strace, its words if it must not */
  static async attach(
    pid: number,
    log: string,
    calls: readonly string[],
    fault?: Fault,
  ): Promise<Trace> {
    const args = ['-p', `${pid}`, ...traceArguments(log, calls, fault)]
    const strace = spawn('strace', args, {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    await once(strace, 'spawn') // or throws that there is no strace
    let told = ''
    for await (const chunk of strace.stderr) {
      told += chunk
      if (/ attached/.test(told)) return new Trace(strace, log)
    }
    throw new Error(told.trim())
  }

  /** Lets the process go on without; the lines of the log. */
  async detach(): Promise<string[]> {
    if (this.#strace.exitCode === null && this.#strace.signalCode === null) {
      this.#strace.kill('SIGINT')
      await once(this.#strace, 'exit')
    }
    return linesOfLog(this.#log)
  }
}

export function linesOfLog(log: string): string[] {
  return readFileSync(log, 'utf8').split('\n')
}

/**
 * Which calls of each name are the script's own: 1 for the first, and so on.
 * The others are libuv's, or of the C library and of tsx before the script
 * begins (looking for a name service, and for a parent that watches files).
 */
export function ownCalls(lines: readonly string[]): Map<string, number[]> {
  const begin = lines.findLastIndex(isForeign) + 1
  const counts = new Map<string, number>()
  const own = new Map<string, number[]>()
  for (const [index, line] of lines.entries()) {
    const call = /^(\w+)\(/.exec(line)?.[1]
    if (call === undefined || call === WAITS) continue
    const count = (counts.get(call) ?? 0) + 1
    counts.set(call, count)
    if (index < begin || isForLibuv(line, lines)) continue
    own.set(call, [...(own.get(call) ?? []), count])
  }
  return own
}

/** The call by which libuv waits. Traced to learn where: see below. */
const WAITS = 'epoll_pwait'

function isForeign(line: string): boolean {
  return /AF_NETLINK|\/nscd\/|\/tsx-\d+\//.test(line)
}

/** Whether the call of a line is one that libuv aborts on. */
export function isForLibuv(line: string, lines: readonly string[]): boolean {
  if (isForeign(line)) return true
  const list = /^epoll_ctl\((\d+),/.exec(line)?.[1]
  if (list === undefined) return false
  // libuv asks for 1024 events at once, we never do.
  const ofLoop = new RegExp(`^${WAITS}\\(${list},.*, 1024, `)
  return lines.some((line) => ofLoop.test(line))
}

/** The descriptors of a process, by number: what each refers to. */
export function descriptors(pid: number): Map<number, string> {
  const folder = `/proc/${pid}/fd`
  const found = new Map<number, string>()
  if (!existsSync(folder)) return found
  for (const fd of readdirSync(folder)) {
    try {
      found.set(Number(fd), readlinkSync(join(folder, fd)))
    } catch {
      // Closed since it was listed.
    }
  }
  return found
}

/** What a process has open more than it had, if that stays so for `limit` ms. */
export async function openedSince(
  before: ReadonlyMap<number, string>,
  pid: number,
  limit: number,
): Promise<string[]> {
  if (await until(() => descriptors(pid).size <= before.size, limit)) return []
  return [...descriptors(pid)]
    .filter(([fd]) => !before.has(fd))
    .map(([fd, target]) => `${fd} -> ${target}`)
}

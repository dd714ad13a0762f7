// One scenario: its servers, started when they are needed, and a client that
// talks to them while one call fails. Says how that went. Used by ../faults.ts.

import { rmSync } from 'node:fs'
import { join } from 'node:path'

import { callsOfScripts, errnosOf } from './calls.ts'
import { newPlace } from './place.ts'
import type { Scenario } from './programs.ts'
import { type Run, run, Server, until } from './run.ts'
import {
  descriptors,
  type Fault,
  isForLibuv,
  linesOfLog,
  openedSince,
  ownCalls,
  Trace,
  traceArguments,
} from './trace.ts'
import { crashOf, tellsError } from './verdict.ts'

/** ms, by far: what takes longer hangs. */
const LIMIT = 60_000
/** ms, for what may well hang, which is no fault of the program's. */
const HOPELESS = 5000
/** ms in which a server has closed what it had for a client. */
const RELEASE = 15_000

const node = [process.execPath, ...process.execArgv]
const fine = { code: 0, signal: null, hung: false, stdout: '', stderr: '' }
let count = 0

export class Session {
  readonly #scenario: Scenario
  readonly #inClient: boolean
  readonly #place = newPlace()
  #servers: Server[] = []

  /** @param inClient whether the client's calls fail, or the last server's */
  constructor(scenario: Scenario, inClient: boolean) {
    this.#scenario = scenario
    this.#inClient = inClient
    scenario.before?.(this.#place)
  }

  /** Which calls the program makes for one client: see ownCalls. */
  async profile(): Promise<Map<string, number[]>> {
    await this.#start()
    // The first client may make things that stay: the second is typical.
    if (!this.#inClient) await this.#clean()
    const calls = this.#inClient ? callsOfScripts : Object.keys(errnosOf)
    const { result, lines, token } = await this.#traced(calls)
    const wrong = await this.#wrong(result, token)
    if (wrong) throw new Error(`without a fault: ${wrong} ${result.stderr}`)
    return ownCalls(lines)
  }

  /** How one fault went; undefined if it did not happen. */
  async judge(fault: Fault): Promise<string | undefined> {
    await this.#start()
    const before = descriptors(this.#target()?.pid ?? -1)
    const { result, lines, token } = await this.#traced([fault.call], fault)
    if (fault.call === 'close') return this.#closeFailed(result, fault)
    const injected = lines.find((line) => line.endsWith('(INJECTED)'))
    if (injected === undefined || isForLibuv(injected, lines)) {
      await this.close()
      return undefined
    }
    const told = this.#servers.some(tellsError)
    const verdict =
      crashOf(result, this.#target(), fault) ??
      (await this.#wrong(result, token)) ??
      (await this.#next(fault)) ??
      (await this.#leak(before, fault))
    const end = this.#target()?.end
    if (verdict ?? end) await this.close()
    if (verdict !== undefined) return verdict
    if (end) return `error told, server exit ${end.code}`
    if (result.code !== 0) return `error told, exit ${result.code}`
    return told ? 'error told by the server' : 'ok'
  }

  // See calls.ts: nothing was closed, so others may wait for ever.
  async #closeFailed(result: Run, fault: Fault): Promise<string> {
    const crash = crashOf(result, this.#target(), fault)
    await this.close(HOPELESS)
    return crash ?? 'no crash'
  }

  /** Stops the servers; 'HANG' if one does not. */
  async close(limit = LIMIT): Promise<string | undefined> {
    const stopped = this.#servers.splice(0).map((one) => one.stop(limit))
    return (await Promise.all(stopped)).includes(false)
      ? 'HANG at its end'
      : undefined
  }

  remove(): void {
    rmSync(this.#place.folder, { recursive: true })
  }

  #target(): Server | undefined {
    return this.#servers.at(this.#scenario.target ?? -1)
  }

  async #start(): Promise<void> {
    if (this.#servers.length > 0) return
    for (const { file, args, ready } of this.#scenario.servers) {
      const server = new Server([...node, file, ...args(this.#place)])
      this.#servers.push(server)
      const isReady = () => ready.test(server.stdout)
      if (!(await until(() => isReady() || !!server.end, LIMIT)) || server.end)
        throw new Error(`${file} did not start: ${server.stderr}`)
    }
  }

  // A client, with a trace of whoever is to be traced.
  async #traced(calls: readonly string[], fault?: Fault) {
    const log = join(this.#place.folder, 'strace.log')
    const server = this.#target()
    if (this.#inClient || server === undefined) {
      const front = ['strace', ...traceArguments(log, calls, fault)]
      const { result, token } = await this.#client(LIMIT, front)
      return { result, token, lines: linesOfLog(log) }
    }
    const trace = await Trace.attach(server.pid, log, calls, fault)
    const limit = fault?.call === 'close' ? HOPELESS : LIMIT
    const { result, token } = await this.#client(limit)
    const lines = await trace.detach()
    // What strace has seen, we will hear.
    if (lines.some((line) => line.startsWith('+++')))
      await until(() => server.end !== undefined, LIMIT)
    return { result, token, lines }
  }

  async #client(limit = LIMIT, front: readonly string[] = []) {
    const scenario = this.#scenario
    const token = `t${++count}.`
    for (const server of this.#servers) server.forget()
    if ('talk' in scenario) {
      const result = await scenario.talk(this.#place, token, limit)
      return { result, token }
    }
    const { args, input } = scenario.script(this.#place, token)
    const command = [...front, ...node, scenario.file, ...args]
    return { result: await run(command, limit, input), token }
  }

  // What the client says against what arrived.
  async #wrong(result: Run, token: string): Promise<string | undefined> {
    if (result.hung) return 'HANG'
    const payload = this.#scenario.payload(token)
    const seen = () =>
      [result.stdout, ...this.#servers.map(({ stdout }) => stdout)].join('')
    const times = (text: string) => seen().split(text).length - 1
    // A server may print what it got after the client has gone.
    const isComplete = () => payload.every((text) => times(text) > 0)
    const isToldLost = () => isComplete() || this.#servers.some(tellsError)
    if (result.code === 0 && !(await until(isToldLost, LIMIT)))
      return 'LOST BYTES'
    if (payload.some((text) => times(text) > 1)) return 'DOUBLED BYTES'
    return undefined
  }

  // A server may still be ending. Short of descriptors, libuv closes those
  // connections that wait: one more may be lost.
  async #next(fault: Fault): Promise<string | undefined> {
    const wrong = await this.#clean()
    if (wrong === undefined) return undefined
    const server = this.#target()
    if (await until(() => server?.end !== undefined, HOPELESS))
      return crashOf(fine, server, fault)
    return /^E[MN]FILE$/.test(fault.errno) ? this.#clean() : wrong
  }

  async #clean(): Promise<string | undefined> {
    if (this.#target()?.end) return undefined
    const { result, token } = await this.#client()
    if (result.hung) return 'HANG of the next client'
    if (result.code !== 0)
      return `BROKEN for the next client: ${result.stderr || result.stdout}`
    return this.#wrong(result, token)
  }

  // What the first full socket makes stays (see lib/wait/room.ts), so what is
  // more by one fault may be in order; by a second one it is a leak.
  async #leak(
    before: ReadonlyMap<number, string>,
    fault: Fault,
  ): Promise<string | undefined> {
    if (this.#target()?.end) return undefined
    const pid = this.#target()?.pid ?? -1
    const kept = await openedSince(before, pid, RELEASE)
    if (kept.length === 0) return undefined
    const after = descriptors(pid)
    await this.#traced([fault.call], fault)
    await this.#clean()
    const more = await openedSince(after, pid, RELEASE)
    return more.length > 0 ? `LEAK: ${more.join(', ')}` : undefined
  }
}

// QEMU's monitor: its protocol, QMP, is lines of JSON, and some of its commands
// take a descriptor, which comes with the bytes of their line. node:readline
// reads the lines, of which an FdStream is the source as any stream would be.
// Used by run.ts. Open "QEMU Machine Protocol Specification" with it.
//
//    QEMU  {"QMP":{"version":{"qemu":{"major":7,…}},…}}
//    here  {"execute":"qmp_capabilities"}
//    QEMU  {"return":{}}
//    here  {"execute":"getfd","arguments":{"fdname":"nbd"}}   and a descriptor
//    QEMU  {"return":{}}
//    QEMU  {"event":"SHUTDOWN",…}
//
// Each command has one answer, in the order of the commands. Events come at any
// time, and are passed over here.
//
// framesOf() is not for such a protocol: its lines say how many descriptors
// belong to them, which those of QMP do not.

import { createInterface } from 'node:readline'

import { FdStream, type UnixConn } from '../../lib/index.ts'
import { messageOf } from '../../lib/script/cli.ts'

type Message = {
  readonly QMP?: Greeting
  readonly return?: unknown
  readonly error?: { readonly class: string; readonly desc: string }
  readonly event?: string
}

type Greeting = {
  readonly version: {
    readonly qemu: {
      readonly major: number
      readonly minor: number
      readonly micro: number
    }
  }
}

type Waiting = {
  readonly resolve: (answer: unknown) => void
  readonly reject: (reason: Error) => void
}

export class Monitor {
  readonly #stream: FdStream
  readonly #waiting: Waiting[] = []
  #why = 'QEMU hung up'
  /** Of QEMU, such as 7.2.22. */
  version = ''

  private constructor(conn: UnixConn) {
    // QEMU sends none: one that came would end the stream, and be closed.
    this.#stream = new FdStream(conn, { maxFds: 0 })
    this.#stream.once('close', () => this.#hangUp())
    const lines = createInterface({ input: this.#stream })
    lines.on('line', (line) => this.#take(line))
    // Errors of the stream too: it is closed by them.
    lines.on('error', (error) => {
      this.#why = `QEMU hung up: ${messageOf(error)}`
    })
  }

  /**
   * Waits for the greeting, and answers it. Owns `conn` from then on.
   *
   * @throws Error if QEMU hangs up, or refuses
   */
  static async open(conn: UnixConn): Promise<Monitor> {
    const monitor = new Monitor(conn)
    const greeting = (await monitor.#answer()) as Greeting | undefined
    const { major, minor, micro } = greeting?.version?.qemu ?? {}
    monitor.version = `${major}.${minor}.${micro}`
    await monitor.execute('qmp_capabilities')
    return monitor
  }

  /**
   * Has QEMU execute a command, and gives its answer.
   *
   * @param fd for a command that takes a descriptor. It remains the caller's,
   * who may close it as soon as this has returned its promise
   * @throws Error with QEMU's words, or if it hangs up
   */
  async execute(command: string, args: object = {}, fd?: number) {
    const line = JSON.stringify({ execute: command, arguments: args })
    const fds = fd === undefined ? [] : [fd]
    this.#stream.writeWithFds(`${line}\n`, fds)
    return await this.#answer()
  }

  /** Hangs up. QEMU goes on without a monitor. */
  close(): void {
    this.#stream.destroy()
  }

  #answer(): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      if (this.#stream.destroyed) this.#hangUp()
    })
  }

  #take(line: string): void {
    const message = parse(line)
    if (message === undefined) {
      const got = JSON.stringify(line.slice(0, 80))
      this.#stream.destroy(new Error(`Expected a line of QMP, got ${got}`))
      return
    }
    if (message.event !== undefined) return
    const first = this.#waiting.shift()
    if (message.error) first?.reject(new Error(`QEMU: ${message.error.desc}`))
    else first?.resolve(message.QMP ?? message.return)
  }

  #hangUp(): void {
    for (const { reject } of this.#waiting.splice(0)) {
      reject(new Error(this.#why))
    }
  }
}

function parse(line: string): Message | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}

// One live TCP connection of front.ts: a net.Socket, a buffer and two times.
// It answers lines and counts them, and says when it is idle. Open tcp(7),
// read(2) with it.

import { type ConnectOpts, Socket, type SocketConstructorOpts } from 'node:net'
import { messageOf } from '../../lib/script/cli.ts'
import { printable } from '../../lib/script/printable.ts'

/** What a front knows about a connection: as JSON, the tag of a parked one. */
export type Session = { readonly id: number; lines: number }

export type Options = {
  /** Without a byte, until onIdle is called, in ms. */
  readonly idle: number
  /** Time to end a line that was begun, and to read answers, in ms. */
  readonly patience: number
  /** May be called several times, as long as the connection stays idle. */
  readonly onIdle: (connection: Live) => void
  /** The connection has ended here. May be called twice. */
  readonly onClose: (connection: Live) => void
  readonly log: (line: string) => void
}

/** Bytes read at a time, and of a line. */
const BUFFER = 16384

export class Live {
  readonly fd: number
  readonly session: Session
  readonly #socket: Socket
  readonly #options: Options
  readonly #buffer = Buffer.alloc(BUFFER)
  #rest = Buffer.alloc(0)
  #isIdle = false
  /** When the last line was complete, or the first byte of the next came. */
  #since = 0

  /** Owns `fd`, from its first byte or from where it was parked. */
  constructor(fd: number, session: Session, options: Options) {
    this.fd = fd
    this.session = session
    this.#options = options
    // With a buffer of our own the stream never holds a byte, and pause() stops
    // the reading at once.
    const callback = (length: number): boolean => this.#take(length)
    const onread = { buffer: this.#buffer, callback }
    const settings: SocketConstructorOpts & ConnectOpts = { fd, onread }
    const socket = new Socket(settings)
    socket.setTimeout(options.idle)
    socket.on('timeout', () => this.#idle())
    socket.on('drain', () => socket.resume()) // see #take
    socket.on('error', (error) => this.log(messageOf(error)))
    socket.once('end', () => this.log('hung up'))
    socket.once('close', () => options.onClose(this))
    this.#socket = socket
  }

  /** Whether it can be parked: nothing came for a while, nothing is begun. */
  get isIdle(): boolean {
    return this.#isIdle && this.#isBetweenLines
  }

  // No half line, no answer on its way out: the tag has no place for those.
  get #isBetweenLines(): boolean {
    const { destroyed, writableEnded, writableLength } = this.#socket
    const isOpen = !destroyed && !writableEnded
    return isOpen && this.#rest.length === 0 && writableLength === 0
  }

  /**
   * Stops reading: what the peer says from here on stays in the kernel. Until
   * resume() or close() nothing happens to this connection, so that its
   * descriptor can be sent meanwhile.
   */
  pause(): void {
    this.#socket.setTimeout(0)
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.setTimeout(this.#options.idle)
    this.#socket.resume()
  }

  /** Closes the descriptor. A parked connection has another, and goes on. */
  close(): void {
    this.#socket.destroy()
    this.#options.onClose(this)
  }

  log(what: string): void {
    this.#options.log(`connection ${this.session.id}: ${what}`)
  }

  #idle(): void {
    if (this.#socket.writableEnded) return this.close()
    if (this.#isLate()) return this.#giveUp()
    this.#socket.setTimeout(this.#options.idle) // again, should it stay
    this.#isIdle = true
    if (this.isIdle) this.#options.onIdle(this)
  }

  #isLate(): boolean {
    const { patience } = this.#options
    return !this.#isBetweenLines && performance.now() - this.#since > patience
  }

  #giveUp(): void {
    const seconds = this.#options.patience / 1000
    const expected = `the rest of a line, or answers read, in ${seconds} s`
    this.#socket.destroy(new Error(`Expected ${expected}`))
  }

  // Returns whether to go on reading: not while the peer reads no answers.
  #take(length: number): boolean {
    this.#isIdle = false
    if (this.#isBetweenLines) this.#since = performance.now()
    const arrived = this.#buffer.subarray(0, length)
    const lines = Buffer.concat([this.#rest, arrived])
    let start = 0
    let goOn = true
    for (;;) {
      const end = lines.indexOf('\n', start)
      if (end < 0) break
      if (!this.#socket.writableEnded) {
        goOn = this.#answer(lines.toString('utf8', start, end))
      }
      start = end + 1
      this.#since = performance.now()
    }
    this.#rest = lines.subarray(start)
    if (this.#rest.length > BUFFER)
      this.#socket.destroy(new Error('Expected a shorter line'))
    else if (this.#isLate()) this.#giveUp()
    return goOn
  }

  #answer(line: string): boolean {
    this.session.lines++
    const shown = printable(JSON.stringify(line.slice(0, 80)))
    this.log(`line ${this.session.lines}: ${shown}`)
    const text = `${this.session.lines}: ${line}\n`
    if (line !== 'quit') return this.#socket.write(text)
    this.#socket.end(text)
    return true
  }
}

// The Wayland wire format: what a window and its compositor write to each other
// on a Unix stream socket. Partner: window.ts. Open wayland.xml, xdg-shell.xml
// and unix(7) with it.
//
// Each message goes to an object, of which both sides keep a table. Object 1 is
// the display; requests make the others, under numbers that the client chooses.
//
//   0        4        6        8                                      size
//   +--------+--------+--------+----------------+-------------+- - - -+
//   | object | opcode |  size  | argument       | argument …          |
//   +--------+--------+--------+----------------+-------------+- - - -+
//
// Numbers are in the byte order of the machine, here always little-endian. A
// signature has a letter for each argument:
//
//   i u o n   int, uint, an object, a new object: 4 bytes
//   s a       string, array: length, bytes, padding to a multiple of 4. The
//             length of a string counts the NUL at its end
//   h         descriptor: no bytes at all
//
// New here: descriptors as arguments. They travel beside the bytes, and their
// order alone tells which message each belongs to: both sides keep them in a
// queue, from which each `h` takes the first. So the signature of every event
// has to be known: one `h` overlooked, and all that follow get a wrong one.

import { closeSync } from 'node:fs'
import { closeReceived, duplicate, type UnixConn } from '../../lib/index.ts'
import { codeOf } from '../../lib/script/cli.ts'
import { printable } from '../../lib/script/printable.ts'
import { type Events, events, type Requests, requests } from './protocol.ts'

type Argument = number | string | Buffer
type Letters = Record<'s', string> & Record<'a', Buffer>

/** What a signature stands for: 'us' is [number, string]. */
type Values<S extends string> = S extends `${infer Letter}${infer Others}`
  ? [Letter extends keyof Letters ? Letters[Letter] : number, ...Values<Others>]
  : []

type Handler<V extends Argument[]> = (object: number, ...values: V) => void

/** What to do at each event. The handler owns the `h` that it is given. */
export type Handlers = {
  [E in keyof Events]?: Handler<Values<Events[E][1]>>
}

/** The display, from which all other objects come. */
export const DISPLAY = 1

const HEADER = 8 // bytes

const NONE = Buffer.alloc(0)

// By interface and opcode, as in 'wl_keyboard.0'.
const eventAt = new Map(
  Object.entries(events).map(([name, [opcode, signature]]) => {
    return [name.replace(/\w+$/, `${opcode}`), { name, signature }]
  }),
)

/** The client's end of a connection, which it owns, to a compositor. */
export class Wire {
  readonly #conn: UnixConn
  /** The interface of each object, until the compositor has deleted it. */
  readonly #objects = new Map([[DISPLAY, 'wl_display']])
  readonly #deleted: number[] = []
  #bytes = Buffer.alloc(0)
  readonly #fds: number[] = []
  #end: unknown = new Error('The compositor hung up')

  constructor(conn: UnixConn) {
    this.#conn = conn
  }

  /** A number for a new object, to be sent as its `n`. It leaves no gaps. */
  create(type: string): number {
    const object = this.#deleted.pop() ?? this.#objects.size + 1
    this.#objects.set(object, type)
    return object
  }

  /** An `h` remains the caller's, to be closed at any time. */
  send<R extends keyof Requests>(
    object: number,
    request: R,
    ...values: Values<Requests[R][1]>
  ): void {
    const [opcode, signature] = requests[request]
    const isFd = (_: unknown, index: number) => signature[index] === 'h'
    const body = values.map((v, index) => (isFd(v, index) ? NONE : encode(v)))
    const size = HEADER + Buffer.concat(body).length
    const head = [encode(object), encode((size << 16) | opcode)]
    const message = Buffer.concat([...head, ...body])
    // Sent when there is room, so of what may be closed by then, a duplicate.
    const fds = values.filter(isFd).map((fd) => duplicate(Number(fd)))
    const sent = this.#conn.sendFds(message, fds)
    void sent
      .catch((error) => this.#fail(error))
      .finally(() => fds.map(closeSync))
  }

  /**
   * Calls the handlers until close() is called.
   *
   * @throws Error with the compositor's words (wl_display.error), or if it
   * hangs up; what a handler throws
   */
  async run(handlers: Handlers): Promise<void> {
    try {
      for await (const { data, fds } of this.#conn) {
        this.#bytes = Buffer.concat([this.#bytes, data])
        this.#fds.push(...fds)
        while (this.#handleNext(handlers));
      }
    } catch (error) {
      this.#fail(error)
    }
    for (const fd of this.#fds.splice(0)) closeReceived(fd)
    const end = this.#end
    this.close()
    if (end) throw end
  }

  close(): void {
    this.#end = undefined
    this.#conn.close()
  }

  // A peer that is gone may have left words that say why: they are read first.
  #fail(error: unknown): void {
    if (codeOf(error) === 'EPIPE' || codeOf(error) === 'ECONNRESET') return
    this.#end &&= error
    this.#conn.close()
  }

  // False if the next message is not there as a whole: a stream cuts anywhere.
  #handleNext(handlers: Handlers): boolean {
    if (this.#conn.fd < 0 || this.#bytes.length < HEADER) return false
    const size = Math.max(HEADER, this.#bytes.readUInt16LE(6))
    if (this.#bytes.length < size) return false
    const message = this.#bytes.subarray(0, size)
    this.#bytes = this.#bytes.subarray(size)

    const object = message.readUInt32LE(0)
    const place = `${this.#objects.get(object)}.${message.readUInt16LE(4)}`
    const event = eventAt.get(place)
    if (!event) throw new Error(`Expected a known event, got ${place}`)
    const values = decode(message, event.signature, this.#fds)
    const handler = { ...this.#own, ...handlers }[event.name as keyof Events]
    ;(handler as Handler<Argument[]> | undefined)?.(object, ...values)
    return true
  }

  readonly #own: Handlers = {
    'wl_display.error': (_, object, code, words) => {
      const name = `${this.#objects.get(object)}@${object}`
      throw new Error(`The compositor: ${name}: ${printable(words)} (${code})`)
    },
    'wl_display.delete_id': (_, object) => {
      if (this.#objects.delete(object)) this.#deleted.push(object)
    },
    'wl_keyboard.keymap': (_, _format, fd) => closeReceived(fd),
  }
}

function encode(value: Argument): Buffer {
  if (typeof value === 'number') {
    const word = Buffer.alloc(4)
    word.writeInt32LE(value | 0) // the bits of an int or a uint
    return word
  }
  const bytes = typeof value === 'string' ? Buffer.from(`${value}\0`) : value
  const length = encode(bytes.length)
  return Buffer.concat([length, bytes], 4 + padded(bytes.length))
}

// Takes the descriptors of the message from the queue `fds`.
function decode(bytes: Buffer, signature: string, fds: number[]): Argument[] {
  let at = HEADER
  let taken = 0
  const values = [...signature].map((letter) => {
    if (letter === 'h') return fds[taken++] ?? -1
    const word = letter === 'i' ? bytes.readInt32LE(at) : bytes.readUInt32LE(at)
    at += 4
    if (letter !== 's' && letter !== 'a') return word
    const value = bytes.subarray(at, at + word)
    at += padded(word)
    return letter === 'a' ? value : `${value.subarray(0, -1)}`
  })
  if (taken > fds.length) throw new Error('Expected a descriptor, got none')
  fds.splice(0, taken)
  return values
}

function padded(length: number): number {
  return Math.ceil(length / 4) * 4
}

// The Node stream for a received descriptor. It reads and writes through the
// very open file description that was sent, at its position and with its flags,
// and changes none of them:
//
//    socket           MSG_DONTWAIT says by itself not to wait
//    pipe             RWF_NOWAIT does the same
//    terminal, FIFO,  have neither: wait until it is ready, then one read or
//    device           write in libuv's pool
//    file             never waits for others: libuv's pool
//
// Another reader of the same terminal, FIFO or device may be quicker between
// the wait and the read: then a thread of the pool waits until more comes, and
// the event loop does not. Linux only; elsewhere: node-streams.ts.
// Read next: lib/stream/terminal.ts.

import { read, write } from 'node:fs'
import { constants } from 'node:os'
import { addAbortSignal, Duplex, type DuplexOptions } from 'node:stream'

import { systemError } from '../libc.ts'
import type { FdKind } from '../socket/describe.ts'
import { closeReceived } from '../socket/unix.ts'
import { whyChanged } from '../wait/errors.ts'
import { PER_TURN, READABLE, Watch, WRITABLE } from '../wait/watch.ts'
import { type Calls, nowaitCalls, socketCalls } from './calls.ts'
import { shares } from './pool.ts'
import { isInBackground, isMaster } from './terminal.ts'

type Callback = (error?: Error | null) => void

/** Of a Duplex; it has one side only if the other is said to be false. */
type Options = DuplexOptions & {
  readonly readable?: boolean
  readonly writable?: boolean
}

const { EAGAIN, EIO, EOPNOTSUPP, EPERM } = constants.errno

/** Bytes in one read. */
const READ_SIZE = 64 * 1024

/** Reads, or writes, in one turn of the event loop: each takes long. */
const CALLS_PER_TURN = PER_TURN / 4

/** PIPE_BUF: what is ready to be written to has room for so many bytes. */
const POOL_WRITE_SIZE = 4096

type Unwritten = {
  bytes: Uint8Array
  /** Of them, as it should be still. */
  length: number
  readonly done: Callback
}

/** Owns its descriptor. Made by open.ts, which has looked at it. */
export class DescriptorStream extends Duplex {
  readonly #fd: number
  readonly #kind: FdKind
  readonly #watch: Watch
  readonly #calls: Calls
  /** It waits, if it can be waited for, and then takes libuv's pool. */
  #usesPool: boolean
  #canWait = true
  #callsInTurn = 0
  /** Calls that are under way in the pool. */
  #inPool = 0
  /** What is left of the chunk that is being written, and who is told. */
  #unwritten: Unwritten | undefined

  constructor(fd: number, kind: FdKind, options: Options) {
    // With a signal that was aborted, super() would destroy what has no fields.
    const { signal, ...others } = options
    super({ ...others, decodeStrings: true })
    this.#fd = fd
    this.#kind = kind
    this.#calls = kind === 'socket' ? socketCalls : nowaitCalls
    this.#usesPool = kind === 'file' || kind === 'block device'
    if (this.#usesPool) this.#canWait = false
    this.#watch = new Watch(fd, 'level', (events) => {
      this.#callsInTurn = 0
      if (events & READABLE) this.#whenReadable()
      if (events & WRITABLE) this.#whenWritable()
    })
    if (signal) addAbortSignal(signal, this)
  }

  override _read(): void {
    if (this.#usesPool) this.#wait(READABLE)
    else this.#readNow()
  }

  override _write(bytes: Uint8Array, _encoding: string, done: Callback): void {
    this.#unwritten = { bytes, length: bytes.byteLength, done }
    if (this.#usesPool) this.#wait(WRITABLE)
    else this.#writeNow()
  }

  // Where a call is under way in the pool, the descriptor is closed after it.
  override _destroy(error: Error | null, done: Callback): void {
    this.#watch.end()
    if (this.#inPool === 0) closeReceived(this.#fd)
    done(error)
    // Only then, as else it would be an error of the stream.
    const unwritten = this.#unwritten
    if (unwritten) setImmediate(unwritten.done, error ?? destroyedError())
  }

  #whenReadable(): void {
    if (this.#usesPool) this.#readInPool()
    else this.#readNow()
  }

  #whenWritable(): void {
    if (this.#usesPool) this.#writeInPool()
    else this.#writeNow()
  }

  #wait(events: number): void {
    if (this.#canWait) {
      try {
        return this.#watch.wait(events)
      } catch (error) {
        // EPERM: it cannot be polled, so it is always ready, as a file is.
        const { errno } = error as NodeJS.ErrnoException
        if (errno !== -EPERM) return void this.destroy(error as Error)
        this.#canWait = false
      }
    }
    if (events & READABLE) this.#readInPool()
    if (events & WRITABLE) this.#writeInPool()
  }

  #readNow(): void {
    if (this.destroyed || this.#isStopped()) return
    if (this.#mustYield(() => this.#readNow())) return
    const result = this.#calls.read(this.#fd, READ_SIZE)
    if (result === -EAGAIN) return this.#wait(READABLE)
    if (result !== -EOPNOTSUPP) return this.#take(result)
    this.#usesPool = true
    this.#wait(READABLE)
  }

  // There may be more at once, for ever, and others wait.
  #mustYield(next: () => void): boolean {
    if (this.#callsInTurn++ < CALLS_PER_TURN) return false
    setImmediate(() => {
      this.#callsInTurn = 0
      next()
    })
    return true
  }

  #readInPool(): void {
    this.#runInPool((over) => {
      if (this.#isStopped()) return over()
      const room = Buffer.allocUnsafeSlow(READ_SIZE)
      read(this.#fd, room, 0, room.length, null, (error, length) => {
        over()
        if (this.destroyed) return
        if (error?.code === 'EAGAIN') return this.#wait(READABLE)
        if (error) return this.#take(error.errno ?? -EIO)
        // A typed line must not keep all of this memory.
        const isLarge = length >= room.length / 4
        const bytes = room.subarray(0, length)
        this.#take(isLarge ? bytes : Buffer.from(bytes))
      })
    })
  }

  // What a read has given: bytes, none at the end, or -errno.
  #take(result: Buffer | number): void {
    if (typeof result !== 'number') {
      this.push(result.length > 0 ? result : null)
    } else if (result === -EIO && this.#isMaster()) {
      this.push(null)
    } else {
      this.destroy(systemError('read', result))
    }
  }

  #isMaster(): boolean {
    return this.#kind === 'terminal' && isMaster(this.#fd)
  }

  // To read its own terminal from the background would stop this process.
  #isStopped(): boolean {
    if (this.#kind !== 'terminal' || !isInBackground(this.#fd)) return false
    const why =
      'it is the terminal of this process, which runs in the background there'
    this.destroy(systemError('read', -EIO, `cannot read this: ${why}`))
    return true
  }

  #writeNow(): void {
    let isLeft = this.#unwritten !== undefined && !this.destroyed
    while (isLeft && this.#unwritten) {
      if (this.#mustYield(() => this.#writeNow())) return
      if (this.#isLost()) return
      const { bytes } = this.#unwritten
      const result = this.#calls.write(this.#fd, bytes)
      if (result === -EAGAIN) return this.#wait(WRITABLE)
      if (result === -EOPNOTSUPP) {
        this.#usesPool = true
        return this.#wait(WRITABLE)
      }
      isLeft = this.#written(result)
    }
  }

  #writeInPool(): void {
    const bytes = this.#unwritten?.bytes
    if (bytes === undefined) return
    const size = this.#canWait ? POOL_WRITE_SIZE : bytes.length
    this.#runInPool((over) => {
      if (this.#isLost()) return over()
      const length = Math.min(size, bytes.length)
      write(this.#fd, bytes, 0, length, null, (error, written) => {
        over()
        if (this.destroyed) return
        const isLeft =
          error?.code === 'EAGAIN' ||
          this.#written(error ? (error.errno ?? -EIO) : written)
        if (isLeft) this.#wait(WRITABLE)
      })
    })
  }

  // What a write has taken, in bytes, or -errno. Whether some of the chunk is
  // left; if not, whoever wrote it is told, and may have begun the next one.
  #written(result: number): boolean {
    const unwritten = this.#unwritten
    if (unwritten === undefined || this.#isLost()) return false
    const left = unwritten.bytes.subarray(Math.max(0, result))
    if (result >= 0 && left.length > 0) {
      unwritten.bytes = left
      unwritten.length = left.length
      return true
    }
    this.#unwritten = undefined
    unwritten.done(result < 0 ? systemError('write', result) : null)
    return false
  }

  // Whether the chunk has gone while it waited. Then whoever wrote it was told.
  #isLost(): boolean {
    const unwritten = this.#unwritten
    const changed = unwritten && whyChanged(unwritten.bytes, unwritten.length)
    if (!changed) return false
    this.#unwritten = undefined
    unwritten.done(changed)
    return true
  }

  // Keeps the descriptor open until the call is over.
  #runInPool(call: (over: () => void) => void): void {
    const share = this.#canWait ? shares.ready : shares.file
    share.run((over) => {
      if (this.destroyed) return over()
      this.#inPool++
      call(() => {
        over()
        this.#inPool--
        if (this.destroyed && this.#inPool === 0) closeReceived(this.#fd)
      })
    })
  }
}

// What Node says to writes that wait behind the one under way.
function destroyedError(): Error {
  return Object.assign(
    new Error('Cannot call write after a stream was destroyed'),
    { code: 'ERR_STREAM_DESTROYED' },
  )
}

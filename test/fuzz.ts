#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../lib/script/run" "$0" "$@"

// All operations of the public interface, interleaved at random: connections
// from socketpair(), connect(), listen() and serve(), used as messages, streams
// or frames, by calls and by loops that are left and entered again, and closed
// at every point. What has to hold all the same:
//
//  - whatever was begun ends, with a result or with an error that is documented
//  - bytes arrive in order, and none of a send that was rejected
//  - where nobody closes too early, all bytes and all descriptors arrive
//  - each descriptor that arrives is one that was sent; none stays open
//  - no error reaches the process
//
// The same seed makes the same choices. fuzz.test.ts runs a few rounds of it.

import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import {
  connect,
  FdStream,
  framesOf,
  listen,
  parseControlMessages,
  parseUnixRights,
  type ReceivedMessage,
  sendFrame,
  socketpair,
  type UnixConn,
  waitReadable,
} from '../lib/index.ts'
import { commandLine, help, usageError } from '../lib/script/cli.ts'

const USAGE = `Usage: test/fuzz.ts [OPTIONS]
Interleaves all operations at random; exits 1 at the first that goes wrong.
  --rounds N  1000 unless given
  --seed N    the choices; another in every run unless given`

/** What a call may be rejected with, or a stream fail with. */
const DOCUMENTED = new Set([
  'ABORT_ERR',
  'EBADF',
  'ECONNREFUSED',
  'ECONNRESET',
  'ENOENT',
  'ENOTCONN',
  'EPIPE',
  'ERR_SOCKET_CLOSED',
  'ERR_STREAM_DESTROYED',
  'ERR_STREAM_PREMATURE_CLOSE',
  'ERR_STREAM_WRITE_AFTER_END',
  'ERR_TOO_MANY_FDS',
  'ETOOMANYREFS',
])

/** Bytes count from 0 to 249, again and again; these never arrive. */
const CYCLE = 250
const NEVER = Buffer.alloc(100, 255)

const NOTHING = Buffer.alloc(0)

/** A round that has not ended after so many ms hangs. */
const DEADLINE = 120_000

type Random = (below: number) => number

/** Mulberry32: small, and good enough to choose with. */
function randomFrom(seed: number): Random {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

type Message = { readonly data: Buffer; readonly fds: readonly number[] }

/** Bytes and descriptors of one direction of one connection. */
class Direction {
  #sent = 0
  #received = 0
  #sentFds = 0
  #receivedFds = 0
  #isWhole = true
  #last: Promise<void> = Promise.resolve()

  next(length: number): Buffer {
    const bytes = Buffer.alloc(length)
    for (let i = 0; i < length; i++) bytes[i] = this.#sent++ % CYCLE
    return bytes
  }

  /** Sends a message of `length` bytes with `fds`, and counts both. */
  async send(
    conn: UnixConn,
    length: number,
    fds: readonly number[],
  ): Promise<void> {
    const bytes = this.next(length)
    this.#sentFds += fds.length
    try {
      await conn.sendFds(bytes, fds)
    } catch (error) {
      if (codeOf(error) === 'ETOOMANYREFS') this.leftOut()
      throw error
    }
  }

  /** A send was rejected though its connection works on. */
  leftOut(): void {
    this.#isWhole = false
  }

  check(bytes: Uint8Array): void {
    for (const byte of bytes) {
      const expected = this.#received++ % CYCLE
      if (byte === expected || !this.#isWhole) continue
      const at = this.#received - 1
      throw new Error(`Expected byte ${at} as ${expected}, got ${byte}`)
    }
  }

  /** What a call received, in the order of the calls; refused data too. */
  async receive(call: Promise<Message | null>): Promise<Message | null> {
    const before = this.#last
    const checked = call.then(
      (message) => before.then(() => this.check(message?.data ?? NOTHING)),
      (error) => before.then(() => this.check(error.data ?? NOTHING)),
    )
    this.#last = checked.catch(() => {})
    call.then(
      (message) => this.#countFds(message?.fds.length ?? 0),
      (error) => this.#countFds(refusedFds(error)),
    )
    await checked
    return call
  }

  #countFds(count: number): void {
    this.#receivedFds += count
  }

  /** To be called at the end of file, if nobody has closed too early. */
  checkAll(): void {
    if (!this.#isWhole) return
    const sent = `${this.#sent} bytes, ${this.#sentFds} descriptors`
    const received = `${this.#received} bytes, ${this.#receivedFds} descriptors`
    if (sent !== received) throw new Error(`Expected ${sent}, got ${received}`)
  }
}

/** How many descriptors came with a message that was refused. */
function refusedFds(error: unknown): number {
  if (codeOf(error) !== 'ERR_TOO_MANY_FDS') return 0
  const [, count] = /got (\d+): closed/.exec(String(error)) ?? []
  return Number(count)
}

type End = { conn: UnixConn; out: Direction; in: Direction }

/** One round: what was begun in it, and its choices. */
class Round {
  readonly random: Random
  /** What was begun, and why it went wrong. */
  readonly #begun = new Set<Promise<void>>()
  readonly problems: unknown[] = []
  readonly #file: number
  readonly #inode: number

  constructor(random: Random, file: number) {
    this.random = random
    this.#file = file
    this.#inode = fstatSync(file).ino
  }

  /** Notes an operation, whose errors have to be documented ones. */
  begin(operation: PromiseLike<unknown>): void {
    const noted = Promise.resolve(operation)
      .then(
        () => {},
        (error) => this.judge(error),
      )
      .finally(() => this.#begun.delete(noted))
    this.#begun.add(noted)
  }

  judge(error: unknown): void {
    if (error instanceof Error) {
      if (DOCUMENTED.has(codeOf(error))) return
      // A frame was cut because its sender closed the connection.
      if (/^Expected a line, got its first/.test(error.message)) return
    }
    this.problems.push(error)
  }

  async end(): Promise<void> {
    const deadline = AbortSignal.timeout(DEADLINE)
    while (this.#begun.size > 0 && !deadline.aborted) await this.pause()
    if (this.#begun.size > 0) {
      this.problems.push(new Error(`${this.#begun.size} operations hang`))
    }
  }

  /** Some turns of the event loop, or none. */
  async pause(): Promise<void> {
    for (let turns = this.random(4); turns > 0; turns--) {
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  /** Descriptors to send: mostly few, and now and then as many as may be. */
  fds(): number[] {
    const most = this.random(40) === 0 ? 253 : this.random(6)
    return Array(most).fill(this.#file)
  }

  /** Received: they have to be those that were sent. */
  take(fds: readonly number[]): void {
    for (const fd of fds) {
      if (fstatSync(fd).ino !== this.#inode) {
        this.problems.push(new Error(`Expected the file, got another: ${fd}`))
      }
      closeSync(fd)
    }
  }

  size(): number {
    const isHuge = this.random(200) === 0
    const isLarge = this.random(8) === 0
    return 1 + this.random(isHuge ? 5_000_000 : isLarge ? 300_000 : 300)
  }

  /** A signal that is aborted at some time, or none. */
  signal(): AbortSignal | undefined {
    if (this.random(3) > 0) return undefined
    const controller = new AbortController()
    this.begin(this.pause().then(() => controller.abort()))
    return controller.signal
  }
}

type Use = (round: Round, end: End) => Promise<void>

/** The ways to receive on one connection, each of which may be given up. */
class Receiving {
  readonly #round: Round
  readonly #conn: UnixConn
  readonly #in: Direction
  /** Ends the waits for its descriptor, which has to be done before close(). */
  readonly #stop = new AbortController()

  constructor(round: Round, { conn, in: incoming }: End) {
    this.#round = round
    this.#conn = conn
    this.#in = incoming
  }

  /** One operation, of any kind; whether there may be more to receive. */
  any(): Promise<boolean> {
    const { random } = this.#round
    const ways = [
      () => this.#receive(this.#conn.recvFds(this.#limits())),
      () => this.#receive(this.#conn.recvmsg(this.#limits()).then(takeApart)),
      () => this.#loop(),
      () => this.#loop(),
      () => this.#wait(),
    ]
    return ways[random(ways.length)]?.() ?? Promise.resolve(true)
  }

  /** As any(), until the end of file. */
  async all(): Promise<void> {
    let isMore = true
    while (isMore) {
      isMore = await this.any().catch((error) => {
        this.#round.judge(error)
        return codeOf(error) !== 'ECONNRESET'
      })
      await this.#round.pause()
    }
  }

  stop(): void {
    this.#stop.abort()
  }

  #limits() {
    const { random } = this.#round
    const maxFds = random(3) === 0 ? { maxFds: random(8) } : {}
    const maxBytes = 1 + random(random(2) === 0 ? 50 : 70_000)
    return { ...maxFds, maxBytes, signal: this.#round.signal() }
  }

  async #receive(call: Promise<Message | null>): Promise<boolean> {
    // Taken even if it comes in the wrong order.
    call.then(
      (message) => this.#round.take(message?.fds ?? []),
      () => {},
    )
    return (await this.#in.receive(call)) !== null
  }

  // A loop that is left after some messages, in one of all ways: break and
  // return, an error, or that nobody goes on with it.
  async #loop(): Promise<boolean> {
    const { random } = this.#round
    const loop = this.#conn.messages(this.#limits())
    const next = async () => (await loop.next()).value ?? null
    for (let left = random(20); left > 0; left--) {
      if (!(await this.#receive(next()))) return false
      await this.#round.pause()
    }
    const ways = [
      () => loop.return(),
      () => loop.throw(new Error('left')).catch(() => {}),
      () => {},
    ]
    await ways[random(ways.length)]?.()
    return true
  }

  async #wait(): Promise<boolean> {
    if (this.#conn.fd < 0 || this.#stop.signal.aborted) return true
    const signal = this.#round.signal()
    const { signal: stop } = this.#stop
    const signals = signal ? [signal, stop] : [stop]
    await waitReadable(this.#conn.fd, { signal: AbortSignal.any(signals) })
    return true
  }
}

// Every call by itself, and loops, without awaiting one another.
const messages: Use = async (round, end) => {
  const { random } = round
  const { conn, out } = end
  const receiving = new Receiving(round, end)
  const operations = [
    () => conn.sendmsg(out.next(round.size())),
    () => out.send(conn, round.size(), round.fds()),
    () => conn.sendFds(NEVER, [...round.fds().slice(1), 999_999]),
    () => receiving.any(),
    () => receiving.any(),
    () => receiving.any(),
    async () => {
      conn.unref()
      await round.pause()
      conn.ref()
    },
    async () => {
      if (random(10) === 0) await conn.end()
    },
  ]
  for (let step = random(30); step > 0; step--) {
    round.begin(operations[random(operations.length)]?.() ?? round.pause())
    await round.pause()
  }
  receiving.stop()
  if (random(2) === 0) conn.close()
  else conn[Symbol.dispose]()
}

// All is sent before the connection ends, and none of it may fail.
const sendsAll: Use = async (round, { conn, out }) => {
  const { random } = round
  const sends: Promise<void>[] = []
  for (let step = random(60); step > 0; step--) {
    const fds = random(3) === 0 ? [] : round.fds()
    const sent = out.send(conn, round.size(), fds)
    sent.catch((error) => {
      if (codeOf(error) !== 'ETOOMANYREFS') round.problems.push(error)
    })
    sends.push(sent)
    if (random(4) === 0) round.begin(conn.sendFds(NEVER, [999_999]))
    await round.pause()
  }
  if (random(2) === 0) await conn.end()
  else await Promise.allSettled(sends)
  conn.close()
}

// Several receive at a time, until the end of file.
const receivesAll: Use = async (round, end) => {
  const receiving = new Receiving(round, end)
  const receivers = Array.from({ length: 1 + round.random(3) }, () =>
    receiving.all(),
  )
  await Promise.all(receivers)
  receiving.stop()
  end.conn.close()
  end.in.checkAll()
}

function takeApart(message: ReceivedMessage | null): Message | null {
  if (message === null) return null
  const items = parseControlMessages(message.control)
  return {
    data: message.data,
    fds: items.flatMap((item) => parseUnixRights(item)),
  }
}

const streams: Use = async (round, { conn, out, in: incoming }) => {
  const { random } = round
  const stream = new FdStream(conn, {
    allowHalfOpen: random(2) === 0,
    maxFds: random(2) === 0 ? 253 : random(20),
  })
  round.begin(new Promise((resolve) => stream.once('close', resolve)))
  stream.on('error', (error) => round.judge(error))
  const take = (fds: number[]): void => round.take(fds)
  const drop = (fds: number[]): void => stream.closeFds(fds)
  stream.once('data', (bytes) => {
    incoming.check(bytes)
    stream.on('data', (more) => incoming.check(more))
  })
  const operations = [
    () => stream.write(out.next(round.size())),
    () => stream.writeWithFds(out.next(round.size()), round.fds()),
    () => stream.cork(),
    () => stream.uncork(),
    () => stream.listenerCount('fds') || stream.on('fds', take),
    () => stream.listenerCount('fds') || stream.on('fds', drop),
    () => stream.removeAllListeners('fds'),
    () => stream.pause(),
    () => stream.resume(),
    () => random(4) === 0 && stream.end(),
    () => stream.unref().ref(),
  ]
  for (let step = random(30); step > 0; step--) {
    operations[random(operations.length)]?.()
    await round.pause()
  }
  if (random(2) === 0) stream.destroy()
  else await stream[Symbol.asyncDispose]()
}

const frames: Use = async (round, { conn }) => {
  const { random } = round
  const loop = async (): Promise<void> => {
    let left = random(10)
    const limits = { maxFds: 253, signal: round.signal() }
    for await (const { value, fds } of framesOf(conn, limits)) {
      round.take(fds)
      if (value.fds !== fds.length) throw new Error('Expected as many as said')
      await round.pause()
      if (left-- === 0) break
    }
    if (random(2) === 0) conn.close()
  }
  round.begin(loop())
  for (let step = random(20); step > 0; step--) {
    round.begin(sendFrame(conn, { step }, round.fds()))
    await round.pause()
  }
  conn.close()
}

/** What the two ends of a connection do. */
function chooseUses(random: Random, isPair: boolean): [Use, Use] {
  if (random(3) === 0) return [frames, frames]
  // A listener that is closed closes its connections.
  const direction = isPair ? random(4) : 3
  if (direction === 0) return [sendsAll, receivesAll]
  if (direction === 1) return [receivesAll, sendsAll]
  const bytes = (): Use => (random(2) === 0 ? messages : streams)
  return [bytes(), bytes()]
}

type Link = { readonly uses: [Use, Use]; readonly ways: [Direction, Direction] }

function newLink(random: Random, isPair: boolean): Link {
  return {
    uses: chooseUses(random, isPair),
    ways: [new Direction(), new Direction()],
  }
}

function useEnd(round: Round, conn: UnixConn, link: Link, end: 0 | 1) {
  const [one, other] = link.ways
  const ways = end === 0 ? { out: one, in: other } : { out: other, in: one }
  return link.uses[end](round, { conn, ...ways })
}

function usePair(round: Round): void {
  const link = newLink(round.random, true)
  const [one, other] = socketpair()
  round.begin(useEnd(round, one, link, 0))
  round.begin(useEnd(round, other, link, 1))
}

async function useListener(round: Round, path: string): Promise<void> {
  const { random } = round
  const listener = await listen(path)
  // Connections are accepted in the order in which they were made.
  const links: Link[] = []
  const handle = async (conn: UnixConn): Promise<void> => {
    const link = links.shift()
    if (link) await useEnd(round, conn, link, 1)
    conn.close()
  }
  const maxConnections = 1 + random(4)
  const onError = (error: unknown): void => round.judge(error)
  const ways = [
    () => listener.serve(handle, { maxConnections, onError }),
    async () => {
      for await (const conn of listener) round.begin(handle(conn))
    },
    async () => {
      const { signal } = new AbortController()
      for (;;) {
        const conn = await listener.accept({ signal: round.signal() ?? signal })
        if (conn === null) return
        round.begin(handle(conn))
      }
    },
  ]
  round.begin(ways[random(ways.length)]?.() ?? round.pause())
  for (let dials = random(6); dials > 0; dials--) {
    const signal = round.signal()
    const link = newLink(random, false)
    links.push(link)
    const dial = connect(path, signal ? { signal } : {})
    dial.catch(() => links.splice(links.indexOf(link), 1))
    round.begin(dial.then((conn) => useEnd(round, conn, link, 0)))
    await round.pause()
  }
  if (random(2) === 0) listener.unref().ref()
  await round.pause()
  listener.close()
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

function countFds(): number {
  return readdirSync('/proc/self/fd').length
}

// How many are open once that has been the same for a while: Node has some open
// for a moment at its start, and so has what compiles this file.
async function countAtStart(): Promise<number> {
  let count = countFds()
  for (let same = 0; same < 50; same++) {
    await new Promise((resolve) => setTimeout(resolve, 5))
    if (countFds() !== count) same = 0
    count = countFds()
  }
  return count
}

// What was refused is closed in libuv's pool, which may take a while.
async function settledFds(expected: number): Promise<number> {
  const deadline = AbortSignal.timeout(DEADLINE)
  while (countFds() !== expected && !deadline.aborted) {
    await new Promise((resolve) => setImmediate(resolve))
  }
  return countFds()
}

// The first send that waits for room opens an epoll instance, which stays.
async function fillSocket(round: Round): Promise<void> {
  const [one, other] = socketpair()
  for (let i = 0; i < 1000; i++) round.begin(one.sendFds('x', [0]))
  await new Promise((resolve) => setImmediate(resolve))
  one.close()
  other.close()
}

/**
 * Plays `rounds` rounds.
 *
 * @throws Error with the seed and what went wrong in the first that did
 */
export async function fuzz(
  seed: number,
  rounds: number,
  onRound: (round: number) => void = () => {},
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'fd-'))
  const file = openSync(process.execPath, 'r')
  let problems: unknown[] = []
  const note = (error: unknown): unknown => problems.push(error)
  process.on('uncaughtException', note)
  process.on('unhandledRejection', note)
  try {
    const warmUp = new Round(randomFrom(0), file)
    await fillSocket(warmUp)
    await warmUp.end()
    const before = await countAtStart()
    for (let i = 0; i < rounds; i++) {
      const round = new Round(randomFrom(seed + i), file)
      problems = round.problems
      for (let pairs = round.random(4); pairs > 0; pairs--) usePair(round)
      if (round.random(2) === 0) {
        round.begin(useListener(round, join(folder, `${i}`)))
      }
      await round.end()
      const open = await settledFds(before)
      if (open !== before) {
        problems.push(new Error(`Expected ${before} open fds, got ${open}`))
      }
      if (problems.length > 0) {
        const again = `test/fuzz.ts --seed ${seed + i} --rounds 1`
        throw new Error(`${again}: ${problems[0]}`, { cause: problems[0] })
      }
      onRound(i + 1)
    }
  } finally {
    process.off('uncaughtException', note)
    process.off('unhandledRejection', note)
    closeSync(file)
    rmSync(folder, { recursive: true })
  }
}

async function main(): Promise<void> {
  const { values } = commandLine(
    USAGE,
    {
      options: {
        ...help,
        rounds: { type: 'string', default: '1000' },
        seed: { type: 'string', default: `${Date.now() % 2 ** 31}` },
      },
    },
    [0, 0],
  )
  const [rounds, seed] = [Number(values.rounds), Number(values.seed)]
  if (!(Number.isInteger(rounds) && rounds > 0 && Number.isInteger(seed))) {
    usageError(USAGE, `Expected integers, got ${values.rounds}, ${values.seed}`)
  }
  console.log(`seed ${seed}`)
  await fuzz(seed, rounds, (round) => {
    if (round % 1000 === 0 || round === rounds) console.log(`round ${round}`)
  })
  console.log('Every operation ended, every descriptor is closed')
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main()

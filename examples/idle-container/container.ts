#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// Holds TCP connections on which nothing happens, so that the server they
// belong to need not: it may be big, busy, or about to restart its workers.
// Watches them without reading a byte, and passes one back, with the tag that
// it came with, as soon as there is something to read or the peer hangs up.
//
// Partner: front.ts, the server; any number of them. You see a line for each
// connection that comes and goes. Open epoll(7), unix(7) with it.
//
// New here: thousands of descriptors watched at once, for the price of one
// descriptor each and next to no memory in this process.
//
// Security: the socket is this user's alone (mode 0600). What one front parked
// goes back to that front only, or is closed when it hangs up. --most bounds
// what is held, and leaves descriptors free for the fronts themselves.

import { setMaxListeners } from 'node:events'
import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

import {
  closeReceived,
  describeFd,
  framesOf,
  listen,
  sendFrame,
  type UnixConn,
  waitReadable,
} from '../../lib/index.ts'
import {
  codeOf,
  commandLine,
  defaultSocketPath,
  descriptorLimit,
  fail,
  help,
  messageOf,
  numberOption,
  onStop,
} from '../../lib/script/cli.ts'
import { printable } from '../../lib/script/printable.ts'

const USAGE = `Usage: ./examples/idle-container/container.ts [OPTIONS] [SOCKET]
Holds idle connections for the fronts that connect to SOCKET. Ctrl-C ends it,
and closes what it holds.
  -m, --most NUMBER  of connections to hold at once (15000), or as many as the
                     limit of open descriptors (ulimit -n) has room for
  -q, --quiet        no line for each connection`

/** Fronts at once. More wait in the backlog. */
const FRONTS = 16

/** Descriptors left to Node, to the fronts, and to those that just arrive. */
const RESERVE = 100

/** In ms. */
const RETRY_DELAY = 20

const { values, positionals } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      most: { type: 'string', short: 'm', default: '15000' },
      quiet: { type: 'boolean', short: 'q', default: false },
    },
    allowPositionals: true,
  },
  [0, 1],
)
const wanted = numberOption(USAGE, '--most', values.most, [1, 99_999_999])
// Without a free descriptor a connection that is parked would be lost.
const most = Math.min(wanted, descriptorLimit() - RESERVE)
if (most < 1)
  fail(`Expected a limit of open descriptors above ${RESERVE} (ulimit -n)`)
const path = positionals[0] ?? defaultSocketPath('fdpass-idle')

const listener = await listen(path).catch(fail)

type Front = {
  readonly conn: UnixConn
  readonly name: string
  /** Ends the waiting for all that it parked, before any of that is closed. */
  readonly over: AbortController
}

/** What is held: by descriptor, whose it is and the tag that it came with. */
const parked = new Map<number, Front & { readonly tag: string }>()
/** Those on their way back to their front. */
let returning = 0

onStop(() => listener.close())
console.log(
  `Container ready on ${path}, pid ${process.pid}, holds up to ${most}`,
)

let count = 0
const handler = (conn: UnixConn): Promise<void> => {
  count++
  const over = new AbortController()
  // Each wait listens to it: Node 20 takes more than ten for a leak, and warns.
  setMaxListeners(0, over.signal)
  return serve({ conn, name: `front ${count}`, over })
}
await listener.serve(handler, { maxConnections: FRONTS }).catch(fail)
console.log('Container stopped')

// All that a front parked belongs to its connection here, and ends with that:
// another front, or the same one after a restart, begins with nothing.
async function serve(front: Front): Promise<void> {
  const { conn, name, over } = front
  let why = 'hung up'
  try {
    console.log(`${name}: connected, pid ${conn.peerCredentials().pid}`)
    for await (const { value, fds } of framesOf(conn, { maxFds: 1 })) {
      await park(front, value.tag, fds[0])
    }
    over.abort()
  } catch (error) {
    why = printable(messageOf(error))
    over.abort()
    // One bad message, or one descriptor that was lost on its way, is not the
    // fault of those that came before.
    for (const fd of heldFor(conn)) await passBack(fd)
  }
  const left = heldFor(conn)
  for (const fd of left) {
    parked.delete(fd)
    closeReceived(fd)
  }
  conn.close()
  console.log(`${name}: ${why}, closed its ${left.length}`)
}

// Takes the descriptor over, whatever happens.
async function park(
  front: Front,
  tag: unknown,
  fd: number | undefined,
): Promise<void> {
  if (fd === undefined) throw new Error('Expected a descriptor, got none')
  try {
    if (typeof tag !== 'string')
      throw new Error(`Expected a tag, got ${JSON.stringify(tag)}`)
    const { kind } = describeFd(fd)
    if (kind === 'file' || kind === 'directory')
      throw new Error(`Expected a connection, got a ${kind}`)
  } catch (error) {
    closeReceived(fd)
    throw error
  }
  if (parked.size + returning >= most) return giveBack({ ...front, tag }, fd)
  parked.set(fd, { ...front, tag })
  log('parked', fd, { ...front, tag })
  waitReadable(fd, { signal: front.over.signal }).then(
    () => passBack(fd),
    // What cannot be waited for can be read at once. After an abort serve()
    // decides what becomes of it.
    (error) => (codeOf(error) === 'ABORT_ERR' ? undefined : passBack(fd)),
  )
}

// What came in meanwhile is still in the socket, for the front to read.
async function passBack(fd: number): Promise<void> {
  const back = parked.get(fd)
  if (back === undefined) return
  parked.delete(fd)
  returning++
  try {
    await giveBack(back, fd)
    log('woke', fd, back)
  } catch {
    back.conn.close()
  } finally {
    returning--
  }
}

// The front has it again: its options stay as they are. Unless it is gone.
async function giveBack(
  back: Front & { readonly tag: string },
  fd: number,
): Promise<void> {
  try {
    await give(back, fd)
    closeSync(fd)
  } catch (error) {
    closeReceived(fd)
    throw error
  }
}

async function give(
  { conn, tag }: Front & { readonly tag: string },
  fd: number,
): Promise<void> {
  for (;;) {
    try {
      return await sendFrame(conn, { woke: tag }, [fd])
    } catch (error) {
      // Too many descriptors of this user's are in flight at the moment.
      if (codeOf(error) !== 'ETOOMANYREFS') throw error
      await sleep(RETRY_DELAY)
    }
  }
}

function heldFor(conn: UnixConn): number[] {
  return [...parked].filter(([, at]) => at.conn === conn).map(([fd]) => fd)
}

function log(
  what: string,
  fd: number,
  { name, tag }: Front & { readonly tag: string },
): void {
  if (values.quiet) return
  const shown = printable(JSON.stringify(tag))
  console.log(`${name}: ${what} fd ${fd}, tag ${shown}, ${parked.size} held`)
}

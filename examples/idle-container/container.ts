#!/usr/bin/env -S sh -c 'exec "${0%/*}/../../lib/script/run" "$0" "$@"'
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

import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  framesOf,
  listen,
  sendFrame,
  type UnixConn,
  watchSet,
} from '../../lib/index.ts'
import {
  codeOf,
  commandLine,
  defaultSocketPath,
  fail,
  help,
  messageOf,
  usageError,
} from '../../lib/script/cli.ts'

const USAGE = `Usage: ./examples/idle-container/container.ts [OPTIONS] [SOCKET]
Holds idle connections for the fronts that connect to SOCKET. Ctrl-C ends it,
and closes what it holds.
  -m, --most NUMBER  of connections to hold at once (15000); the limit of open
                     descriptors (ulimit -n) has to leave room for them
  -q, --quiet        no line for each connection`

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
const most = Number(values.most)
if (!/^\d{1,8}$/.test(values.most))
  usageError(USAGE, `Expected --most as a number, got "${values.most}"`)
const path = positionals[0] ?? defaultSocketPath('fdpass-idle')

const listener = await listen(path).catch(fail)
console.log(`Container ready on ${path}, pid ${process.pid}`)

const fronts = new Set<UnixConn>()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    listener.close()
    for (const conn of fronts) conn.close()
  })
}

let held = 0
let count = 0
for await (const conn of listener) {
  count++
  void serve(conn, `front ${count}`)
}
console.log('Container stopped')

// All that a front parked belongs to its connection here, and ends with that:
// another front, or the same one after a restart, begins with nothing.
async function serve(conn: UnixConn, front: string): Promise<void> {
  fronts.add(conn)
  const tags = new Map<number, string>()
  // Owns each descriptor, until it is given back or the front is gone.
  const set = watchSet((fd) => void passBack(fd))
  let why = 'hung up'
  try {
    console.log(`${front}: connected, pid ${conn.peerCredentials().pid}`)
    for await (const { value, fds } of framesOf(conn, { maxFds: 1 })) {
      await park(value.tag, fds[0])
    }
  } catch (error) {
    why = messageOf(error)
  }
  const { size } = set
  held -= size
  set.close()
  conn.close()
  fronts.delete(conn)
  console.log(`${front}: ${why}, closed its ${size}`)

  async function park(tag: unknown, fd: number | undefined): Promise<void> {
    if (fd === undefined) throw new Error('Expected a descriptor, got none')
    let isHeld = false
    try {
      if (typeof tag !== 'string')
        throw new Error(`Expected a tag, got ${JSON.stringify(tag)}`)
      if (held >= most) return await give(fd, tag)
      set.add(fd)
      isHeld = true
    } finally {
      if (!isHeld) closeSync(fd)
    }
    held++
    tags.set(fd, tag)
    log(`parked fd ${fd}`, tag)
  }

  // What came in meanwhile is still in the socket, for the front to read.
  async function passBack(fd: number): Promise<void> {
    const tag = tags.get(fd) ?? ''
    await give(fd, tag).catch(() => conn.close())
    // Without the front all of this is over: see serve().
    if (conn.fd < 0) return
    held--
    tags.delete(fd)
    set.delete(fd)
    log(`woke fd ${fd}`, tag)
  }

  async function give(fd: number, tag: string): Promise<void> {
    while (conn.fd >= 0) {
      try {
        return await sendFrame(conn, { woke: tag }, [fd])
      } catch (error) {
        // Too many descriptors of this user's are on their way at the moment.
        if (codeOf(error) !== 'ETOOMANYREFS') throw error
        await sleep(RETRY_DELAY)
      }
    }
  }

  function log(what: string, tag: string): void {
    if (values.quiet) return
    console.log(`${front}: ${what}, tag ${JSON.stringify(tag)}, ${held} held`)
  }
}

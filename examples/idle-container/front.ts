#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A TCP server that keeps memory for live connections only. It answers lines,
// counts them, and has a buffer and a stream for each connection. One on which
// nothing arrives for a while is parked: its descriptor goes to the container,
// with a tag that holds what is known about it, and everything else is freed.
// When its peer sends again it comes back, and the peer has noticed nothing.
//
// Partner: container.ts, to be started first. live.ts is one connection,
// parking.ts the protocol with the container. Try it with
// (printf 'hello\n'; sleep 5; printf 'again\n') | nc 127.0.0.1 7007
//
// New here: a live connection changes its process, and changes back.

import { EventEmitter, once } from 'node:events'

import { closeReceived, connectionsOn, serviceSocket } from '../../lib/index.ts'
import {
  commandLine,
  defaultSocketPath,
  descriptorLimit,
  fail,
  help,
  messageOf,
  numberOption,
  onStop,
  orFail,
  PORTS,
  print,
  secondsOption,
} from '../../lib/script/cli.ts'
import { Live, type Session } from './live.ts'
import { Parking } from './parking.ts'

const USAGE = `Usage: ./examples/idle-container/front.ts [OPTIONS] [SOCKET]
Answers lines on a TCP port, and parks idle connections with the container on
SOCKET. The line "quit" hangs up. Ctrl-C ends it.
  -p, --port PORT         to listen on, at 127.0.0.1 (7007)
  -i, --idle SECONDS      without a byte, then a connection is parked (2)
      --patience SECONDS  to end a line that was begun, and to read the answers
                          (30): then the connection is closed
  -q, --quiet             no line for each connection`

/** Descriptors that are left to Node, and to those that just arrive. */
const RESERVE = 100

const { values, positionals } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      port: { type: 'string', short: 'p', default: '7007' },
      idle: { type: 'string', short: 'i', default: '2' },
      patience: { type: 'string', default: '30' },
      quiet: { type: 'boolean', short: 'q', default: false },
    },
    allowPositionals: true,
  },
  [0, 1],
)
const port = numberOption(USAGE, '--port', values.port, PORTS)
const idle = secondsOption(USAGE, '--idle', values.idle)
const patience = secondsOption(USAGE, '--patience', values.patience)
const path = positionals[0] ?? defaultSocketPath('fdpass-idle')
const log = values.quiet ? (): void => {} : print

// A connection that comes back while no descriptor is free would be lost. So
// beyond this number none is accepted, and none is fetched from the container.
const most = descriptorLimit() - RESERVE
if (most < 1)
  fail(`Expected a limit of open descriptors above ${RESERVE} (ulimit -n)`)

const stop = new AbortController()
onStop(() => stop.abort())

const live = new Set<Live>()
const changes = new EventEmitter()
const parking = new Parking(path, {
  onWake: wake,
  whenRoom,
  countLive: () => live.size,
})

const host = '127.0.0.1'
const listening = orFail(() => serviceSocket('tcp', { host, port }))
print(`Front ready on ${host}:${port}, pid ${process.pid}`)
void parking.run(stop.signal) // not awaited: clients are served meanwhile

let id = 0
try {
  for await (const fd of connectionsOn(listening, { signal: stop.signal })) {
    id++
    log(`connection ${id}: accepted`)
    serve(fd, { id, lines: 0 })
    await whenRoom()
  }
} catch (error) {
  fail(error)
}
for (const connection of live) connection.close()
print('Front stopped')

function wake(fd: number, session: Session): void {
  log(`connection ${session.id}: woke as fd ${fd}`)
  serve(fd, session)
}

// Owns the descriptor, which may be one that no stream can be made of.
function serve(fd: number, session: Session): void {
  const onIdle = (connection: Live): void => parking.add(connection)
  const onClose = (connection: Live): void => {
    live.delete(connection)
    changes.emit('close')
  }
  try {
    live.add(new Live(fd, session, { idle, patience, log, onIdle, onClose }))
  } catch (error) {
    closeReceived(fd)
    log(`connection ${session.id}: ${messageOf(error)}`)
  }
}

async function whenRoom(): Promise<void> {
  const { signal } = stop
  while (live.size >= most && !signal.aborted) {
    await once(changes, 'close', { signal }).catch(() => {})
  }
}

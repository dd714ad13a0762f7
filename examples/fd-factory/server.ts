#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A TCP server that echoes what it receives, and reports where each connection
// came from. Its report is the proof that an unprivileged client came from a
// low port: see client.ts, its partner, which names what this is modelled on.
// Open tcp(7), ip(7) with it.
//
// New here: nothing about descriptors. This stands for servers that take a
// client's low port for a proof that root runs the client.

import { createServer, type Socket } from 'node:net'

import {
  commandLine,
  fail,
  help,
  numberOption,
  onStop,
  PORTS,
} from '../../lib/script/cli.ts'
import { printable } from '../../lib/script/printable.ts'

const USAGE = `Usage: ./examples/fd-factory/server.ts -p PORT [-a ADDR]
Echoes what it receives on ADDR and PORT, and reports it. Ctrl-C ends it.
  -p, --port PORT     to listen on; 0 for any that is free
  -a, --address ADDR  to listen on (127.0.0.1)`

const { values } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      port: { type: 'string', short: 'p', default: '' },
      address: { type: 'string', short: 'a', default: '127.0.0.1' },
    },
  },
  [0, 0],
)
const port = numberOption(USAGE, '-p PORT', values.port, PORTS)

/** Bytes that are kept for the report. All are echoed. */
const MOST_REPORTED = 1000

// Half-open: a client that has said everything still wants the echo of it.
const server = createServer({ allowHalfOpen: true }, serve)
server.on('error', fail)
server.listen(port, values.address, () => {
  const address = server.address()
  if (address === null || typeof address === 'string') return
  console.log(`Server ready on ${address.address} port ${address.port}`)
})

const clients = new Set<Socket>()
// close() waits for the connections, and they for their clients.
onStop(() => {
  server.close(() => console.log('Server stopped'))
  for (const socket of clients) socket.destroy()
})

function serve(socket: Socket): void {
  clients.add(socket)
  // Undefined once the connection is gone, so asked for now.
  const { remoteAddress, remotePort, localAddress, localPort } = socket
  const from = `${remoteAddress} port ${remotePort}`
  const to = `${localAddress} port ${localPort}`

  let received = Buffer.alloc(0)
  socket.on('data', (chunk) => {
    const wanted = chunk.subarray(0, MOST_REPORTED - received.length)
    received = Buffer.concat([received, wanted])
  })
  socket.pipe(socket)

  socket.on('error', ({ message }) => console.log(`${from}: ${message}`))
  socket.on('close', () => {
    clients.delete(socket)
    const data = printable(JSON.stringify(received.toString()))
    console.log(`Connection from ${from} to ${to}, received ${data}.`)
  })
}

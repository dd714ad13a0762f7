#!/usr/bin/env -S sh -c 'exec "${0%/*}/../../lib/script/run" "$0" "$@"'
// The server prints files that it never opened: each client sends descriptors
// of its own, two or any other number, and leaves.
//
// Partner: client.ts, or a C program that sends two descriptors beside 256
// bytes of filler, which mean nothing. Open unix(7), cmsg(3), read(2) with it.
// After: "Passing open file descriptors over unix domain sockets".
// New here: several descriptors, which come in the order they were sent in.
// Simplification: files of two clients at once are printed mixed. To print them
// one by one is to wait for a pipe that somebody passed and never writes to.

import { closeSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { listen, readableFrom, type UnixConn } from '../../lib/index.ts'
import {
  commandLine,
  defaultSocketPath,
  fail,
  help,
  messageOf,
} from '../../lib/script/cli.ts'

const USAGE = `Usage: ./examples/two-files/server.ts [SOCKET]
Waits for clients on SOCKET and prints the files that they pass to it. Ctrl-C
ends it.`

const { positionals } = commandLine(
  USAGE,
  { options: help, allowPositionals: true },
  [0, 1],
)
const path = positionals[0] ?? defaultSocketPath('fdpass-files')

const listener = await listen(path).catch(fail)
console.log(`Server ready on ${path}, pid ${process.pid}`)

// Closing the listener ends the loop below and removes the socket file.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => listener.close())
}

// Any number of files may be on their way to it at once.
process.stdout.setMaxListeners(0)

const clients = new Set<UnixConn>()
const inputs = new Set<Readable>()
let count = 0
for await (const conn of listener) {
  count++
  clients.add(conn)
  // Not awaited: nobody has to wait for a client that is slow or silent.
  void serve(conn, `client ${count}`)
}

for (const conn of clients) conn.close()
for (const input of inputs) input.destroy()
console.log('Server stopped')

async function serve(conn: UnixConn, client: string): Promise<void> {
  const fds: number[] = []
  try {
    // No limit but the kernel's, which is 253 in a message on Linux. They come
    // whole with its first byte, however the bytes behind it are cut.
    const message = await conn.recvFds()
    if (message === null) return console.log(`${client}: left without a word`)
    fds.push(...message.fds)
    if (fds.length === 0) return console.log(`${client}: No descriptor came`)

    while (fds.length > 0) await print(fds.shift() ?? -1)
  } catch (error) {
    console.log(`${client}: ${messageOf(error)}`)
  } finally {
    for (const fd of fds) closeSync(fd)
    conn.close()
    clients.delete(conn)
  }
}

// Takes the descriptor over, whatever happens: the stream closes it.
async function print(fd: number): Promise<void> {
  console.log(`Reading from passed fd ${fd}`)
  const input = readableFrom(fd)
  inputs.add(input)
  try {
    await pipeline(input, process.stdout, { end: false })
  } finally {
    inputs.delete(input)
  }
}

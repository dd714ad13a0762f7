#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// The unprivileged half: gives up root, asks the factory at its fd 3 for a
// socket, connects with it, sends, and prints what comes back. That the socket
// is bound to a port which this user may not bind makes no difference to it.
//
// Partner: client.ts, the factory, which starts this, and names what it is
// modelled on. Open setuid(2), credentials(7), connect(2) with it.
// New here: a net.Socket made from a descriptor that is bound and not yet
// connected.

import { Socket } from 'node:net'
import { UnixConn } from '../../lib/index.ts'
import { commandLine, fail, help, messageOf } from '../../lib/script/cli.ts'
import { printable } from '../../lib/script/printable.ts'

const USAGE = `Usage: ./examples/fd-factory/child.ts
         UID LOCALPORT ADDR PORT DATA
Not to be started by hand, but by client.ts, with a socket as its fd 3.`

const { positionals } = commandLine(
  USAGE,
  { options: help, allowPositionals: true },
  [5, 5],
)
const [uid, localPort, address = '', port, data = ''] = positionals

const conn = adopt(3)
become(Number(uid))
const who = `Client (uid=${process.getuid?.()})`

await conn.sendmsg(`bind ${localPort}\n`).catch(fail)
const answer = await conn.recvFds({ maxFds: 1 }).catch(fail)
if (answer === null) fail(`${who}: expected a descriptor, got a hang-up`)
const [fd] = answer.fds
if (fd === undefined) fail(`${who}: ${answer.data}`.trim())
conn.close()
console.log(`${who}: received fd=${fd}`)

// The socket owns the descriptor from here on. manualStart: there is nothing to
// read before it is connected.
const options = { fd, manualStart: true }
const socket = new Socket(options)
try {
  socket.connect(Number(port), address)
  socket.end(data, () => console.log(`Sent "${printable(data)}".`))

  // As much as was sent, and little more: the server may be any program.
  const wanted = Buffer.byteLength(data)
  let received = Buffer.alloc(0)
  for await (const chunk of socket) {
    received = Buffer.concat([received, chunk])
    if (received.length > wanted) break
  }
  console.log(`Received "${printable(received)}".`)
} catch (error) {
  fail(error)
}

function adopt(fd: number): UnixConn {
  try {
    return UnixConn.fromFd(fd)
  } catch {
    return fail(`Expected a socket as fd ${fd}: start client.ts, not this`)
  }
}

// In this order: a process that is not root any more may not change groups.
function become(uid: number): void {
  if (uid === process.getuid?.()) return
  try {
    process.setgroups?.([])
    process.setgid?.(uid)
    process.setuid?.(uid)
  } catch (error) {
    fail(
      `${messageOf(error)}: needs root to become uid ${uid}; or leave out ` +
        '-u, and have CAP_NET_BIND_SERVICE or a higher LOCALPORT',
    )
  }
}

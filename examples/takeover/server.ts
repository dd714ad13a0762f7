#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// An HTTP server that is replaced while it serves. Start it; start it again in
// another terminal, with the same arguments: the second one takes the sockets
// over, the first finishes what it has open and leaves. No client notices.
//
//    ./examples/takeover/server.ts -l 8080 -l /tmp/web.sock
//    while curl -s localhost:8080; do :; done
//
// Partner: itself. handover.ts is the protocol between the two, web.ts how to
// serve, and to stop without cutting off a request. Open unix(7), listen(2).
//
// Security: the control socket is this user's alone (mode 0600), and each side
// asks the kernel for the other's user. It takes no descriptors: those only go
// from the old server to the new one.
//
// New here: what is passed is a listening socket. Its queue of clients waiting
// to be accepted belongs to the open file description, not to a process.

import { resolve } from 'node:path'
import {
  canonicalAddress,
  closeReceived,
  connectionsOn,
  duplicate,
  ListeningSocket,
  UnixConn,
} from '../../lib/index.ts'
import {
  commandLine,
  defaultSocketPath,
  fail,
  help,
  messageOf,
  onStop,
  secondsOption,
  usageError,
} from '../../lib/script/cli.ts'
import { printable } from '../../lib/script/printable.ts'
import { askForSockets, checkPeer, offerSockets, refuse } from './handover.ts'
import { cutOff, finish, isLeaving, serve } from './web.ts'

const USAGE = `Usage: ./examples/takeover/server.ts [OPTIONS]
Serves HTTP; takes over from the server at the control socket, if there is one.
Ctrl-C ends it.
  -l, --listen ADDRESS    PORT (of 127.0.0.1), ADDR:PORT, [ADDR]:PORT or a path;
                          can be given several times (8080)
  -c, --control PATH      the socket on which the two servers talk
  -d, --deadline SECONDS  to finish what is open (10)
  -p, --patience SECONDS  to wait for each frame of the other server (5)`

const { values } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      listen: { type: 'string', short: 'l', multiple: true, default: ['8080'] },
      control: { type: 'string', short: 'c' },
      deadline: { type: 'string', short: 'd', default: '10' },
      patience: { type: 'string', short: 'p', default: '5' },
    },
  },
  [0, 0],
)
const control = resolve(values.control ?? defaultSocketPath('takeover'))
const addresses = checkedAddresses(values.listen)
const deadline = secondsOption(USAGE, '--deadline', values.deadline, 0)
const patience = secondsOption(USAGE, '--patience', values.patience)

// What can fail comes first, while the predecessor still serves alone. Without
// one, having the control socket is what makes us the only server here.
const predecessor = await askForSockets(control, patience).catch(fail)
const inherited = predecessor?.sockets ?? []
const opened: ListeningSocket[] = []
const controlSocket = await socketAt(control).catch(giveUp)
const webSockets: ListeningSocket[] = []
for (const address of addresses) {
  webSockets.push(await socketAt(address).catch(giveUp))
}

const stop = new AbortController()
const leave = (): void => (isLeaving() ? cutOff() : stop.abort())
onStop(() => {
  leave()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.on(signal, leave)
})

// From here on both accept, and each client gets the one or the other. Only
// "ready" makes the other stop. If it does not, we serve whoever has come to
// us, and go.
try {
  for (const { fd } of webSockets) await serve(fd)
  stop.signal.throwIfAborted()
  await predecessor?.ready()
} catch (error) {
  await finish({ deadline, hasSuccessor: true })
  giveUp(error)
}
if (predecessor) {
  const { pid } = predecessor
  console.log(`Took over from process ${pid}`)
  void predecessor.gone().then(() => console.log(`Process ${pid} is gone`))
}
// Addresses of the predecessor that are not ours are closed: clients of those
// get an error, instead of waiting to be accepted for ever.
for (const socket of inherited) {
  if (socket === controlSocket || webSockets.includes(socket)) continue
  socket.close()
  socket.unlink()
}

// The loop ends with a signal or with a successor. Then nothing is accepted,
// but the files of the sockets are removed by the last server only: without
// them no client would find the successor.
let talk: UnixConn | undefined
let successor: UnixConn | undefined
const callers = connectionsOn(duplicate(controlSocket.fd), {
  signal: stop.signal,
})
console.log(`Server ready on ${addresses.join(', ')}, pid ${process.pid}`)
for await (const fd of callers) answer(fd)

for (const socket of [controlSocket, ...webSockets]) {
  if (successor === undefined) socket.unlink()
  socket.close()
}
if (successor === undefined) talk?.close()
await finish({ deadline, hasSuccessor: successor !== undefined })
console.log(`Server stopped, pid ${process.pid}`)

// Owns the descriptor. A connection that cannot be set up ends alone.
function answer(fd: number): void {
  try {
    void offer(UnixConn.fromFd(fd))
  } catch (error) {
    closeReceived(fd)
    console.log(printable(`No takeover: ${messageOf(error)}`))
  }
}

// Serving goes on meanwhile, and afterwards too if this fails. The successor's
// connection is kept open: its end tells the successor that we are gone.
async function offer(conn: UnixConn): Promise<void> {
  let peer = 'somebody'
  try {
    peer = `process ${checkPeer(conn).pid}`
    await offerSockets(conn, [controlSocket, ...webSockets], patience, () => {
      if (talk) throw new Error('another takeover is under way')
      talk = conn
      console.log(`Takeover: ${peer} asks for it`)
    })
    console.log(`Takeover: ${peer} serves now`)
    successor = conn
    stop.abort()
  } catch (error) {
    console.log(printable(`No takeover by ${peer}: ${messageOf(error)}`))
    await refuse(conn, error)
  } finally {
    if (talk === conn) talk = undefined
  }
}

async function socketAt(address: string): Promise<ListeningSocket> {
  const found = inherited.find((socket) => socket.address === address)
  if (found) return found
  // A successor is sent descriptors, and nobody has any to send here.
  const socket = await ListeningSocket.open(address, { refuseFds: true })
  opened.push(socket)
  return socket
}

// Removes the files of the sockets that this process has opened. Those that it
// inherited are still the predecessor's.
function giveUp(error: unknown): never {
  for (const socket of opened) socket.unlink()
  return fail(error)
}

function checkedAddresses(texts: readonly string[]): string[] {
  try {
    const addresses = texts.map(canonicalAddress)
    if (new Set([control, ...addresses]).size > addresses.length)
      return addresses
    throw new Error(`Expected different addresses, got ${addresses.join(', ')}`)
  } catch (error) {
    return usageError(USAGE, messageOf(error))
  }
}

#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A broker of ports: runs as root, opens sockets on ports that only root may
// bind, and gives them to clients, as its rules allow. A web server that gets
// port 80 from it is never root, not even at its start.
//
// Partners: client.ts; rules.ts and rules.json, which decide. You see one line
// for each decision. Open unix(7) "SO_PEERCRED", listen(2), ip(7), signal(7).
//
// New here: a service that knows its clients from the kernel, whatever they
// say, and answers each by what that one may have.
//
// Security: every user may connect, and gets what a rule allows, from a file
// that only this server's user, or root, can write. No user gets more than
// PER_USER of the places. A client gets REQUESTS answers in --patience seconds,
// has one socket at a time open here, and cannot send descriptors.

import { closeSync } from 'node:fs'

import {
  type Credentials,
  framesOf,
  listen,
  sendFrame,
  serviceSocket,
  type UnixConn,
} from '../../lib/index.ts'
import {
  codeOf,
  commandLine,
  defaultSocketPath,
  fail,
  help,
  messageOf,
  onStop,
  secondsOption,
} from '../../lib/script/cli.ts'
import { printable } from '../../lib/script/printable.ts'
import {
  allows,
  boundBy,
  parseRequest,
  type Request,
  type Rule,
  readRules,
} from './rules.ts'

const USAGE = `Usage: ./examples/port-broker/server.ts [OPTION] RULES [SOCKET]
Gives listening sockets to clients on SOCKET, as the JSON file RULES allows.
Reads RULES again on SIGHUP. Ctrl-C ends it; what it gave away stays open.
      --patience SECONDS  until a client is hung up on (10)`

/** Clients at once, those of one user, and requests of each. */
const CLIENTS = 32
const PER_USER = 8
const REQUESTS = 16

const { values, positionals } = commandLine(
  USAGE,
  {
    options: { ...help, patience: { type: 'string', default: '10' } },
    allowPositionals: true,
  },
  [1, 2],
)
const patience = secondsOption(USAGE, '--patience', values.patience)
const [file = '', path = defaultSocketPath('fdpass-port-broker')] = positionals

let rules = load(fail)

// Anyone may ask: the rules decide, not the mode of the socket.
const listener = await listen(path, { mode: 0o666, refuseFds: true }).catch(
  fail,
)

// A mistake in the file must not take ports away, nor give any.
process.on('SIGHUP', () => {
  rules = load((reason) => {
    console.error(printable(`Old rules kept: ${reason}`))
    return rules
  })
})

// SIGHUP reads the rules, so only the other two signals stop this server.
onStop((signal) => {
  if (signal !== 'SIGHUP') return listener.close()
})
console.log(`Server ready on ${path}, pid ${process.pid}`)

/** Who got which port last. Ports are few, so this stays small. */
const holders = new Map<string, string>()

/** How many clients each user has at the moment. */
const places = new Map<number, number>()
await listener.serve(serve, { maxConnections: CLIENTS }).catch(fail)
console.log('Server stopped')

async function serve(conn: UnixConn): Promise<void> {
  // Noted by the kernel when it connected. Nothing it sends can change this.
  const peer = conn.peerCredentials()
  const who = `pid ${peer.pid}, uid ${peer.uid}, gid ${peer.gid}`
  const taken = places.get(peer.uid) ?? 0
  places.set(peer.uid, taken + 1)
  const timer = setTimeout(() => {
    log(`${who}: Expected to be done in ${patience / 1000} s, hung up`)
    conn.close()
  }, patience)
  try {
    if (taken >= PER_USER)
      throw new Error(`Expected at most ${PER_USER} clients of one user`)
    let requests = 0
    // One after the other: at most one socket of this client's is open here.
    for await (const { value } of framesOf(conn)) {
      if (++requests > REQUESTS)
        throw new Error(`Expected at most ${REQUESTS} requests, got more`)
      log(`${who}: ${await answer(conn, peer, parseRequest(value))}`)
    }
  } catch (error) {
    if (conn.fd < 0) return
    log(`${who}: ${messageOf(error)}`)
    await sendFrame(conn, { error: messageOf(error) }).catch(() => {})
  } finally {
    clearTimeout(timer)
    places.set(peer.uid, (places.get(peer.uid) ?? 1) - 1)
  }
}

// Returns the decision, for the log.
async function answer(
  conn: UnixConn,
  peer: Credentials,
  request: Request,
): Promise<string> {
  const { protocol, address, port } = request
  const what = `${protocol} ${address} port ${port}`
  const rule = rules.findIndex((each) => allows(each, peer, request))
  if (rule < 0) {
    // The very rule that would allow it, ready to be pasted.
    const { uid } = peer
    const addresses = boundBy(address)
    const missing = { uid, protocol, addresses, ports: [port] }
    const why = `no rule such as ${JSON.stringify(missing)}`
    await sendFrame(conn, { error: `${what}: refused, ${why}` })
    return `${what}: refused, ${why}`
  }
  let fd = -1
  try {
    fd = serviceSocket(protocol, { host: address, port })
    await sendFrame(conn, { granted: what }, [fd])
    holders.set(`${protocol} ${port}`, `pid ${peer.pid}, uid ${peer.uid}`)
    return `${what}: allowed by rule ${rule + 1}`
  } catch (error) {
    const why = explain(error, request)
    await sendFrame(conn, { error: `${what}: ${why}` })
    return `${what}: allowed by rule ${rule + 1}, but ${why}`
  } finally {
    // It was sent, or sending failed: this copy is not needed any more.
    if (fd >= 0) closeSync(fd)
  }
}

function explain(error: unknown, { protocol, port }: Request): string {
  if (codeOf(error) !== 'EADDRINUSE') return messageOf(error)
  // Not certain: another program may have bound the port since then.
  const last = holders.get(`${protocol} ${port}`)
  const holder = last ? `last given to ${last}` : 'by somebody unknown here'
  return `it is taken, ${holder}`
}

function load(otherwise: (reason: string) => readonly Rule[]): readonly Rule[] {
  try {
    const read = readRules(file)
    console.log(`Read ${read.length} rules from ${file}`)
    return read
  } catch (error) {
    return otherwise(`${file}: ${messageOf(error)}`)
  }
}

// Clients, and the file of rules, may have control characters in their text.
function log(line: string): void {
  console.log(printable(line))
}

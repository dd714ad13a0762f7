#!/usr/bin/env -S sh -c 'exec "${0%/*}/../../lib/script/run" "$0" "$@"'
// A broker of ports: runs as root, opens sockets on ports that only root may
// bind, and hands them to the clients whom its rules allow them. A web server
// that gets port 80 from it never has to be root, not even for an instant.
//
// Partners: client.ts; rules.ts and rules.json, which decide. You see one line
// for each decision. Open unix(7) "SO_PEERCRED", listen(2), ip(7), signal(7).
//
// New here: a service that knows its clients from the kernel, whatever they
// say, and answers each by what that one may have.
//
// Simplification: one user can take all the places. A broker for users who do
// not trust each other would count them per uid.

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
  usageError,
} from '../../lib/script/cli.ts'
import {
  allows,
  parseRequest,
  type Request,
  type Rule,
  readRules,
} from './rules.ts'

const USAGE = `Usage: ./examples/port-broker/server.ts [OPTION] RULES [SOCKET]
Gives listening sockets to clients on SOCKET, as the JSON file RULES allows.
Reads RULES again on SIGHUP. Ctrl-C ends it; what it gave away stays open.
      --patience SECONDS  until a client has to be done (10)`

/** Clients at once, and requests of each. */
const CLIENTS = 32
const REQUESTS = 16

const { values, positionals } = commandLine(
  USAGE,
  {
    options: { ...help, patience: { type: 'string', default: '10' } },
    allowPositionals: true,
  },
  [1, 2],
)
const patience = Number(values.patience)
if (!/^\d{1,6}$/.test(values.patience))
  usageError(USAGE, `Expected --patience as a number, got ${values.patience}`)
const [file = '', path = defaultSocketPath('fdpass-port-broker')] = positionals

let rules = load(fail)

// Anyone may ask: the rules decide, not the mode of the socket.
const listener = await listen(path, { mode: 0o666 }).catch(fail)
console.log(`Server ready on ${path}, pid ${process.pid}`)

// A mistake in the file must not take ports away, nor give any.
process.on('SIGHUP', () => {
  rules = load((reason) => {
    console.error(`Old rules kept: ${reason}`)
    return rules
  })
})

const clients = new Set<UnixConn>()
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    listener.close()
    for (const conn of clients) conn.close()
  })
}

/** Who got which port last. Ports are few, so this stays small. */
const holders = new Map<string, string>()

const serving = new Set<Promise<void>>()
for await (const conn of listener) {
  const done = serve(conn).finally(() => serving.delete(done))
  serving.add(done)
  // Who comes when all places are taken waits in the backlog.
  if (serving.size === CLIENTS) await Promise.race(serving)
}
console.log('Server stopped')

async function serve(conn: UnixConn): Promise<void> {
  clients.add(conn)
  // Noted by the kernel when it connected. Nothing it sends can change this.
  const peer = conn.peerCredentials()
  const who = `pid ${peer.pid}, uid ${peer.uid}, gid ${peer.gid}`
  const timer = setTimeout(() => {
    console.log(`${who}: Expected to be done in ${patience} s, hung up`)
    conn.close()
  }, patience * 1000)
  try {
    let requests = 0
    // One after the other: at most one socket of this client's is open here.
    for await (const { value } of framesOf(conn)) {
      if (++requests > REQUESTS)
        throw new Error(`Expected at most ${REQUESTS} requests, got more`)
      console.log(`${who}: ${await answer(conn, peer, parseRequest(value))}`)
    }
  } catch (error) {
    if (conn.fd < 0) return
    console.log(`${who}: ${messageOf(error)}`)
    await sendFrame(conn, { error: messageOf(error) }).catch(() => {})
  } finally {
    clearTimeout(timer)
    conn.close()
    clients.delete(conn)
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
    const missing = { uid, protocol, addresses: [address], ports: [port] }
    const why = `no rule such as ${JSON.stringify(missing)}`
    await sendFrame(conn, { error: `${what}: refused, ${why}` })
    return `${what}: refused, ${why}`
  }
  let fd = -1
  try {
    fd = serviceSocket(protocol, address, port)
    await sendFrame(conn, { granted: what }, [fd])
    holders.set(`${protocol} ${port}`, `pid ${peer.pid}, uid ${peer.uid}`)
    return `${what}: allowed by rule ${rule + 1}`
  } catch (error) {
    const why = explain(error, request)
    await sendFrame(conn, { error: `${what}: ${why}` })
    return `${what}: allowed by rule ${rule + 1}, but ${why}`
  } finally {
    // The client has its own by now, or nobody has one.
    if (fd >= 0) closeSync(fd)
  }
}

function explain(error: unknown, { protocol, port }: Request): string {
  if (codeOf(error) !== 'EADDRINUSE') return messageOf(error)
  // Not certain: it may have been closed and bound again by somebody else.
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

#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// What postscreen(8) does, in TypeScript: accepts connections that are meant
// for Postfix, sends nothing for a second, and then hands each over. In SMTP the
// server sends the first line. Many programs that send spam do not wait for it:
// they are turned away here, and Postfix starts no process for them. A client
// that waits notices nothing: Postfix greets it over the very connection that
// it has made, and logs the client's address. Through a proxy it would log the
// proxy's.
//
// Partner: Postfix, with this line in its master.cf:
//
//    smtpd   pass  -  -  n  -  -  smtpd
//
// or ./test/peers/postfix.sh, which starts a Postfix that has nothing else. You
// see a line for each client. Open master(5), postscreen(8), unix(7) with it.
//
// New here: a live connection is given away for good, to a program that defines
// how. Not a byte of it is read: what the client has said by then, and whatever
// it says later, is in the socket for Postfix to read.

import { Socket } from 'node:net'

import {
  connect,
  connectionsOn,
  serviceSocket,
  waitReadable,
} from '../../lib/index.ts'
import {
  codeOf,
  commandLine,
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

const USAGE = `Usage: ./examples/postfix/screen.ts [OPTIONS] [SERVICE]
Accepts SMTP clients, and hands those that wait for the greeting to Postfix's
service of the type pass on the socket SERVICE (private/smtpd in the queue
directory /var/spool/postfix). To connect there takes root, or the user postfix.
Ctrl-C ends it; Postfix keeps what it was given.
  -a, --address ADDRESS  to listen on, in digits (127.0.0.1)
  -p, --port PORT        to listen on (2525)
  -w, --wait SECONDS     how long a client has to be silent (1)`

/** Clients that are here at once. The others are told to come back. */
const MAX_CLIENTS = 100

/** How long a client that is turned away may take to hang up, in ms. */
const PATIENCE = 10_000

// What a client is told: see RFC 5321, 4.2, and RFC 3463 for the second number.
const TOO_EARLY = '521 5.5.1 Protocol error\r\n'
const TOO_MANY = '421 4.3.2 All ports are busy\r\n'
const NO_POSTFIX = '421 4.3.2 No system resources\r\n'

const { values, positionals } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      address: { type: 'string', short: 'a', default: '127.0.0.1' },
      port: { type: 'string', short: 'p', default: '2525' },
      wait: { type: 'string', short: 'w', default: '1' },
    },
    allowPositionals: true,
  },
  [0, 1],
)
const [service = '/var/spool/postfix/private/smtpd'] = positionals
const { address } = values
const port = numberOption(USAGE, '--port', values.port, PORTS)
const silence = secondsOption(USAGE, '--wait', values.wait)

const stop = new AbortController()
onStop(() => stop.abort())

const clients = new Set<Socket>()
const listening = orFail(() => serviceSocket('tcp', { host: address, port }))
print(`Ready on ${address} port ${port}, pid ${process.pid}`)
try {
  for await (const fd of connectionsOn(listening, { signal: stop.signal }))
    void screen(fd)
} catch (error) {
  fail(error)
}
print('Stopped')

// Owns the descriptor. Never rejects: a client that fails ends alone.
async function screen(fd: number): Promise<void> {
  // For the address, and to answer those who are turned away. With manualStart
  // it does not read.
  const options = { fd, manualStart: true }
  const client = new Socket(options)
  clients.add(client)
  client.once('close', () => clients.delete(client))
  client.on('error', () => {}) // 'close' comes next
  const { remoteAddress = 'somebody', remotePort = 'unknown' } = client
  const who = `${remoteAddress} port ${remotePort}`
  try {
    if (clients.size > MAX_CLIENTS) {
      client.end(TOO_MANY)
      return client.destroySoon()
    }
    if (await talksFirst(fd)) {
      print(`${who}: did not wait, turned away`)
      return turnAway(client, TOO_EARLY)
    }
    await handOver(fd)
    print(`${who}: waited, Postfix has it`)
    // Closes the descriptor here. The connection goes on.
    client.destroy()
  } catch (error) {
    if (!stop.signal.aborted) print(`${who}: ${messageOf(error)}`)
    turnAway(client, NO_POSTFIX)
  }
}

// Whether there is something to read before the greeting, if only that the
// client has hung up. Reads nothing.
async function talksFirst(fd: number): Promise<boolean> {
  const enough = AbortSignal.timeout(silence)
  const signal = AbortSignal.any([enough, stop.signal])
  try {
    await waitReadable(fd, { signal })
    return true
  } catch (error) {
    if (codeOf(error) === 'ABORT_ERR' && !stop.signal.aborted) return false
    throw error
  }
}

// What Postfix expects on a socket of the type pass: a byte that carries the
// descriptor, then attributes (a name, NUL, a value, NUL), and a NUL that ends
// their list. It is empty here, and so Postfix asks the kernel who the client
// is. postscreen sends client_address and three others, as it can be behind a
// proxy that has told them.
async function handOver(fd: number): Promise<void> {
  const { signal } = stop
  const postfix = await connect(service, { signal })
  try {
    await postfix.sendFds('\0\0', [fd])
    // It hangs up once one of its processes has the descriptor. Until then the
    // client waits here, and counts.
    await postfix.recvFds({ maxFds: 0, signal })
  } finally {
    postfix.close()
  }
}

function turnAway(client: Socket, reply: string): void {
  client.end(reply)
  // Read, and dropped, until the client hangs up: close(2) of a socket with
  // bytes that nobody has read resets the connection, and the reply is lost.
  client.resume()
  setTimeout(() => client.destroy(), PATIENCE).unref()
  client.unref() // Ctrl-C does not wait for it
}

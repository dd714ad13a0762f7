#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A factory of sockets. This process runs as root, starts a child that does
// not, and from then on only makes TCP sockets, bound to one low port, as often
// as the child asks. The child connects from that port, which it could not bind
// itself, through a socket that did not exist when it was started.
//
// Partners: child.ts, which this starts; server.ts, which sees where the child
// comes from. Open socketpair(2), bind(2), ip(7) "privileged ports" with it.
// Modelled on: passfd 1.1, "Example of passing File Descriptors in Unix".
// New here: a descriptor as a permission, given to one who lacks the privilege.
//
// Security: the child gets fd 0, 1 and 2 of this process, one end of a
// socketpair, and a handful of harmless variables of its environment. It can
// ask for one port only, and the kernel refuses descriptors that it sends.
//
// Simplification: the child's group has the number of its user. A real program
// would look up what groups that user is in.

import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, readdirSync } from 'node:fs'
import { isIP, isIPv6 } from 'node:net'
import { fileURLToPath } from 'node:url'
import { boundSocket, pairForChild, setCloseOnExec } from '../../lib/index.ts'
import {
  codeOf,
  commandLine,
  fail,
  help,
  messageOf,
  numberOption,
  onStop,
  usageError,
} from '../../lib/script/cli.ts'
import { linesOf } from '../../lib/script/lines.ts'
import { printable } from '../../lib/script/printable.ts'

const USAGE = `Usage: ./examples/fd-factory/client.ts -p LOCALPORT -A ADDR
         -P PORT -d DATA [-u UID] [-- COMMAND [ARG...]]
Sends DATA to ADDR and PORT from LOCALPORT, in a child process of user UID.
  -p LOCALPORT  to come from; root alone may bind those below 1024
  -A ADDR       IPv4 or IPv6, in digits
  -P PORT       where server.ts waits
  -d DATA       what to send
  -u UID        the child's user, not 0; root has to name one
COMMAND runs in the place of child.ts, with the factory as its fd 3.`

/** What the child gets of root's environment, as far as it is there. */
const VARIABLES = ['PATH', 'TERM', 'TZ', 'LANG', 'LC_ALL', 'LC_CTYPE']

/** Characters. */
const LONGEST_REQUEST = 100

const { values, positionals } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      'local-port': { type: 'string', short: 'p', default: '' },
      address: { type: 'string', short: 'A', default: '' },
      port: { type: 'string', short: 'P', default: '' },
      data: { type: 'string', short: 'd' },
      uid: { type: 'string', short: 'u' },
    },
    allowPositionals: true,
  },
  [0, Number.POSITIVE_INFINITY],
)
const { address, data, 'local-port': local } = values
const localPort = numberOption(USAGE, '-p LOCALPORT', local, [1, 65535])
const port = numberOption(USAGE, '-P PORT', values.port, [1, 65535])
if (isIP(address) === 0)
  usageError(USAGE, `Expected -A ADDR in digits, got "${address}"`)
if (data === undefined) usageError(USAGE, 'Expected -d DATA')
const ownUid = process.getuid?.()
if (ownUid === 0 && values.uid === undefined)
  usageError(USAGE, "Expected -u UID: root has to name the child's user")
const user = values.uid ?? `${ownUid}`
const uid = numberOption(USAGE, '-u UID', user, [1, 2 ** 32 - 2])

// The child inherits one end of this, and no other descriptor but 0, 1 and 2:
// the TCP sockets do not exist yet, and are close-on-exec when they do. Its end
// is blocking, as COMMAND will expect.
keepFromChild()
const { conn, childFd } = pairForChild({ refuseFds: true })
onStop(() => {
  child.kill()
  process.exit(0)
})

const child = start()
const exit = once(child, 'exit').catch(fail)
closeSync(childFd)

// From here on the child is not trusted, and may ask for anything: a request is
// one line, answered with a descriptor or with the reason why not.
try {
  for await (const request of linesOf(received(), LONGEST_REQUEST)) {
    await answer(request)
  }
} catch (error) {
  const why = printable(messageOf(error))
  console.error(`Server: hung up on the child: ${why}`)
}
conn.close()

const [code] = await exit
process.exitCode = code ?? 1

function start(): ChildProcess {
  const stdio: StdioOptions = ['inherit', 'inherit', 'inherit', childFd]
  const shared = Object.entries(process.env).filter(([name]) =>
    VARIABLES.includes(name),
  )
  const options = { stdio, env: Object.fromEntries(shared) }
  const [command, ...args] = positionals
  if (command === undefined) {
    // child.ts gives up root itself, as its first act: the programs of Node and
    // of this folder may lie where only root can read.
    const script = fileURLToPath(new URL('child.ts', import.meta.url))
    const what = [`${uid}`, `${localPort}`, address, `${port}`, data ?? '']
    // Behind "--", DATA may begin with a dash.
    const node = [...process.execArgv, script, '--', ...what]
    return spawn(process.execPath, node, options)
  }
  // Where spawn() sets a user it drops the supplementary groups as well.
  const user = uid === ownUid ? {} : { uid, gid: uid }
  try {
    return spawn(command, args, { ...options, ...user })
  } catch (error) {
    return fail(`${messageOf(error)}: needs root to be uid ${uid}`)
  }
}

// A child would also inherit descriptors that this process was started with,
// unless they are close-on-exec. Node makes the first of them so, up to the
// first number that is not open.
function keepFromChild(): void {
  for (const name of readdirSync('/dev/fd')) {
    try {
      if (Number(name) > 2) setCloseOnExec(Number(name))
    } catch {
      // That one was the folder itself, and is closed by now.
    }
  }
}

async function* received(): AsyncGenerator<Buffer> {
  for (;;) {
    const message = await conn.recvFds({ maxBytes: 4096, maxFds: 0 })
    if (message === null) return
    yield message.data
  }
}

async function answer(request: string): Promise<void> {
  const made = make(request)
  if (typeof made === 'string') return conn.sendmsg(`refused: ${made}\n`)
  // Our copy is closed in any case: the port is bound while a copy is open.
  try {
    const sent = conn.sendFds('bound\n', [made])
    // Ahead of what the child prints: the message goes out during the await.
    console.log(`Server: sent fd=${made}`)
    await sent
  } finally {
    closeSync(made)
  }
}

// A descriptor, or why there is none. Port and address come from root's command
// line; the child may only ask for what it was meant to have.
function make(request: string): number | string {
  if (request !== `bind ${localPort}`) {
    const got = JSON.stringify(request.slice(0, LONGEST_REQUEST))
    return `Expected "bind ${localPort}", got ${got}`
  }
  try {
    return boundSocket({
      host: isIPv6(address) ? '::' : '0.0.0.0',
      port: localPort,
    })
  } catch (error) {
    if (codeOf(error) !== 'EACCES') return messageOf(error)
    const missing = 'root or CAP_NET_BIND_SERVICE, or a higher LOCALPORT'
    return `${messageOf(error)}: needs ${missing}`
  }
}

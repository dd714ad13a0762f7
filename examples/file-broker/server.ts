#!/usr/bin/env -S sh -c 'exec "${0%/*}/../../lib/script/run" "$0" "$@"'
// A broker of files: clients that cannot enter a directory get single files of
// it, open for reading, if they are plain, small and young enough. Start this
// in one terminal and `client.ts NAME` in another.
//
// Partners: client.ts, and checked.ts, which decides. Open fstat(2), sendmsg(2)
// and unix(7) with it.
//
// New here: a descriptor is checked, not a path.
//
// Simplification: one user can take all the places. A broker for users who do
// not trust each other would count them per uid.

import { type FileHandle, opendir } from 'node:fs/promises'
import { framesOf, listen, sendFrame, type UnixConn } from '../../lib/index.ts'
import {
  codeOf,
  commandLine,
  defaultSocketPath,
  fail,
  help,
  messageOf,
  usageError,
} from '../../lib/script/cli.ts'
import { openChecked, openDirectory } from './checked.ts'

const USAGE = `Usage: ./examples/file-broker/server.ts [OPTIONS] DIR [SOCKET]
Opens files of the directory DIR for those who ask on SOCKET. Ctrl-C ends it.
      --max-size BYTES    the largest to give away (1048576)
      --max-age SECONDS   since the last change (86400)
      --patience SECONDS  until a client has to be done (10)
      --public            for all users, not just for this one`

// Clients at once, and requests of each. What a client asked for and does not
// read stays in flight, and there counts as ours (ETOOMANYREFS in unix(7)):
// these two bound how much that is, and the patience how long.
const CLIENTS = 32
const REQUESTS = 16

const SHORTAGES = ['EMFILE', 'ENFILE', 'ETOOMANYREFS']

const { values, positionals } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      'max-size': { type: 'string', default: '1048576' },
      'max-age': { type: 'string', default: '86400' },
      patience: { type: 'string', default: '10' },
      public: { type: 'boolean' },
    },
    allowPositionals: true,
  },
  [1, 2],
)
const limits = {
  maxSize: number('--max-size', values['max-size']),
  maxAge: number('--max-age', values['max-age']),
}
const patience = number('--patience', values.patience, 6)
const [folder = '', path = defaultSocketPath('fdpass-file-broker')] =
  positionals

// Once, for good: see openDirectory().
const { handle, base } = await openDirectory(folder).catch(fail)

const mode = values.public ? 0o666 : 0o600
const listener = await listen(path, { mode }).catch(fail)
console.log(`Server ready on ${path}, pid ${process.pid}`)

const clients = new Set<UnixConn>()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    listener.close()
    for (const conn of clients) conn.close()
  })
}

const serving = new Set<Promise<void>>()
let count = 0
for await (const conn of listener) {
  count++
  const done = serve(conn, `client ${count}`).finally(() => {
    serving.delete(done)
  })
  serving.add(done)
  // Who comes when all places are taken waits in the backlog.
  if (serving.size === CLIENTS) await Promise.race(serving)
}
await handle.close()
console.log('Server stopped')

async function serve(conn: UnixConn, client: string): Promise<void> {
  clients.add(conn)
  const timer = setTimeout(() => {
    console.log(`${client}: Expected to be done in ${patience} s, hung up`)
    conn.close()
  }, patience * 1000)
  try {
    const { pid, uid } = conn.peerCredentials()
    console.log(`${client}: connected, pid ${pid}, uid ${uid}`)
    let requests = 0
    // One after the other: at most one file of this client's is open here.
    for await (const { value } of framesOf(conn)) {
      if (++requests > REQUESTS)
        throw new Error(`Expected at most ${REQUESTS} requests, got more`)
      if (value.list === true) await list(conn)
      else console.log(`${client}: ${await answer(conn, value.name)}`)
    }
  } catch (error) {
    if (conn.fd < 0) return
    console.log(`${client}: ${reason(error)}`)
    await sendFrame(conn, { error: reason(error) }).catch(() => {})
  } finally {
    clearTimeout(timer)
    conn.close()
    clients.delete(conn)
  }
}

async function answer(conn: UnixConn, name: unknown): Promise<string> {
  const shown = JSON.stringify(name)?.slice(0, 80)
  let file: FileHandle | undefined
  try {
    const granted = await openChecked(base, name, limits)
    file = granted.file
    // A file of its own for each, so that no two clients share an offset.
    await sendFrame(conn, { name, size: granted.size }, [file.fd])
    return `${shown}: granted, ${granted.size} bytes`
  } catch (error) {
    await sendFrame(conn, { error: `${shown}: ${reason(error)}` })
    return `${shown}: refused, ${reason(error)}`
  } finally {
    // The client has its own by now, or nobody has one.
    await file?.close()
  }
}

// By the same check, so that it shows what would really be granted.
async function list(conn: UnixConn): Promise<void> {
  for await (const { name } of await opendir(base)) {
    const granted = await openChecked(base, name, limits).catch((error) => {
      // A shortage here says nothing about the file.
      if (SHORTAGES.includes(reason(error))) throw error
    })
    if (granted === undefined) continue
    await granted.file.close()
    await sendFrame(conn, { name, size: granted.size })
  }
  await sendFrame(conn, { end: true })
}

// Without the message of a failed system call, which names our paths.
function reason(error: unknown): string {
  return codeOf(error) ?? messageOf(error)
}

function number(option: string, text: string, digits = 15): number {
  if (/^\d+$/.test(text) && text.length <= digits) return Number(text)
  return usageError(USAGE, `Expected ${option} as a number, got "${text}"`)
}

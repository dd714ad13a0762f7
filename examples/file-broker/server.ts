#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A broker of files: clients that cannot enter a directory get single files of
// it, open for reading, if they are plain, small and young enough. Start this
// in one terminal and `client.ts NAME` in another.
//
// Partners: client.ts, and checked.ts, which decides. Open fstat(2), sendmsg(2)
// and unix(7) with it.
//
// New here: a descriptor is checked, not a path.
//
// Security: this user's clients only, or with --public all, of which no user
// gets more than PER_USER places. A client gets REQUESTS answers in --patience
// seconds, has one file at a time open here, and cannot send descriptors. Not
// promised: a file that hangs (FUSE, NFS) holds one of the four threads that
// Node opens files in, so DIR has to be on a file system that answers.

import { type FileHandle, opendir } from 'node:fs/promises'
import { framesOf, listen, sendFrame, type UnixConn } from '../../lib/index.ts'
import {
  codeOf,
  commandLine,
  defaultSocketPath,
  fail,
  help,
  messageOf,
  numberOption,
  onStop,
  secondsOption,
} from '../../lib/script/cli.ts'
import { printable } from '../../lib/script/printable.ts'
import { openChecked, openDirectory, sizeOf } from './checked.ts'

const USAGE = `Usage: ./examples/file-broker/server.ts [OPTIONS] DIR [SOCKET]
Opens files of the directory DIR for those who ask on SOCKET. Ctrl-C ends it.
      --max-size BYTES    the largest to give away (1048576)
      --max-age SECONDS   the longest time since the last change (86400)
      --patience SECONDS  until a client is hung up on (10)
      --public            for all users, not just for this one`

// Clients at once, with --public those of one user, and requests of each. What
// a client asked for and does not read stays in flight, and there counts as
// ours (ETOOMANYREFS in unix(7)): these bound how much that is, and the
// patience how long.
const CLIENTS = 32
const PER_USER = 8
const REQUESTS = 16

/** Directory entries that are looked at for one piece of a list. */
const PER_PIECE = 32

const { values, positionals } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      'max-size': { type: 'string', default: '1048576' },
      'max-age': { type: 'string', default: '86400' },
      patience: { type: 'string', default: '10' },
      public: { type: 'boolean', default: false },
    },
    allowPositionals: true,
  },
  [1, 2],
)
const ANY = [0, Number.MAX_SAFE_INTEGER] as const
const limits = {
  maxSize: numberOption(USAGE, '--max-size', values['max-size'], ANY),
  maxAge: numberOption(USAGE, '--max-age', values['max-age'], ANY),
}
const patience = secondsOption(USAGE, '--patience', values.patience)
const [folder = '', path = defaultSocketPath('fdpass-file-broker')] =
  positionals

// Once, for good: see openDirectory().
const directory = await openDirectory(folder).catch(fail)

const mode = values.public ? 0o666 : 0o600
const perUser = values.public ? PER_USER : CLIENTS
const listener = await listen(path, { mode, refuseFds: true }).catch(fail)
onStop(() => listener.close())
console.log(`Server ready on ${path}, pid ${process.pid}`)

let count = 0
/** How many clients each user has at the moment. */
const places = new Map<number, number>()
await listener.serve(serve, { maxConnections: CLIENTS }).catch(fail)
await directory.handle.close()
console.log('Server stopped')

async function serve(conn: UnixConn): Promise<void> {
  const client = `client ${++count}`
  const { pid, uid } = conn.peerCredentials()
  log(client, `connected, pid ${pid}, uid ${uid}`)
  const taken = places.get(uid) ?? 0
  places.set(uid, taken + 1)
  const timer = setTimeout(() => {
    log(client, `Expected to be done in ${patience / 1000} s, hung up`)
    conn.close()
  }, patience)
  try {
    if (taken >= perUser)
      throw new Error(`Expected at most ${perUser} clients of one user`)
    let requests = 0
    // One after the other: at most one file of this client's is open here.
    for await (const { value } of framesOf(conn)) {
      if (++requests > REQUESTS)
        throw new Error(`Expected at most ${REQUESTS} requests, got more`)
      const answered = value.list === true ? list(conn) : give(conn, value.name)
      log(client, await answered)
    }
  } catch (error) {
    if (conn.fd < 0) return
    log(client, reason(error))
    await sendFrame(conn, { error: reason(error) }).catch(() => {})
  } finally {
    clearTimeout(timer)
    places.set(uid, (places.get(uid) ?? 1) - 1)
  }
}

async function give(conn: UnixConn, name: unknown): Promise<string> {
  const shown = JSON.stringify(name)?.slice(0, 80)
  let file: FileHandle | undefined
  try {
    const granted = await openChecked(directory, name, limits)
    file = granted.file
    // A file of its own for each, so that no two clients share an offset.
    await sendFrame(conn, { name, size: granted.size }, [file.fd])
    return `${shown}: granted, ${granted.size} bytes`
  } catch (error) {
    await sendFrame(conn, { error: `${shown}: ${reason(error)}` })
    return `${shown}: refused, ${reason(error)}`
  } finally {
    // It was sent, or sending failed: this copy is not needed any more.
    await file?.close()
  }
}

// By the same check, so that it shows what would be granted. It goes out in
// pieces, empty ones too: sending one fails as soon as the client has left.
async function list(conn: UnixConn): Promise<string> {
  let looks = 0
  let files: { name: string; size: number }[] = []
  try {
    for await (const { name } of await opendir(directory.base)) {
      looks++
      const size = await sizeOf(directory, name, limits).catch(() => -1)
      if (size >= 0) files.push({ name, size })
      if (looks % PER_PIECE > 0) continue
      await sendFrame(conn, { files })
      files = []
    }
    await sendFrame(conn, { files, end: true })
    return `list: ${looks} entries`
  } catch (error) {
    throw new Error(`list: ${reason(error)} after ${looks} entries`)
  }
}

// Names come from clients, and from those who may write in the directory.
function log(client: string, text: string): void {
  console.log(printable(`${client}: ${text}`))
}

// Without the message of a failed system call, which names our paths.
function reason(error: unknown): string {
  return codeOf(error) ?? messageOf(error)
}

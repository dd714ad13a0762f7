#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A D-Bus service that opens files of a directory for its callers and answers
// with descriptors. Start it in one terminal and `client.ts FILE` in another;
// gdbus and Python's dbus can be the client too.
//
// Partners: client.ts, bus.ts. Open open(2), sendmsg(2) and the D-Bus
// specification with it.
//
// New here: descriptors under a protocol that a library speaks. All that it
// asks of us is a stream with writeWithFds() and the event 'fds'.

import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { Message } from 'dbus-native'
import { describeFd } from '../../lib/index.ts'
import { commandLine, fail, help, onStop } from '../../lib/script/cli.ts'
import { printable } from '../../lib/script/printable.ts'
import {
  addressOf,
  busPath,
  closeAll,
  NAME,
  OBJECT,
  openBus,
  provideBus,
  takeFds,
} from './bus.ts'

const USAGE = `Usage: ./examples/dbus/service.ts DIR
Opens files of the directory DIR for those who call on the session bus. Without
DBUS_SESSION_BUS_ADDRESS it starts a bus of its own. Ctrl-C ends it.`

// A message may carry 253, but dbus-daemon disconnects a client that sends more
// than its max_message_unix_fds, and no request tells that number. 16 is the
// default.
const MOST = 16

const { positionals } = commandLine(
  USAGE,
  { options: help, allowPositionals: true },
  [1, 1],
)
const [folder = ''] = positionals

const path = await busPath()
await provideBus(path).catch(fail)
const bus = await openBus(path).catch(fail)

let stopping = false
onStop(() => {
  stopping = true
  bus.connection.end()
})
bus.connection.once('close', () => {
  if (!stopping) fail('The bus hung up')
  console.log('Service stopped')
})

bus.exportInterface({ Open: openFiles, Describe: describe }, OBJECT, {
  name: NAME,
  methods: {
    Open: ['as', 'ah', ['names'], ['files']],
    Describe: ['h', 's', ['descriptor'], ['kind']],
  },
})
const DO_NOT_QUEUE = 4
const PRIMARY_OWNER = 1
const owner = await bus.requestName(NAME, DO_NOT_QUEUE)
if (owner !== PRIMARY_OWNER) fail(`Another process serves ${NAME} already`)
console.log(`Service ready, pid ${process.pid}, on the bus`)
console.log(`DBUS_SESSION_BUS_ADDRESS=${addressOf(path)}`)

async function openFiles(...values: unknown[]): Promise<never> {
  const { call, value } = argument(values, 'as')
  const names = value as string[]
  if (names.length > MOST)
    throw new Error(`Expected at most ${MOST} names, got ${names.length}`)
  const files: FileHandle[] = []
  try {
    for (const name of names) files.push(await openFile(name))
    const fds = files.map((file) => file.fd)
    // An `h` is an index into `fds`, of which FdStream keeps duplicates until
    // they are sent: ours are closed as soon as this returns.
    bus.connection.message({
      type: 2, // METHOD_RETURN
      serial: bus.nextSerial(),
      replySerial: call.serial,
      destination: call.sender,
      signature: 'ah',
      body: [[...fds.keys()]],
      fds,
    })
    for (const [index, fd] of fds.entries())
      console.log(`${call.sender}: ${printable(`${names[index]}`)}, fd ${fd}`)
  } finally {
    for (const file of files) await file.close()
  }
  // What a method returns becomes an answer, which could carry no descriptors.
  // The answer is under way, so this returns nothing, ever.
  return new Promise(() => {})
}

// Looked at once it is open, and opening does no harm: see ../file-broker.
async function openFile(name: string): Promise<FileHandle> {
  if (name !== basename(name) || name === '..')
    throw new Error(`Expected a name without "/", got ${JSON.stringify(name)}`)
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
  const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK
  const file = await open(join(folder, name), flags)
  if ((await file.stat()).isFile()) return file
  await file.close()
  throw new Error(`Expected a regular file, got ${JSON.stringify(name)}`)
}

async function describe(...values: unknown[]): Promise<string> {
  const { call, value: index } = argument(values, 'h')
  const fds = takeFds(call)
  try {
    const fd = fds[Number(index)]
    if (fd === undefined) throw new Error('Expected a descriptor, got none')
    const { kind, access } = describeFd(fd)
    console.log(`${call.sender}: its descriptor is fd ${fd} here, ${kind}`)
    return `${kind}, ${access}`
  } finally {
    closeAll(fds)
  }
}

// dbus-native calls a method whatever arguments came.
function argument(
  values: unknown[],
  signature: 'as' | 'h',
): { call: Message; value: unknown } {
  const call = values.at(-1) as Message
  if (call.signature === signature) return { call, value: values[0] }
  const got = JSON.stringify(call.signature ?? '')
  throw new Error(`Expected an argument of type ${signature}, got ${got}`)
}

// A connection to a message bus that carries descriptors: dbus-native
// implements D-Bus, and its transport is an FdStream. Two lines of openBus()
// join the two.
//
// In a message a descriptor is a value of type `h`: an index into the message's
// `fds`. dbus-native closes none of these. Without help those would stay open
// that come with a call for which there is no method, with a signal, with an
// answer that is late or awaited as a promise. So openBus() closes all that
// takeFds() did not take.
//
// Partners: service.ts, client.ts. Open the D-Bus specification at "UNIX_FD"
// and dbus-daemon(1) with it.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Message, MessageBus } from 'dbus-native'
import { closeReceived, connect, FdStream } from '../../lib/index.ts'
import {
  defaultSocketPath,
  dial,
  fail,
  foundNoServer,
  ownPeer,
} from '../../lib/script/cli.ts'

/** On the bus; an interface of this name and an object to match go with it. */
export const NAME = 'org.example.FileOpener'
export const OBJECT = '/org/example/FileOpener'

const { DBUS_SESSION_BUS_ADDRESS: session } = process.env

/**
 * The socket of the session bus, or without one of this example's own bus. Of
 * several addresses the first at which somebody listens, else the first. Exits
 * 1 for a session bus that is not on a Unix socket.
 */
export async function busPath(): Promise<string> {
  if (!session) return defaultSocketPath('fdpass-dbus')
  const paths = session.split(';').flatMap(pathOf)
  const [first] = paths
  if (first === undefined) {
    return fail(
      'Expected unix:path=…, unix:abstract=… or unix:runtime=yes in ' +
        `DBUS_SESSION_BUS_ADDRESS, got ${JSON.stringify(session)}`,
    )
  }
  if (paths.length === 1) return first
  for (const path of paths) if (await isServed(path)) return path
  return first
}

// One address: a transport, and what it needs, with values escaped as in a URL.
function pathOf(address: string): string[] {
  const [, fields = ''] = /^unix:(.*)$/.exec(address) ?? []
  const values = new Map<string, string>()
  try {
    for (const field of fields.split(',')) {
      const [key = '', value = ''] = field.split('=')
      values.set(key, decodeURIComponent(value))
    }
  } catch {
    return [] // an escape that is none
  }
  const path = values.get('path')
  const abstract = values.get('abstract')
  const { XDG_RUNTIME_DIR } = process.env
  if (path) return [path]
  if (abstract) return [`\0${abstract}`]
  const isRuntime = values.get('runtime') === 'yes' && XDG_RUNTIME_DIR
  return isRuntime ? [join(XDG_RUNTIME_DIR, 'bus')] : []
}

async function isServed(path: string): Promise<boolean> {
  try {
    const conn = await connect(path)
    conn.close()
    return true
  } catch {
    return false
  }
}

/**
 * Connects, and waits until descriptors may be sent; exits 1 with one line if
 * there is no bus at `path`. The caller ends `bus.connection`.
 *
 * @throws Error if dbus-native is not installed, and for a bus that refuses
 * this user or carries no descriptors
 */
export async function openBus(path: string): Promise<MessageBus> {
  const dbus = await import('dbus-native').catch(() => {
    throw new Error('Expected dbus-native: run make examples/dbus/node_modules')
  })
  const starts = session ? 'the session bus' : './examples/dbus/service.ts DIR'
  // Neither is started with a path.
  const conn = await dial(path, starts, true)
  if (!session) ownPeer(conn)
  const stream = new FdStream(conn)
  const bus = dbus.createClient({ stream })

  bus.connection.on('message', (message: Message) => {
    // By then each function that is called with the message has run.
    setImmediate(() => closeAll(takeFds(message)))
  })
  let failure: Error | undefined
  bus.connection.on('error', (error) => {
    failure = error
    stream.destroy()
  })

  // dbus-daemon hangs up on descriptors that come with, or right behind, the
  // BEGIN that ends the authentication. After its first answer it takes them.
  await Promise.resolve(bus.getId()).catch((error) => {
    throw failure ?? error
  })
  if (bus.connection.unixFdsAgreed !== true) {
    stream.destroy()
    throw new Error('Expected a bus that carries descriptors, got one without')
  }
  return bus
}

/** The descriptors of a message, which belong to the caller from then on. */
export function takeFds(message: Message): number[] {
  return message.fds?.splice(0) ?? []
}

export function closeAll(fds: readonly number[]): void {
  for (const fd of fds) closeReceived(fd)
}

/** A shell's: dbus-daemon, ended when the writer of standard input is gone. */
const DAEMON = `exec 3<&0
(read _ <&3; kill $$) >/dev/null &
exec dbus-daemon "$@" </dev/null 3<&-`

/**
 * Starts a bus on `path`, unless there is one or a session bus is what is
 * meant. It ends with this process, whatever ends that.
 *
 * @throws Error if dbus-daemon does not start
 */
export async function provideBus(path: string): Promise<void> {
  if (session) return
  try {
    const conn = await connect(path)
    return conn.close()
  } catch (error) {
    if (!foundNoServer(error)) throw error
  }
  const options = ['--session', '--nofork', '--nopidfile', '--print-address']
  const args = [...options, '--address', addressOf(path)]
  const daemon = spawn('/bin/sh', ['-c', DAEMON, 'sh', ...args], {
    stdio: ['pipe', 'pipe', 'ignore'],
    // Not of our process group: Ctrl-C must not end the bus before us.
    detached: true,
  })
  const end = once(daemon, 'exit').then(([code]) => {
    const command = `dbus-daemon ${options.join(' ')}`
    throw new Error(`Expected a bus, got exit code ${code} of ${command}`)
  })
  // It prints its address once it listens.
  await Promise.race([once(daemon.stdout, 'data'), end])
  end.catch(() => {}) // once it runs, the connection tells of its end
  daemon.stdout.destroy()
  daemon.unref()
}

/** As other programs want it in DBUS_SESSION_BUS_ADDRESS. */
export function addressOf(path: string): string {
  const escaped = encodeURIComponent(path.replace(/^\0/, ''))
  const kind = path.startsWith('\0') ? 'abstract' : 'path'
  return `unix:${kind}=${escaped.replaceAll('%2F', '/')}`
}

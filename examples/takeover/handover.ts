// The protocol between an old and a new server, over the old one's control
// socket: both halves. Used by server.ts. Open unix(7) for SCM_RIGHTS and
// SO_PEERCRED.
//
//    new  {"takeover":1}
//    old  {"addresses":["/run/control.sock","127.0.0.1:8080"],"pid":7,"fds":2}
//         and with it the two listening sockets, in this order
//    new  {"ready":true}     it accepts connections
//    old  {"yours":true}     it accepts none from here on
//    old  hangs up           its last connection has ended
//
// Each sends only in its turn. Whatever else happens (end of file, no frame in
// time, a wrong one, {"error":"why"}) means that there is no takeover: the old
// one goes on serving as before. After "yours" the old one cannot go on.

import { setTimeout as sleep } from 'node:timers/promises'
import {
  type Credentials,
  closeReceived,
  connect,
  describeFd,
  type Frame,
  framesOf,
  ListeningSocket,
  sendFrame,
  type UnixConn,
} from '../../lib/index.ts'
import { foundNoServer, messageOf } from '../../lib/script/cli.ts'

export type Predecessor = {
  /** As it says itself. SO_PEERCRED names the process that called listen(2) on
   * the control socket, which may be a server that ended long ago. */
  readonly pid: number
  /** The caller owns them. */
  readonly sockets: ListeningSocket[]
  /** Says "ready". @throws Error unless the old server has stepped back */
  readonly ready: () => Promise<void>
  /** Resolves when the old server's last connection has ended. */
  readonly gone: () => Promise<void>
}

/** Most sockets that fit into one message, as Linux counts (SCM_MAX_FD). */
const MOST_SOCKETS = 253

/**
 * The new server's half, up to the sockets.
 *
 * @param patience ms that the old server may take to answer
 * @returns undefined if no server answers at `control`
 * @throws Error if one does and hands nothing over
 */
export async function askForSockets(
  control: string,
  patience: number,
): Promise<Predecessor | undefined> {
  const conn = await connect(control).catch((error) => {
    if (!foundNoServer(error)) throw error
  })
  if (conn === undefined) return undefined
  const listener = checkPeer(conn)
  const limits = { maxFds: MOST_SOCKETS, maxBytes: 65536 }
  const frames = framesOf(conn, limits)
  // If it has hung up, what it said before that tells more than EPIPE.
  const say = async (word: object) => {
    await sendFrame(conn, word).catch(() => {})
    return nextFrame(frames, patience)
  }
  const offer = await say({ takeover: 1 })
  const { pid } = offer.value
  return {
    pid: Number.isSafeInteger(pid) ? Number(pid) : listener.pid,
    sockets: adopt(offer),
    ready: async () => {
      expect(await say({ ready: true }), 'yours', true)
    },
    gone: async () => {
      conn.unref()
      await frames.next().catch(() => {})
      conn.close()
    },
  }
}

/**
 * The old server's half. Resolves once the new one has everything, and keeps
 * `conn` open then: its end, with this process, tells that all is done.
 *
 * @param begin called when the new one has asked; what it throws is a refusal
 * @throws Error if nothing has changed
 */
export async function offerSockets(
  conn: UnixConn,
  sockets: readonly ListeningSocket[],
  patience: number,
  begin: () => void,
): Promise<void> {
  const frames = framesOf(conn)
  expect(await nextFrame(frames, patience), 'takeover', 1)
  begin()
  const addresses = sockets.map(({ address }) => address)
  const fds = sockets.map(({ fd }) => fd)
  await sendFrame(conn, { addresses, pid: process.pid }, fds)
  expect(await nextFrame(frames, patience), 'ready', true)
  await sendFrame(conn, { yours: true })
}

/** Tells the other side why not, as far as it listens, and hangs up. */
export async function refuse(conn: UnixConn, error: unknown): Promise<void> {
  await sendFrame(conn, { error: messageOf(error) }).catch(() => {})
  conn.close()
}

/** @throws Error unless the peer is a process of this user's own */
export function checkPeer(conn: UnixConn): Credentials {
  const peer = conn.peerCredentials()
  const own = process.getuid?.()
  if (peer.uid === own) return peer
  const { pid, uid } = peer
  throw new Error(`Expected a process of uid ${own}, got ${pid} of uid ${uid}`)
}

// Owns the descriptors, all or none: with one missing there is no takeover.
function adopt({ value, fds }: Frame): ListeningSocket[] {
  try {
    const { addresses } = value
    if (!Array.isArray(addresses) || addresses.length !== fds.length)
      throw new Error(`Expected ${fds.length} addresses, got ${addresses}`)
    return fds.map((fd, index) => {
      const { kind } = describeFd(fd)
      if (kind !== 'socket') throw new Error(`Expected a socket, got a ${kind}`)
      return new ListeningSocket(fd, String(addresses[index]))
    })
  } catch (error) {
    for (const fd of fds) closeReceived(fd)
    throw error
  }
}

async function nextFrame(
  frames: AsyncGenerator<Frame, void, void>,
  patience: number,
): Promise<Frame> {
  const done = new AbortController()
  const late = sleep(patience, undefined, done).then(() => {
    throw new Error(`Expected the other server's frame within ${patience} ms`)
  })
  const next = Promise.race([frames.next(), late])
  // Else the timer would keep this process alive for as long.
  const { value: frame } = await next.finally(() => done.abort())
  if (!frame) throw new Error('Expected an answer, got a hang-up')
  const { error } = frame.value
  if (typeof error === 'string')
    throw new Error(`The other server refuses: ${error}`)
  return frame
}

function expect({ value, fds }: Frame, key: string, expected: unknown): void {
  for (const fd of fds) closeReceived(fd)
  if (value[key] === expected && fds.length === 0) return
  throw new Error(
    `Expected {"${key}":${expected}}, got ${JSON.stringify(value)}`,
  )
}

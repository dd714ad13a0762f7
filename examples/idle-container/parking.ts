// The front's half of the protocol with the container: idle connections go
// there one after the other, and come back as soon as their peers send
// something. Used by front.ts. Open unix(7) with it.
//
//    front      {"tag":"{\"id\":7,\"lines\":1}","fds":1}    and the connection
//    container  {"woke":"{\"id\":7,\"lines\":1}","fds":1}   and the connection

import { setTimeout as sleep } from 'node:timers/promises'
import {
  closeReceived,
  connect,
  framesOf,
  sendFrame,
  type UnixConn,
} from '../../lib/index.ts'
import { messageOf, print } from '../../lib/script/cli.ts'
import type { Live, Session } from './live.ts'

/** How long to wait before the container is dialled again, in ms. */
const REDIAL_DELAY = 1000

export type Owner = {
  /** Takes over the descriptor of a connection that comes back. */
  readonly onWake: (fd: number, session: Session) => void
  /** Resolves when one more connection may come back. */
  readonly whenRoom: () => Promise<void>
  readonly countLive: () => number
}

export class Parking {
  readonly #path: string
  readonly #owner: Owner
  /** In line to be parked. */
  readonly #idle = new Set<Live>()
  #container: UnixConn | undefined
  #isSending = false
  #parked = 0

  constructor(path: string, owner: Owner) {
    this.#path = path
    this.#owner = owner
  }

  /**
   * Dials the container, and again if it is gone, until `signal` is aborted.
   * Without one nothing is parked.
   */
  async run(signal: AbortSignal): Promise<void> {
    const hangUp = (): void => this.#container?.close()
    signal.addEventListener('abort', hangUp)
    let isTold = false
    while (!signal.aborted) {
      const why = await this.#talk(signal).catch(messageOf)
      const wasThere = this.#container !== undefined
      this.#container = undefined
      if (!signal.aborted && (wasThere || !isTold)) this.#tell(why, wasThere)
      isTold = true
      await sleep(REDIAL_DELAY, undefined, { signal }).catch(() => {})
    }
  }

  /** Parks `connection` when its turn comes, if it is still idle by then. */
  add(connection: Live): void {
    this.#idle.add(connection)
    if (!this.#isSending) void this.#sendAll()
  }

  // One at a time: while the container takes nothing, all that wait in line are
  // still live, and are served if their peers send something.
  async #sendAll(): Promise<void> {
    this.#isSending = true
    for (const connection of this.#idle) {
      this.#idle.delete(connection)
      if (this.#container && connection.isIdle)
        await this.#park(connection, this.#container)
    }
    this.#isSending = false
  }

  async #park(connection: Live, container: UnixConn): Promise<void> {
    const { fd, session } = connection
    // Keeps the descriptor open until it is sent: once closed, its number may
    // be another connection's.
    connection.pause()
    try {
      await sendFrame(container, { tag: JSON.stringify(session) }, [fd])
    } catch {
      return connection.resume()
    }
    connection.close()
    this.#parked++
    const live = this.#owner.countLive()
    connection.log(`idle, parked, ${this.#parked} parked, ${live} live`)
  }

  // Returns, or throws, why there is no container, or none any more.
  async #talk(signal: AbortSignal): Promise<string> {
    const conn = await connect(this.#path, { signal })
    try {
      // The container can read what our clients send.
      const { pid, uid } = conn.peerCredentials()
      if (uid !== process.getuid?.())
        return `Expected one of this user's, got one of uid ${uid}`
      print(`Container on ${this.#path}, pid ${pid}`)
      this.#container = conn
      for await (const { value, fds } of framesOf(conn, { maxFds: 1 })) {
        this.#wake(value.woke, fds[0])
        await this.#owner.whenRoom()
      }
      return 'it hung up'
    } finally {
      conn.close()
    }
  }

  #wake(tag: unknown, fd: number | undefined): void {
    if (fd === undefined) throw new Error('Expected a descriptor, got none')
    this.#parked--
    try {
      this.#owner.onWake(fd, JSON.parse(String(tag)))
    } catch (error) {
      closeReceived(fd)
      throw error
    }
  }

  #tell(why: string, wasThere: boolean): void {
    if (!wasThere) {
      void print(`No container: ${why}; connections stay live`)
      return
    }
    // Its descriptors were closed with it, and we had no others.
    const lost = `the ${this.#parked} that it held are lost`
    const live = this.#owner.countLive()
    print(`Container gone: ${why}; ${lost}, ${live} live ones go on`)
    this.#parked = 0
  }
}

// What listener.serve() does: a handler for each connection, a bound on how
// many there are at a time, and an orderly end. Used by listener.ts alone.
// Read next: lib/conn/listening.ts.

import { warn } from '../wait/accept.ts'
import type { UnixConn } from './conn.ts'

/** Called with each connection, which is closed when it has ended. */
export type Handler = (conn: UnixConn) => void | Promise<void>

/** Of listener.serve(). */
export type ServeOptions = {
  /** Connections at a time, any number unless given. More of them wait in the
   * backlog. */
  readonly most?: number
  /** Called with what a handler threw; unless given, that becomes a warning of
   * the process. If this throws, serve() ends with its error. */
  readonly onError?: (error: unknown, conn: UnixConn) => void
}

type Source = {
  accept(): Promise<UnixConn | null>
  close(): void
}

/** One call of listener.serve(). */
export class Serving {
  readonly #handler: Handler
  readonly #most: number
  readonly #onError: (error: unknown, conn: UnixConn) => void
  readonly #conns = new Set<UnixConn>()
  readonly #failures: unknown[] = []
  #isClosed = false
  #onEnd = (): void => {}

  /** @throws RangeError for `most` */
  constructor(handler: Handler, options: ServeOptions) {
    const { most = Number.POSITIVE_INFINITY, onError = warnOf } = options
    if (!(most >= 1)) {
      throw new RangeError(`Expected most as a number from 1, got ${most}`)
    }
    this.#handler = handler
    this.#most = most
    this.#onError = onError
  }

  /** Resolves when `source` is closed and the last handler has ended. */
  async run(source: Source): Promise<void> {
    try {
      for (;;) {
        await this.#fewerThan(this.#most)
        const conn = await source.accept()
        if (conn === null) break
        // close() may have come between the connection and this line.
        if (this.#isClosed) conn.close()
        void this.#handle(conn, source)
      }
    } finally {
      source.close()
      await this.#fewerThan(1)
    }
    if (this.#failures.length > 0) throw this.#failures[0]
  }

  /** Closes every connection, which ends whatever its handler waits for. */
  hangUp(): void {
    this.#isClosed = true
    for (const conn of this.#conns) conn.close()
  }

  // Not awaited: an error that it threw would end the process.
  async #handle(conn: UnixConn, source: Source): Promise<void> {
    this.#conns.add(conn)
    try {
      await this.#handler(conn)
    } catch (error) {
      if (!this.#isClosed || codeOf(error) !== 'ERR_SOCKET_CLOSED') {
        this.#report(error, conn, source)
      }
    }
    conn.close()
    this.#conns.delete(conn)
    this.#onEnd()
  }

  #report(error: unknown, conn: UnixConn, source: Source): void {
    try {
      this.#onError(error, conn)
    } catch (failure) {
      this.#failures.push(failure)
      source.close()
    }
  }

  async #fewerThan(count: number): Promise<void> {
    while (this.#conns.size >= count) {
      await new Promise<void>((resolve) => {
        this.#onEnd = resolve
      })
    }
  }
}

function codeOf(error: unknown): unknown {
  return (error as NodeJS.ErrnoException | undefined)?.code
}

function warnOf(error: unknown): void {
  warn(error instanceof Error ? error : new Error(String(error)))
}

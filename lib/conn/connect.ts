// Dialling: a client's side of a connection. Partner: listener.ts. Open
// connect(2) and unix(7) beside it.
// Read next: lib/conn/listener.ts.

import { constants } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'

import { check } from '../libc.ts'
import { closeFd, connectTo, newSocket } from '../socket/unix.ts'
import { abortError } from '../wait/abort.ts'
import { UnixConn } from './conn.ts'

/** `signal` ends the attempt with an AbortError. */
export type ConnectOptions = { readonly signal?: AbortSignal }

const { EAGAIN } = constants.errno

/** Pause before the next try if the backlog is full, in ms: no event says
 * when it has a place. */
const RETRY_DELAY = 20

/**
 * connect(2): dials a Unix stream socket. If its backlog is full, waits for a
 * place. The caller owns, and closes, the connection.
 *
 * @param path of the socket file; on Linux `'\0name'` for an abstract name
 * @param options.signal aborts the wait
 * @throws Error ENOENT, ECONNREFUSED if no server listens; EACCES;
 * ENAMETOOLONG; AbortError
 * @see connect(2), unix(7)
 * @example
 * const conn = await connect('/tmp/echo.sock')
 * await conn.sendFds('Here is my stdin', [0])
 * const answer = await conn.recvmsg()
 * conn.close()
 */
export async function connect(
  path: string,
  { signal }: ConnectOptions = {},
): Promise<UnixConn> {
  if (signal?.aborted) throw abortError(signal)
  const fd = newSocket()
  try {
    for (;;) {
      const result = connectTo(fd, path)
      if (result !== -EAGAIN) {
        check('connect', result, path)
        return new UnixConn(fd)
      }
      await sleep(RETRY_DELAY, undefined, signal ? { signal } : {})
    }
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

// Dialling: a client's side of a connection. Partner: listener.ts. Open
// connect(2) and unix(7) beside it.
// Read next: lib/conn/listener.ts.

import { constants } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'

import { check } from '../libc.ts'
import {
  closeFd,
  connectTo,
  newSocket,
  type SocketOptions,
  tieToThread,
} from '../socket/unix.ts'
import { abortError } from '../wait/errors.ts'
import { UnixConn } from './conn.ts'
import { checkSignal } from './limits.ts'

const { EAGAIN, EPROTOTYPE } = constants.errno

/** Pause before the next try if the backlog is full, in ms: no event says
 * when it has a place. */
const RETRY_DELAY = 20

/** Of the socket that is made. */
export type ConnectOptions = SocketOptions & {
  /** Ends the attempt with an AbortError. */
  readonly signal?: AbortSignal | undefined
}

/**
 * connect(2): dials a Unix socket. If its backlog is full, waits for a place,
 * for as long as it takes, or until `signal` is aborted. The caller owns, and
 * closes, the connection.
 *
 * @param path of the socket file; on Linux `'\0name'` for an abstract name
 * @throws Error ENOENT, ECONNREFUSED if no server listens; EACCES;
 * ENAMETOOLONG; EPROTOTYPE for a socket of another type; AbortError
 * @see connect(2), unix(7)
 * @example
 * const conn = await connect('/tmp/echo.sock')
 * await conn.sendFds('Here is my stdin', [0])
 * const answer = await conn.recvmsg()
 * conn.close()
 */
export async function connect(
  path: string,
  options: ConnectOptions = {},
): Promise<UnixConn> {
  const { signal, type = 'stream' } = options
  checkSignal(signal)
  if (signal?.aborted) throw abortError(signal)
  const fd = newSocket(type, options)
  try {
    for (;;) {
      const result = connectTo(fd, path)
      if (result !== -EAGAIN) {
        const why = `${path}: expected a ${type} socket, got one of another type`
        check('connect', result, result === -EPROTOTYPE ? why : path)
        return UnixConn.adopt(tieToThread(fd), type)
      }
      await sleep(RETRY_DELAY, undefined, signal ? { signal } : {})
    }
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

// Listening sockets as bare descriptors, TCP and Unix alike: to be given to
// another process, or to be served with `server.listen({ fd })`. Nothing here
// accepts. Open listen(2), unix(7) and ip(7) beside it.
// Read next: lib/wait/accept.ts.

import { constants } from 'node:os'
import { resolve } from 'node:path'

import { systemError } from '../libc.ts'
import { serviceSocket } from '../socket/inet.ts'
import { closeFd, type SocketOptions } from '../socket/unix.ts'
import { warn } from '../wait/accept.ts'
import {
  type BindOptions,
  listenAt,
  type SocketFile,
  socketFileAt,
} from '../wait/listen-at.ts'

const LOOPBACK = '127.0.0.1'

/**
 * The one spelling of an address that others can be compared with: a path
 * (whatever has a slash) becomes absolute, a port alone is on 127.0.0.1, IPv6
 * stands in brackets, `@NAME` is the abstract name `\\0NAME` (Linux).
 *
 * @param text `PATH`, `PORT`, `ADDRESS:PORT`, `[ADDRESS]:PORT` or `@NAME`
 * @throws RangeError for anything else
 * @see unix(7), ip(7)
 */
export function canonicalAddress(text: string): string {
  if (isAbstractName(text)) return text
  if (text.includes('/')) return resolve(text)
  const { host, port } = splitAddress(text)
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/**
 * A socket that listens at an address, or one that another process has opened.
 * close() leaves the socket file: another process that goes on serving the
 * socket needs it. unlink() removes it.
 */
export class ListeningSocket {
  readonly address: string
  #fd: number
  readonly #file: SocketFile | undefined

  /** Owns `fd`, which listens at `address`, a canonical one. */
  constructor(fd: number, address: string) {
    this.address = address
    this.#file = isPath(address) ? socketFileAt(address) : undefined
    this.#fd = fd
  }

  /** Its descriptor, not the caller's to close. -1 once closed or detached. */
  get fd(): number {
    return this.#fd
  }

  /**
   * socket(2), bind(2), listen(2). The descriptor is close-on-exec. The file
   * of a Unix socket is this user's alone; one that a dead server left is
   * replaced.
   *
   * @param options for Unix sockets. Those that are accepted from one with
   * `refuseFds` refuse descriptors too
   * @throws Error EADDRINUSE; EADDRNOTAVAIL; EACCES; ENOENT; ENAMETOOLONG
   * @throws RangeError as canonicalAddress, and for a host name, as addresses
   * are in digits
   * @see bind(2), listen(2)
   */
  static async open(
    text: string,
    options: BindOptions & Pick<SocketOptions, 'refuseFds'> = {},
  ): Promise<ListeningSocket> {
    const address = canonicalAddress(text)
    if (isAbstractName(address)) {
      const { fd } = await listenAt(`\0${address.slice(1)}`, 'stream', options)
      return new ListeningSocket(fd, address)
    }
    if (isPath(address)) {
      const { fd } = await listenAt(address, 'stream', options)
      return new ListeningSocket(fd, address)
    }
    const { host, port } = splitAddress(address)
    return new ListeningSocket(serviceSocket('tcp', { host, port }), address)
  }

  /** close(2). The socket file stays. Closing again does nothing. */
  close(): void {
    if (this.#fd >= 0) closeFd(this.detach())
  }

  /**
   * Gives the descriptor away: it is the caller's from then on, and close()
   * does nothing any more. unlink() still removes the file.
   *
   * @throws Error EBADF if it is closed or detached already
   */
  detach(): number {
    const fd = this.#fd
    if (fd < 0)
      throw systemError('detach', -constants.errno.EBADF, this.address)
    this.#fd = -1
    return fd
  }

  /** close(), for `using`. */
  [Symbol.dispose](): void {
    this.close()
  }

  /**
   * Removes the socket file, if there is one and it is still this socket's.
   * Where it cannot be removed, that is a warning of the process.
   */
  unlink(): void {
    const failure = this.#file?.remove()
    if (failure) warn(failure)
  }
}

function isPath(address: string): boolean {
  return address.includes('/') && !isAbstractName(address)
}

function isAbstractName(address: string): boolean {
  return address.startsWith('@')
}

function splitAddress(text: string): { host: string; port: number } {
  const match = /^(?:(?:\[(.+)\]|([^:]+)):)?(\d{1,5})$/.exec(text)
  if (match === null) {
    throw new RangeError(
      'Expected PORT, ADDRESS:PORT, [ADDRESS]:PORT, @NAME or a path with a ' +
        `slash, got ${text}`,
    )
  }
  return { host: match[1] ?? match[2] ?? LOOPBACK, port: Number(match[3]) }
}

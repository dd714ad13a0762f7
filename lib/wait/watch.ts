// Waiting for one descriptor, without reading from it and without a thread.
// All who wait here do it in one way: they try their call first, wait if it
// says EAGAIN, and try again.
// Read next: lib/wait/types.ts.

import { constants } from 'node:os'

import { host } from '../layouts.ts'
import { systemError } from '../libc.ts'
import { describeFd } from '../socket/describe.ts'
import { EpollWatch } from './epoll.ts'
import { abortError } from './errors.ts'
import { SocketWatch } from './socket-watch.ts'
import type { OnReady, Trigger, Watch as WatchType } from './types.ts'
import { READABLE, WRITABLE } from './types.ts'

export { PER_TURN, READABLE, WRITABLE } from './types.ts'

/**
 * Whether all is waited for by one list in the kernel. The variable is for the
 * tests, which run on Linux what other systems have to do.
 */
export const hasEpoll: boolean =
  host.epoll_event.size > 0 && process.env.FDPASS_WAIT !== 'sockets'

export type Watch = WatchType

/**
 * A watch of `fd`, which remains the caller's. Where there is no epoll, `fd`
 * has to be a socket or a pipe, and becomes non-blocking for everyone who
 * shares its open file description.
 *
 * @throws Error only where there is no epoll: as wait() does
 */
export const Watch: new (
  fd: number,
  trigger: Trigger,
  onReady: OnReady,
) => WatchType = hasEpoll ? EpollWatch : SocketWatch

/** `signal` ends the wait with an AbortError. */
export type WaitOptions = { readonly signal?: AbortSignal | undefined }

/**
 * Waits until a read of `fd` would not block: there are bytes, the end of file,
 * or an error. Reads nothing, sets nothing on it, and does not own it: it has
 * to stay open until this is settled. For whatever can be polled: sockets,
 * pipes, terminals, devices, and what eventfd(2), pidfd_open(2), inotify_init(2)
 * and timerfd_create(2) give. Several may wait for one descriptor.
 *
 * Another process that has the same open file description may be quicker to
 * read, so a read after this may block all the same.
 *
 * @throws RangeError for what is no descriptor; AbortError
 * @throws Error EBADF; EPERM for what never blocks, such as a file; ENOSPC at
 * the limit of watches; EINVAL beyond 500 waits for one open file description;
 * EMFILE. On macOS and FreeBSD ERR_INVALID_FD_TYPE for all but sockets and
 * pipes, which become non-blocking
 * @see epoll_ctl(2)
 * @example
 * for (;;) {
 *   await waitReadable(eventFd)
 *   readSync(eventFd, counter)
 * }
 */
export function waitReadable(
  fd: number,
  options: WaitOptions = {},
): Promise<void> {
  return waitFor(fd, READABLE, options.signal)
}

/**
 * Waits until a write to `fd` would not block: there is room, or nobody reads
 * any more. All else as for waitReadable().
 */
export function waitWritable(
  fd: number,
  options: WaitOptions = {},
): Promise<void> {
  return waitFor(fd, WRITABLE, options.signal)
}

const FILE = 'cannot wait for this: it is a file, which never blocks'

function waitFor(
  fd: number,
  events: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(abortError(signal))
    // epoll_ctl(2) says so itself, but asks the server of a file on FUSE first.
    if (describeFd(fd).kind === 'file') {
      throw systemError('epoll_ctl', -constants.errno.EPERM, FILE)
    }
    const watch = new Watch(fd, 'level', () => {
      end()
      if (watch.failure) reject(watch.failure)
      else resolve()
    })
    const abort = (): void => {
      end()
      reject(abortError(signal))
    }
    function end(): void {
      signal?.removeEventListener('abort', abort)
      watch.end()
    }
    try {
      watch.wait(events)
      signal?.addEventListener('abort', abort)
    } catch (error) {
      watch.end()
      throw error
    }
  })
}

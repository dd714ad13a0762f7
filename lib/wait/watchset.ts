// Waiting for many connections. With uv_poll each has a watcher of its own,
// which is small. Without it a watcher takes about 4 KB of this process's
// memory. So on Linux the list of descriptors is then kept in the kernel
// (epoll.ts), where each takes little; elsewhere each has such a watcher.
// Read next: lib/wait/uv-poll.ts.

import { closeSync } from 'node:fs'

import { EPOLLIN, Epoll } from './epoll.ts'
import { SocketWatcher, Watcher } from './watcher.ts'

/** Descriptors that are waited for, all at once. */
export type WatchSet = {
  /**
   * Waits until `fd` can be read without blocking, which end of file and
   * errors are too, reports that once, and reads nothing. Owns `fd` from then
   * on; if this throws, it remains the caller's.
   *
   * @throws Error EBADF; EPERM or ERR_INVALID_FD_TYPE for what cannot be
   * waited for, such as a file
   */
  add(fd: number): void
  /** Ends the wait for `fd`, reported or not, and closes it. */
  delete(fd: number): void
  /** All of them, and the set itself. */
  close(): void
  /** How many there are. Those not reported yet keep the process alive. */
  readonly size: number
}

/**
 * An empty set.
 *
 * @param onReadable called with each descriptor that can be read. It may call
 * add() and delete()
 * @see epoll(7)
 */
export function watchSet(onReadable: (fd: number) => void): WatchSet {
  const Kind = chooseSet(process.platform, Watcher === SocketWatcher)
  return new Kind(onReadable)
}

/** The kind of set that costs less: uv_poll needs no list in the kernel. */
export function chooseSet(platform: string, isSocketWatcher: boolean) {
  return platform === 'linux' && isSocketWatcher ? EpollSet : WatcherSet
}

/** A set with a list in the kernel. Linux only. */
export class EpollSet implements WatchSet {
  readonly #epoll: Epoll
  readonly #fds = new Set<number>()

  constructor(onReadable: (fd: number) => void) {
    this.#epoll = new Epoll(onReadable)
  }

  get size(): number {
    return this.#fds.size
  }

  add(fd: number): void {
    this.#epoll.add(fd, EPOLLIN)
    this.#fds.add(fd)
  }

  delete(fd: number): void {
    if (!this.#fds.delete(fd)) return
    this.#epoll.delete(fd)
    closeSync(fd)
  }

  close(): void {
    this.#epoll.close()
    for (const fd of this.#fds) closeSync(fd)
    this.#fds.clear()
  }
}

/** A set with a watcher for each descriptor. */
export class WatcherSet implements WatchSet {
  readonly #onReadable: (fd: number) => void
  readonly #watchers = new Map<number, Watcher>()

  constructor(onReadable: (fd: number) => void) {
    this.#onReadable = onReadable
  }

  get size(): number {
    return this.#watchers.size
  }

  add(fd: number): void {
    const watcher = new Watcher(fd, () => {
      watcher.rest()
      this.#onReadable(fd)
    })
    this.#watchers.set(fd, watcher)
    watcher.watch()
  }

  delete(fd: number): void {
    this.#watchers.get(fd)?.close()
    this.#watchers.delete(fd)
  }

  close(): void {
    for (const watcher of this.#watchers.values()) watcher.close()
    this.#watchers.clear()
  }
}

// Waiting for one descriptor, without reading from it and without a thread.
// There are two ways, with one interface: uv_poll, which is part of libuv and
// which only node:ffi can call (uv-poll.ts), and a read into an empty buffer,
// which works with every Node and in every thread (empty-read.ts).
// Read next: lib/wait/empty-read.ts.

import { isMainThread } from 'node:worker_threads'

import { engineName } from '../libc.ts'
import { EmptyRead } from './empty-read.ts'
import { UvPoll } from './uv-poll.ts'
import { whenWritable } from './writable.ts'

/** What waits for one descriptor, on behalf of the connection that owns it. */
export type Watcher = {
  /**
   * From here on the owner is told, again and again, while a read would not
   * block; and the process stays alive for it (but see keepAlive).
   */
  watch(): void
  /** Ends watch(). To change between the two costs next to nothing. */
  rest(): void
  /** Whether watch() keeps the process alive. It does at first. */
  keepAlive(keepsAlive: boolean): void
  /**
   * Sends bytes, which wait for room for as long as it takes. One write at a
   * time. `callback` is called once they are gone, or with the error.
   */
  write(bytes: Uint8Array, callback: (error?: Error | null) => void): unknown
  /**
   * Calls back once, when there may be room to send or when the peer is gone.
   * Never throws. Not while a write waits.
   *
   * @param tries how often in a row there was none
   * @returns ends the wait
   */
  whenWritable(tries: number, callback: () => void): () => void
  /** Closes the descriptor, at once. Nothing that waits gets its turn. */
  close(): void
}

/** The empty read, with whenWritable(), which it cannot do by itself. */
export class SocketWatcher extends EmptyRead implements Watcher {
  readonly #fd: number

  constructor(fd: number, onReadable: (failure?: Error) => void) {
    super(fd, onReadable)
    this.#fd = fd
  }

  whenWritable(tries: number, callback: () => void): () => void {
    return whenWritable(this.#fd, tries, callback)
  }
}

type WatcherClass = new (
  fd: number,
  onReadable: (failure?: Error) => void,
) => Watcher

/**
 * uv_poll where it can be had. Not in a worker thread: libuv aborts the whole
 * process if a thread ends while one of its handles is open.
 */
export function chooseWatcher(
  engine: typeof engineName,
  isMain: boolean,
): WatcherClass {
  return engine === 'node:ffi' && isMain ? UvPoll : SocketWatcher
}

/**
 * A watcher of `fd`, a stream socket, which it owns from here on: close()
 * closes it. It becomes non-blocking, for everyone who shares its open file
 * description.
 *
 * @param onReadable called while watch() is in force, again and again for as
 * long as a read would not block, which end of file, errors and a connection
 * to accept are too; with an error if this Node cannot wait
 * @throws Error EBADF; EPERM or ERR_INVALID_FD_TYPE for what cannot be waited
 * for, such as a file; then `fd` remains the caller's
 */
export const Watcher: WatcherClass = chooseWatcher(engineName, isMainThread)

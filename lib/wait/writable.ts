// Waiting for room in a full socket where uv_poll is not to be had. libuv does
// it for bytes (Socket.write), but not for a message with descriptors. On Linux
// one epoll instance waits for all full sockets together. Elsewhere, and where
// this process has no descriptor left for that, the send is tried again after
// a time.
// Read next: lib/wait/epoll.ts.

import { EPOLLOUT, Epoll } from './epoll.ts'

/** The first and the longest time between two tries, in ms. */
const FIRST_DELAY = 1
const LAST_DELAY = 32

const callbacks = new Map<number, () => void>()
let epoll: Epoll | undefined

/**
 * Calls back once, when there may be room in `fd`, or its peer is gone. Never
 * throws: its caller may be a microtask, where no error could be caught.
 *
 * @param tries how often in a row there was none
 * @returns ends the wait. To be called before `fd` is closed
 */
export function whenWritable(
  fd: number,
  tries: number,
  callback: () => void,
): () => void {
  try {
    epoll ??= new Epoll((ready) => {
      const call = callbacks.get(ready)
      forget(ready)
      call?.()
    })
    epoll.add(fd, EPOLLOUT)
  } catch {
    const delay = Math.min(FIRST_DELAY * 2 ** tries, LAST_DELAY)
    const timer = setTimeout(callback, delay)
    return () => clearTimeout(timer)
  }
  callbacks.set(fd, callback)
  return () => forget(fd)
}

function forget(fd: number): void {
  callbacks.delete(fd)
  epoll?.delete(fd)
}

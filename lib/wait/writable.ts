// Waiting for room in a full socket, for a message that cannot be left to
// libuv because it carries descriptors. Linux tells when there is some: then
// one epoll instance waits for all full sockets. Elsewhere the send has to be
// tried again after a time.

import { EPOLLOUT, Epoll } from './epoll.ts'

/** The first and the longest time between two tries, in ms. */
const FIRST_DELAY = 1
const LAST_DELAY = 32

const waiting = new Map<number, () => void>()
let epoll: Epoll | undefined

/**
 * Calls back once, when there may be room in `fd`, or its peer is gone.
 *
 * @param tries how often there was none, in a row
 * @returns ends the wait. To be called before `fd` is closed
 */
export function whenRoom(
  fd: number,
  tries: number,
  callback: () => void,
  canTell: boolean = process.platform === 'linux',
): () => void {
  if (!canTell) {
    const delay = Math.min(FIRST_DELAY * 2 ** tries, LAST_DELAY)
    const timer = setTimeout(callback, delay)
    return () => clearTimeout(timer)
  }
  epoll ??= new Epoll((ready) => {
    const call = waiting.get(ready)
    forget(ready)
    call?.()
  })
  waiting.set(fd, callback)
  epoll.add(fd, EPOLLOUT)
  return () => forget(fd)
}

function forget(fd: number): void {
  waiting.delete(fd)
  epoll?.delete(fd)
}

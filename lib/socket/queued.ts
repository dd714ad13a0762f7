// Descriptors that are in flight to a connection when it is closed: the kernel
// drops them then, and close(2) of the connection does what close(2) of each of
// them does. For a TCP socket with SO_LINGER, of which no other descriptor is
// open, that is to block for as long as its sender chose. So they are looked at
// before, and left where they are: taken out, they would be missing to a process
// to which the connection was passed on, and the peer would not be told
// (ECONNRESET) that its bytes were left unread.
//
// Open MSG_PEEK in recvmsg(2) and SO_PEEK_OFF in socket(7) beside it.
// Read next: lib/socket/batch.ts.

import { descriptorsIn } from '../cmsg.ts'
import { host } from '../layouts.ts'
import { RECEIVE_FLAGS, receiveNow } from '../message.ts'
import { setPeekOffset } from './options.ts'
import { closeReceived } from './unix.ts'

const MSG_PEEK = 2 // on every platform
const FLAGS = RECEIVE_FLAGS | MSG_PEEK

/**
 * Most calls for one connection. A look makes no room for the peer to send
 * more, so the end comes long before, unless another process that has the same
 * socket receives meanwhile.
 */
const MOST = 16_384

/** A call goes on behind the bytes that it gives, so most need only one. */
const DATA_ROOM = 64 * 1024

/**
 * Turns SO_LINGER off for every socket in flight to `fd`, a Unix stream socket
 * that is closed right after. Where nothing is queued, this is one system call.
 *
 * It does not reach what a queued socket has queued itself, nor what the peer
 * sends between this and close(2). shutdown(2) could refuse that, but also ends
 * the connection for a process to which it was passed on. Of a message for
 * which this process has too few free descriptors the rest is not reached.
 *
 * Linux only: the BSDs have no SO_PEEK_OFF, and a peek there gives no
 * descriptors.
 */
export function disarmQueued(fd: number): void {
  if (host.constants.SO_PEEK_OFF === 0) return
  const first = peek(fd)
  if (first <= 0) return
  setPeekOffset(fd, first)
  for (let calls = 1; calls < MOST && peek(fd) > 0; calls++);
  setPeekOffset(fd, -1) // for others that have the same socket
}

// The bytes that it has seen, at most up to the end of the first message with
// descriptors; or 0 or -errno where there are no more.
function peek(fd: number): number {
  const message = receiveNow(fd, DATA_ROOM, FLAGS)
  if (typeof message === 'number') return message
  for (const received of descriptorsIn(message.control)) closeReceived(received)
  return message.data.length
}

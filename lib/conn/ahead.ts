// Reading ahead, for a loop that takes whatever comes: where several messages
// have arrived they are taken out of the socket in one system call, and given
// back to the receiver, from which the loop, or whoever is quicker, gets them
// one by one. So they stay in order, whoever receives, and what a loop that is
// left has not taken is there for the next receiver.
//
// Not in a worker thread: what was read ahead would stay open for good if the
// thread was terminated before the loop had it.
// Read next: lib/conn/frames.ts.

import { constants } from 'node:os'
import { isMainThread } from 'node:worker_threads'

import { LARGE } from '../arrivals.ts'
import { host } from '../layouts.ts'
import { canBatch, MAX_BATCH, receiveBatch } from '../socket/batch.ts'
import { descriptorLimit } from '../socket/options.ts'
import { takeMessage } from './checks.ts'
import type { Limits, ReceivedFds } from './limits.ts'
import { descriptorsGivenBack, type Receiver } from './receiver.ts'

const EAGAIN = -constants.errno.EAGAIN

/** Of UnixConn.messages(). */
export async function* messagesOf(
  fd: number,
  receiver: Receiver,
  limits: Limits,
): AsyncGenerator<ReceivedFds, void, void> {
  const { maxBytes, maxFds, signal } = limits
  // How many to take in one call: twice as many as had arrived at the last one.
  // After a wait the first is taken alone, so that an owner who leaves after it
  // can hand the socket on with nothing lost.
  let size = 1
  for (;;) {
    let isDrained = false
    if (size > 1 && receiver.isIdle && isMainThread && canBatch()) {
      const batch = receiveBatch(fd, maxBytes, Math.min(size, batchLimit()))
      isDrained = batch === EAGAIN
      // recvmmsg(2) tells of an error before what has arrived, and only once.
      if (typeof batch === 'number' && !isDrained) receiver.failAtEnd(batch)
      size =
        typeof batch === 'number' ? 1 : Math.min(2 * batch.length, MAX_BATCH)
      if (typeof batch !== 'number') receiver.unshift(batch)
    }
    const early = signal?.aborted
      ? undefined
      : receiver.receiveGivenBack(maxFds, takeMessage)
    const message =
      early ?? (await receiver.receive(limits, takeMessage, isDrained))
    if (message === null) return
    // A batch would copy large data, which takes longer than a call.
    if (message.data.length >= LARGE) size = 1
    else if (size === 1) size = 2
    yield message
  }
}

// Without a limit, peers that send faster than they are served could use up the
// descriptor table. So at most half of it is read ahead, even if each message
// carries as many descriptors as it can.
function batchLimit(): number {
  const free = descriptorLimit() / 2 - descriptorsGivenBack()
  return Math.max(1, Math.floor(free / host.maxFds))
}

// Checks of what goes out and of what came in: data and descriptors before they
// are sent, messages before they are delivered. The kernel would take some of
// it and silently leave the descriptors behind, and refuse the rest with a bare
// EINVAL, long after the call. Partners: sender.ts and receiver.ts. Open
// sendmsg(2), recvmsg(2) and unix(7) beside it.
// Read next: lib/conn/sender.ts.

import {
  buildRights,
  descriptorsIn,
  isRights,
  parseControlMessages,
  parseUnixRights,
  splitDescriptors,
} from '../cmsg.ts'
import { host } from '../layouts.ts'
import {
  CONTROL_ROOM,
  maxFdsPerMessage,
  type Outgoing,
  type Received,
} from '../message.ts'
import { descriptorLimit } from '../socket/options.ts'
import { isOtherEnd } from '../socket/peer.ts'
import { closeReceived } from '../socket/unix.ts'
import type { ReceivedFds } from './limits.ts'

const NOTHING = Buffer.alloc(0)

/** As many descriptors as a message can carry on every platform. */
const SURE_TO_FIT = 252

/**
 * What sendmsg is given, checked and, but for the data, copied.
 *
 * @throws TypeError, RangeError for what the kernel would take and silently
 * send without its descriptors, or refuse with a bare EINVAL
 */
export function prepare(
  data: string | Uint8Array,
  control: Uint8Array = NOTHING,
): Outgoing {
  const bytes = bytesOf(data)
  if (!(control instanceof Uint8Array)) {
    throw new TypeError(`Expected control as Uint8Array, got ${control}`)
  }
  if (control.length === 0) return { data: bytes, control: NOTHING }

  const messages = parseControlMessages(control)
  if (messages.length === 0 || control.length > CONTROL_ROOM) {
    throw new RangeError(
      `Expected control messages of at most ${CONTROL_ROOM} bytes, ` +
        `got ${control.length} bytes`,
    )
  }
  const rights = messages.filter((message) => isRights(message))
  const fds = rights.flatMap((message) => parseUnixRights(message))
  checkRights(bytes, fds.length)
  // An SCM_RIGHTS message without descriptors: darwin's sendmsg takes none.
  const isEmpty = fds.length === 0 && rights.length === messages.length
  return { data: bytes, control: isEmpty ? NOTHING : Buffer.from(control) }
}

/** The same for descriptors alone, of which there is at least one. */
export function prepareRights(
  data: string | Uint8Array,
  fds: readonly number[],
): Outgoing {
  const bytes = bytesOf(data)
  checkRights(bytes, fds.length)
  return { data: bytes, control: buildRights(fds) }
}

function bytesOf(data: string | Uint8Array): Uint8Array {
  if (typeof data === 'string') return Buffer.from(data)
  if (data instanceof Uint8Array) {
    // A detached one has the length 0 as well, but a new view of it throws.
    if (data.length === 0) new Uint8Array(data.buffer)
    return data
  }
  throw new TypeError(`Expected data as string or Uint8Array, got ${data}`)
}

function checkRights(data: Uint8Array, count: number): void {
  if (count > SURE_TO_FIT && count > maxFdsPerMessage()) {
    throw new RangeError(
      `Expected at most ${maxFdsPerMessage()} descriptors in a message, ` +
        `got ${count}`,
    )
  }
  if (count > 0 && data.length === 0) {
    throw new RangeError(
      'Expected at least one byte of data beside the descriptors, got none: ' +
        'a stream carries descriptors with a byte, and drops them without one',
    )
  }
}

/** Whether it is no message but the end of file. */
export function isEnd({ data, control }: Received): boolean {
  // Recent FreeBSD brings descriptors with zero bytes. Credentials may stand
  // beside an end of file (SO_PASSCRED).
  return data.length === 0 && descriptorsIn(control).length === 0
}

/**
 * The message. If it must not be delivered, closes what came with it and throws
 * why.
 *
 * @throws Error ERR_FDS_TRUNCATED, ERR_TOO_MANY_FDS: see UnixConn.recvmsg
 */
export function checkReceived(message: Received, maxFds: number): Received {
  const { data, control, flags } = message
  const isCut = (flags & host.constants.MSG_CTRUNC) !== 0
  // To count takes time, which the usual call does not need.
  if (!isCut && maxFds === Number.POSITIVE_INFINITY) return message
  const got = descriptorsIn(control).length
  if (!isCut && got <= maxFds) return message
  closeDescriptorsOf(message)
  throw isCut ? truncated(got, data) : tooMany(maxFds, got, data)
}

/**
 * The descriptors of all rights in a message, from then on the caller's; any
 * other is closed. Where a part makes no sense, or there are more than `maxFds`
 * of them, nothing is kept of the whole.
 *
 * @throws Error ERR_TOO_MANY_FDS; any other for bytes that are no control
 * message
 */
export function takeRights(message: Received, maxFds: number): number[] {
  if (message.control.length === 0) return []
  try {
    const { rights, others } = splitDescriptors(message.control)
    if (rights.length > maxFds) {
      throw tooMany(maxFds, rights.length, message.data)
    }
    closeAll(others.filter((fd) => fd >= 0))
    return rights
  } catch (error) {
    closeDescriptorsOf(message)
    throw error
  }
}

/**
 * A message taken apart, as checkReceived and takeRights allow it. takeRights
 * counts, as it alone can tell the rights from a pidfd.
 */
export function takeApart(message: Received, maxFds: number): ReceivedFds {
  checkReceived(message, Number.POSITIVE_INFINITY)
  return { data: message.data, fds: takeRights(message, maxFds) }
}

/**
 * To be asked of descriptors that are kept for later: one that is the other end
 * of `own`, over which it came, would keep that connection open for ever.
 *
 * @throws Error ERR_OTHER_END, with nothing closed
 */
export function refuseOtherEnd(fds: readonly number[], own: number): void {
  if (!fds.some((fd) => isOtherEnd(fd, own))) return
  throw Object.assign(
    new Error('Expected descriptors, got the other end of this connection'),
    { code: 'ERR_OTHER_END' },
  )
}

/** Closes what came with a message that is not delivered. */
export function closeDescriptorsOf({ control }: Received): void {
  closeAll(descriptorsIn(control))
}

/** Closes received descriptors that are not delivered, or not wanted. */
export function closeAll(fds: readonly number[]): void {
  for (const fd of fds) closeReceived(fd)
}

function truncated(got: number, data: Buffer): Error {
  return Object.assign(
    new Error(
      'Expected whole ancillary data, got it truncated (MSG_CTRUNC): ' +
        `closed the ${got} descriptors that came; is the limit of open ` +
        `descriptors (${descriptorLimit()}, RLIMIT_NOFILE) reached?`,
    ),
    { code: 'ERR_FDS_TRUNCATED', data },
  )
}

function tooMany(maxFds: number, got: number, data: Buffer): Error {
  return Object.assign(
    new Error(`Expected at most ${maxFds} descriptors, got ${got}: closed all`),
    { code: 'ERR_TOO_MANY_FDS', data },
  )
}

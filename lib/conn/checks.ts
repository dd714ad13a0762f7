// Checks of what goes out and of what came in: data and descriptors before they
// are sent, messages before they are delivered. The kernel would take some of
// it and silently leave the descriptors behind, and refuse the rest with a bare
// EINVAL, long after the call. Partners: sender.ts and receiver.ts. Open
// sendmsg(2), recvmsg(2) and unix(7) beside it.
// Read next: lib/conn/sender.ts.

import { readlinkSync } from 'node:fs'
import { constants } from 'node:os'
import { isUint8Array } from 'node:util/types'

import {
  buildRights,
  descriptorsIn,
  isRights,
  parseControlMessages,
  parseUnixRights,
  takeApart,
} from '../cmsg.ts'
import { host } from '../layouts.ts'
import { CONTROL_ROOM, type Outgoing, type Received } from '../message.ts'
import { maxFdsPerMessage } from '../socket/c-library.ts'
import {
  descriptorLimit,
  isHungUp,
  isOpen,
  sendBufferSize,
  unreadBytes,
} from '../socket/options.ts'
import { closeReceived } from '../socket/unix.ts'
import { codedError } from '../wait/errors.ts'
import type { ReceivedFds } from './limits.ts'

const NOTHING = Buffer.alloc(0)

/** As many descriptors as a message can carry on every platform. */
const SURE_TO_FIT = 252

/**
 * What sendmsg is given, checked and, but for the data, copied.
 *
 * @param needsByte whether descriptors need a byte of data to ride on, as they
 * do on a stream
 * @throws TypeError, RangeError for what the kernel would take and silently
 * send without its descriptors, or refuse with a bare EINVAL
 */
export function prepare(
  data: string | Uint8Array,
  control: Uint8Array = NOTHING,
  needsByte = true,
): Outgoing {
  const bytes = bytesOf(data)
  if (!isUint8Array(control)) {
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
  const rights = messages.filter((message) => isRights(message, host))
  const fds = rights.flatMap((message) => parseUnixRights(message))
  checkRights(bytes, fds.length, needsByte)
  // An SCM_RIGHTS message without descriptors: darwin's sendmsg takes none.
  const isEmpty = fds.length === 0 && rights.length === messages.length
  return { data: bytes, control: isEmpty ? NOTHING : Buffer.from(control) }
}

/** The same for descriptors alone. */
export function prepareRights(
  data: string | Uint8Array,
  fds: readonly number[],
  needsByte = true,
): Outgoing {
  const bytes = bytesOf(data)
  if (fds.length === 0) return { data: bytes, control: NOTHING }
  checkRights(bytes, fds.length, needsByte)
  return { data: bytes, control: buildRights(fds, host) }
}

// Of another realm too (vm, jest), for which instanceof says no.
function bytesOf(data: string | Uint8Array): Uint8Array {
  if (typeof data === 'string') return Buffer.from(data)
  if (isUint8Array(data)) {
    // A detached one has 0 bytes as well, but a new view of it throws. (Not the
    // length 0, in code that V8 has optimized: see whyChanged.)
    if (data.byteLength === 0) new Uint8Array(data.buffer)
    return data
  }
  throw new TypeError(`Expected data as string or Uint8Array, got ${data}`)
}

function checkRights(
  data: Uint8Array,
  count: number,
  needsByte: boolean,
): void {
  if (count > SURE_TO_FIT && count > maxFdsPerMessage()) {
    throw new RangeError(
      `Expected at most ${maxFdsPerMessage()} descriptors in a message, ` +
        `got ${count}`,
    )
  }
  if (count > 0 && data.length === 0 && needsByte) {
    throw new RangeError(
      'Expected at least one byte of data beside the descriptors, got none: ' +
        'a stream carries descriptors with a byte, and drops them without one',
    )
  }
}

/**
 * Why the kernel did not send a message, in words: which descriptor is not open
 * (EBADF), how large is too large (EMSGSIZE), what cannot be passed (EINVAL).
 */
export function whyNotSent(
  errno: number,
  fd: number,
  { data, control }: Outgoing,
): string {
  const { EBADF, EMSGSIZE, EINVAL } = constants.errno
  if (errno === EMSGSIZE) {
    return `${data.length} bytes, of at most ${sendBufferSize(fd)} (SO_SNDBUF)`
  }
  if (control.length === 0) return ''
  const sent = descriptorsIn(control)
  if (errno === EBADF) {
    const closed = sent.find((descriptor) => !isOpen(descriptor))
    return closed === undefined ? '' : `descriptor ${closed}`
  }
  const ring = errno === EINVAL ? sent.find(isIoUring) : undefined
  return ring === undefined
    ? ''
    : `descriptor ${ring}: an io_uring cannot be passed`
}

function isIoUring(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).includes('[io_uring]')
  } catch {
    return false
  }
}

/**
 * Whether it is no message but the end of file. On a stream nothing else has no
 * bytes; a socket of messages (seqpacket) may bring an empty one, which the
 * kernel does not mark: without a control message it is taken for the end if
 * the peer has hung up and no bytes are behind it.
 */
export function isEnd(
  { data, control }: Received,
  isStream: boolean,
  fd: number,
): boolean {
  if (data.length > 0) return false
  if (!isStream) {
    return control.length === 0 && isHungUp(fd) && unreadBytes(fd) === 0
  }
  // Recent FreeBSD brings descriptors with zero bytes. Credentials may stand
  // beside an end of file (SO_PASSCRED).
  return descriptorsIn(control).length === 0
}

/**
 * The message. If it must not be delivered, closes what came with it and throws
 * why.
 *
 * @throws Error ERR_FDS_TRUNCATED, ERR_TOO_MANY_FDS, ERR_MESSAGE_TRUNCATED: see
 * UnixConn.recvmsg
 */
export function checkReceived(message: Received, maxFds: number): Received {
  const { data, control, flags } = message
  const { MSG_CTRUNC, MSG_TRUNC } = host.constants
  // To count takes time, which the usual call does not need.
  if (flags === 0 && maxFds === Number.POSITIVE_INFINITY) return message
  const got = descriptorsIn(control).length
  if (flags === 0 && got <= maxFds) return message
  closeDescriptorsOf(message)
  if (flags & MSG_CTRUNC) throw truncated(got, data)
  if (flags & MSG_TRUNC) throw messageTruncated(message)
  throw tooMany(maxFds, got, data)
}

/**
 * A message taken apart. The descriptors of all rights in it are from then on
 * the caller's; any other is closed. Where a part makes no sense, or there are
 * more than `maxFds` of them, nothing is kept of the whole.
 *
 * @throws Error as checkReceived; any other for bytes that are no control
 * message
 */
export function takeMessage(message: Received, maxFds: number): ReceivedFds {
  // Not for the number of descriptors, of which a pidfd is none.
  checkReceived(message, Number.POSITIVE_INFINITY)
  const { data, control } = message
  if (control.length === 0) return { data, fds: [] }
  try {
    const { rights, others, credentials } = takeApart(control, host)
    if (rights.length > maxFds) throw tooMany(maxFds, rights.length, data)
    closeAll(others.filter((fd) => fd >= 0))
    return credentials
      ? { data, fds: rights, credentials }
      : { data, fds: rights }
  } catch (error) {
    closeDescriptorsOf(message)
    throw error
  }
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
  return codedError(
    'ERR_FDS_TRUNCATED',
    'Expected whole ancillary data, got it truncated (MSG_CTRUNC): ' +
      `closed the ${got} descriptors that came; is the limit of open ` +
      `descriptors (${descriptorLimit()}, RLIMIT_NOFILE) reached?`,
    { data },
  )
}

// Linux tells the length of the whole, for datagrams.
function messageTruncated({ data, length }: Received & { length?: number }) {
  const whole = length === undefined ? 'a longer one' : `one of ${length}`
  return codedError(
    'ERR_MESSAGE_TRUNCATED',
    `Expected a message of at most ${data.length} bytes, got ${whole}`,
    { data },
  )
}

function tooMany(maxFds: number, got: number, data: Buffer): Error {
  return codedError(
    'ERR_TOO_MANY_FDS',
    `Expected at most ${maxFds} descriptors, got ${got}: closed all`,
    { data },
  )
}

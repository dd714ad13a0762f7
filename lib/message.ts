// sendmsg(2) and recvmsg(2) on a non-blocking socket, one message a call.
// Nothing here waits: -EAGAIN is a result like any other, and the callers in
// lib/conn/ wait for the socket and try again.
//
// All calls share one stretch of memory, laid out once, which is safe because
// each of them copies in, runs and copies out before it returns:
//
//    msghdr | iovec | control buffer | data to send
//
// Data that arrives has memory of its own, where it can stay (see receiveNow).
// Several messages in one call, which is faster: lib/socket/batch.ts.
// Read next: lib/ffi/types.ts.

import { Buffer } from 'node:buffer'
import { constants } from 'node:os'
import { markAsUntransferable } from 'node:worker_threads'

import { buildRights, cmsgSpace, descriptorsIn } from './cmsg.ts'
import { host } from './layouts.ts'
import { allocate, check, declare, locate } from './libc.ts'
import { initMsghdr, readMsghdr, setParts } from './msghdr.ts'

/** One message, as recvmsg(2) returns it. */
export type Received = {
  readonly data: Buffer
  /** The control buffer, as far as it was filled. See parseControlMessages. */
  readonly control: Buffer
  /** msg_flags: MSG_TRUNC and MSG_CTRUNC only, other bits are masked. */
  readonly flags: number
}

/** One message, as sendmsg(2) takes it. */
export type Outgoing = {
  readonly data: Uint8Array
  /** Control messages, such as unixRights() builds, or nothing. */
  readonly control: Uint8Array
}

// ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
const sendmsg = declare('sendmsg', 'size', ['int', 'pointer', 'int'])
// ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
const recvmsg = declare('recvmsg', 'size', ['int', 'pointer', 'int'])
// int ioctl(int fd, unsigned long request, ...)
const ioctl = declare('ioctl', 'int', ['int', 'uint'])

const { MSG_DONTWAIT, MSG_NOSIGNAL, MSG_CMSG_CLOEXEC } = host.constants
export const SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL
export const RECEIVE_FLAGS = MSG_DONTWAIT | MSG_CMSG_CLOEXEC

/** Most bytes in one call, and so in one message: the rest goes in the next. */
export const MAX_BYTES = 4 * 1024 * 1024

// Room for as many descriptors as the platform can bring (254 on the BSDs), and
// for credentials, pidfd, security labels before them. A smaller buffer would
// lose descriptors, which darwin leaves open under numbers it does not report.
export const CONTROL_ROOM = cmsgSpace(254 * 4) + 8 * cmsgSpace(32)

const IOVEC = host.msghdr.size
const CONTROL = IOVEC + host.iovec.size
const DATA = CONTROL + CONTROL_ROOM

const memory = allocate(DATA + MAX_BYTES)
initMsghdr(memory.bytes, 0, memory.base + IOVEC, host)

/** Data of so many bytes stays where it was received. */
export const LARGE = 16 * 1024

/** Where data arrives, in bytes: for several large messages. */
const ARRIVALS_SIZE = 256 * 1024

let arrivals = allocate(0)
/** So many bytes of it, from the start, belong to messages that stay there. */
let taken = 0

/**
 * Sends a message, as far as the kernel takes it at once.
 *
 * @returns the bytes taken, which may be fewer than there are, or -errno.
 * Descriptors go with the first byte: after a short send the rest must go
 * without them
 */
export function sendNow(fd: number, { data, control }: Outgoing): number {
  const part = data.length > MAX_BYTES ? data.subarray(0, MAX_BYTES) : data
  memory.bytes.set(part, DATA)
  memory.bytes.set(control, CONTROL)
  place(memory.base + DATA, part.length, control.length)
  return sendmsg(fd, memory.address, SEND_FLAGS)
}

/**
 * Receives one message of up to `maxBytes` bytes. The descriptors in it are
 * close-on-exec and belong to the caller. End of file is a message without data
 * and control.
 *
 * @param flags of recvmsg(2), RECEIVE_FLAGS among them
 * @returns the message, or -errno if there was none
 */
export function receiveNow(
  fd: number,
  maxBytes: number,
  flags = RECEIVE_FLAGS,
): Received | number {
  const room = Math.min(maxBytes, MAX_BYTES)
  if (arrivals.bytes.length - taken < room) {
    // Not zeroed, which would take as long as to copy the data.
    const size = Math.max(room, ARRIVALS_SIZE)
    arrivals = locate(Buffer.allocUnsafeSlow(size))
    // Whoever transfers one message to a worker thread must not take away the
    // memory of the others.
    markAsUntransferable(arrivals.bytes.buffer)
    taken = 0
  }
  place(arrivals.base + taken, room, CONTROL_ROOM)
  const length = recvmsg(fd, memory.address, flags)
  if (length < 0) return length

  const header = readMsghdr(memory.bytes, 0, host)
  const control = copyOf(memory.bytes, CONTROL, header.controlLength)
  closeOnExec(control)
  // A message that stays keeps all of this memory, so small ones do not; nor
  // does one for which there was much more room, as each would need new memory.
  const stays = length >= LARGE && length >= room / 4
  const { bytes } = arrivals
  const data = stays
    ? bytes.subarray(taken, taken + length)
    : copyOf(bytes, taken, length)
  if (stays) taken += length
  return { data, control, flags: knownFlags(header.flags) }
}

/** MSG_TRUNC and MSG_CTRUNC of `flags`, without its other bits. */
export function knownFlags(flags: number): number {
  // The BSDs echo the flags of the call, Linux MSG_CMSG_CLOEXEC.
  return flags & (host.constants.MSG_TRUNC | host.constants.MSG_CTRUNC)
}

/** Copies `length` bytes. What subarray() gives would share the memory. */
export function copyOf(bytes: Buffer, at: number, length: number): Buffer {
  const copy = Buffer.allocUnsafe(length)
  bytes.copy(copy, 0, at, at + length)
  return copy
}

/**
 * Most descriptors that one message may carry here. musl before 1.2.4 copies
 * the control buffer into 1024 bytes of its own and says ENOMEM where 253
 * descriptors need more (src/network/sendmsg.c). So libc is asked: with a
 * socket of -1, EBADF means that the kernel saw the call.
 */
export function maxFdsPerMessage(): number {
  const control = buildRights(new Array<number>(host.maxFds).fill(0))
  memory.bytes.set(control, CONTROL)
  place(memory.base + DATA, 1, control.length)
  const refusedByLibc =
    sendmsg(-1, memory.address, 0) === -constants.errno.ENOMEM
  return refusedByLibc ? Math.min(host.maxFds, 252) : host.maxFds
}

// Without MSG_CMSG_CLOEXEC (darwin) a child that another thread starts between
// recvmsg and this inherits the descriptors: no call does both.
function closeOnExec(control: Buffer): void {
  if (MSG_CMSG_CLOEXEC !== 0) return
  for (const received of descriptorsIn(control)) {
    check('ioctl', ioctl(received, host.constants.FIOCLEX))
  }
}

// Points the header to the data and to the control buffer.
function place(data: number, dataLength: number, controlLength: number): void {
  const control = memory.base + CONTROL
  const parts = { data, dataLength, control, controlLength }
  setParts(memory.bytes, 0, IOVEC, parts, host)
}

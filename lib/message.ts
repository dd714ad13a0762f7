// sendmsg(2) and recvmsg(2) on a non-blocking socket, one message or several
// in one call. Nothing here waits: -EAGAIN is a result like any other, and the
// callers in lib/conn/ wait for the socket and try again.
//
// All calls share one stretch of memory, laid out once, which is safe because
// each of them copies in, runs and copies out before it returns:
//
//    headers | iovecs | control buffers | data
// Read next: lib/ffi/types.ts.

import { Buffer } from 'node:buffer'
import { constants } from 'node:os'

import { buildRights, cmsgSpace, descriptorsIn } from './cmsg.ts'
import { host } from './layouts.ts'
import { allocate, check, declare, hasFunction, NULL } from './libc.ts'
import { initMsghdr, readMsghdr, readMsgLen, setParts } from './msghdr.ts'

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
// int sendmmsg(int fd, struct mmsghdr *msgs, unsigned vlen, int flags)
const sendmmsg = declare('sendmmsg', 'int', ['int', 'pointer', 'uint', 'int'])
// int recvmmsg(int fd, struct mmsghdr *msgs, unsigned vlen, int flags,
//              struct timespec *timeout)
const timed = ['int', 'pointer', 'uint', 'int', 'pointer'] as const
const recvmmsg = declare('recvmmsg', 'int', timed)
// int ioctl(int fd, unsigned long request, ...)
const ioctl = declare('ioctl', 'int', ['int', 'uint'])

/**
 * Most messages in one call: several only with glibc, where sendmmsg and
 * recvmmsg are the kernel's, which stops after a short send. In musl sendmmsg
 * is a loop that goes on (src/network/sendmmsg.c), and puts the next message
 * inside the one that was cut; FreeBSD's are loops too, and darwin has none.
 */
export const MAX_BATCH = hasFunction('gnu_get_libc_version') ? 64 : 1

const { MSG_DONTWAIT, MSG_NOSIGNAL, MSG_CMSG_CLOEXEC } = host.constants
const SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL
const RECEIVE_FLAGS = MSG_DONTWAIT | MSG_CMSG_CLOEXEC

/** Most bytes in one call, and so in one message: the rest goes in the next. */
const MAX_BYTES = 4 * 1024 * 1024

// Room for as many descriptors as the platform can bring (254 on the BSDs), and
// for credentials, pidfd, security labels before them. A smaller buffer would
// lose descriptors, which darwin leaves open under numbers it does not report.
export const CONTROL_ROOM = cmsgSpace(254 * 4) + 8 * cmsgSpace(32)

const HEADER_SIZE = Math.max(host.mmsghdr.size, host.msghdr.size)
const IOVECS = MAX_BATCH * HEADER_SIZE
const CONTROLS = IOVECS + MAX_BATCH * host.iovec.size
const DATA = CONTROLS + MAX_BATCH * CONTROL_ROOM

const memory = allocate(DATA + MAX_BYTES)

for (let slot = 0; slot < MAX_BATCH; slot++) {
  const iov = memory.base + IOVECS + slot * host.iovec.size
  initMsghdr(memory.bytes, slot * HEADER_SIZE, iov, host)
}

/**
 * Sends `messages`, in order, as far as the kernel takes them at once.
 *
 * @returns the bytes taken of each message that was taken, of which the last
 * may be short; or -errno if none was taken. Descriptors go with the first
 * byte of their message: after a short send the rest must go without them.
 */
export function sendNow(
  fd: number,
  messages: readonly Outgoing[],
): number[] | number {
  let count = 0
  let used = 0
  for (const { data, control } of messages) {
    const room = MAX_BYTES - used
    if (count === MAX_BATCH || room === 0) break
    const taken = data.length > room ? data.subarray(0, room) : data
    place(count, DATA + used, taken.length, control.length)
    memory.bytes.set(taken, DATA + used)
    memory.bytes.set(control, CONTROLS + count * CONTROL_ROOM)
    count++
    used += taken.length
  }

  if (count === 1) {
    const sent = sendmsg(fd, memory.address, SEND_FLAGS)
    return sent < 0 ? sent : [sent]
  }
  const sent = sendmmsg(fd, memory.address, count, SEND_FLAGS)
  if (sent < 0) return sent
  const lengths: number[] = []
  for (let slot = 0; slot < sent; slot++) {
    lengths.push(readMsgLen(memory.bytes, slot * HEADER_SIZE, host))
  }
  return lengths
}

/**
 * Receives up to `count` messages of up to `maxBytes` bytes each, as far as
 * they have arrived. The descriptors in them are close-on-exec and belong to
 * the caller. End of file is a message without data and control.
 *
 * @returns the messages, or -errno if there was none
 */
export function receiveNow(
  fd: number,
  maxBytes: number,
  count: number,
): Received[] | number {
  const room = Math.min(maxBytes, MAX_BYTES)
  const slots = Math.min(count, MAX_BATCH, Math.floor(MAX_BYTES / room))
  for (let slot = 0; slot < slots; slot++) {
    place(slot, DATA + slot * room, room, CONTROL_ROOM)
  }

  if (slots === 1) {
    const length = recvmsg(fd, memory.address, RECEIVE_FLAGS)
    return length < 0 ? length : [take(0, DATA, length)]
  }
  const filled = recvmmsg(fd, memory.address, slots, RECEIVE_FLAGS, NULL)
  if (filled < 0) return filled
  const messages: Received[] = []
  for (let slot = 0; slot < filled; slot++) {
    const length = readMsgLen(memory.bytes, slot * HEADER_SIZE, host)
    messages.push(take(slot, DATA + slot * room, length))
  }
  return messages
}

/**
 * Most descriptors that one message may carry here. musl before 1.2.4 copies
 * the control buffer into 1024 bytes of its own and says ENOMEM where 253
 * descriptors need more (src/network/sendmsg.c). So libc is asked: with a
 * socket of -1, EBADF means that the kernel saw the call.
 */
export function maxFdsPerMessage(): number {
  const control = buildRights(new Array<number>(host.maxFds).fill(0))
  memory.bytes.set(control, CONTROLS)
  place(0, DATA, 1, control.length)
  const refusedByLibc =
    sendmsg(-1, memory.address, 0) === -constants.errno.ENOMEM
  return refusedByLibc ? Math.min(host.maxFds, 252) : host.maxFds
}

// Copies one received message out of the shared memory.
function take(slot: number, data: number, length: number): Received {
  const { MSG_TRUNC, MSG_CTRUNC, FIOCLEX } = host.constants
  const header = readMsghdr(memory.bytes, slot * HEADER_SIZE, host)
  const controlAt = CONTROLS + slot * CONTROL_ROOM
  const control = copyOut(controlAt, header.controlLength)
  // Without MSG_CMSG_CLOEXEC (darwin) a child that another thread starts
  // between these two calls inherits the descriptors: no call does both.
  if (MSG_CMSG_CLOEXEC === 0) {
    for (const received of descriptorsIn(control)) {
      check('ioctl', ioctl(received, FIOCLEX))
    }
  }
  return {
    data: copyOut(data, length),
    control,
    // The BSDs echo the flags of the call, Linux MSG_CMSG_CLOEXEC.
    flags: header.flags & (MSG_TRUNC | MSG_CTRUNC),
  }
}

function copyOut(at: number, length: number): Buffer {
  return Buffer.from(memory.bytes.subarray(at, at + length))
}

// Points the header of a slot to its data and control buffer.
function place(
  slot: number,
  data: number,
  dataLength: number,
  controlLength: number,
): void {
  const control = memory.base + CONTROLS + slot * CONTROL_ROOM
  const parts = { data: memory.base + data, dataLength, control, controlLength }
  const iov = IOVECS + slot * host.iovec.size
  setParts(memory.bytes, slot * HEADER_SIZE, iov, parts, host)
}

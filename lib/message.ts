// sendmsg(2) and recvmsg(2), one message a call. Nothing here waits, whatever
// O_NONBLOCK says: -EAGAIN is a result like any other, and the callers in
// lib/conn/ wait for the socket and try again.
//
// All calls share one stretch of memory, laid out once, which is safe because
// each of them copies in, runs and copies out before it returns:
//
//    msghdr | iovec | control buffer | data to send
//
// Large data is sent from where it lies. Data that arrives has memory of its
// own (arrivals.ts). Several messages in one call, which is faster:
// lib/socket/batch.ts. Read next: lib/arrivals.ts.

import type { Buffer } from 'node:buffer'

import { copyOf, LARGE, roomFor, takeArrived } from './arrivals.ts'
import { cmsgSpace, descriptorsIn } from './cmsg.ts'
import { host } from './layouts.ts'
import { addressOf, allocate, check, declare, NULL } from './libc.ts'
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
export const sendmsg = declare('sendmsg', 'size', ['int', 'pointer', 'int'])
// ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
export const recvmsg = declare('recvmsg', 'size', ['int', 'pointer', 'int'])
// int ioctl(int fd, unsigned long request, void *argument)
export const ioctl = declare('ioctl', 'int', ['int', 'uint', 'pointer'])

const { MSG_DONTWAIT, MSG_NOSIGNAL, MSG_CMSG_CLOEXEC } = host.constants
export const SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL
export const RECEIVE_FLAGS = MSG_DONTWAIT | MSG_CMSG_CLOEXEC

/** At most so many bytes are received in one call. */
export const MAX_BYTES = 4 * 1024 * 1024

/** At most so many are sent: more do not fit a length of 32 bits. */
export const MAX_SEND = 0x7fffffff

// Room for as many descriptors as the platform can bring (254 on the BSDs), and
// for credentials, pidfd, security labels before them. A smaller buffer would
// lose descriptors, which darwin leaves open under numbers it does not report.
export const CONTROL_ROOM = cmsgSpace(254 * 4) + 8 * cmsgSpace(32)

const IOVEC = host.msghdr.size
const CONTROL = IOVEC + host.iovec.size
const DATA = CONTROL + CONTROL_ROOM

const memory = allocate(DATA + LARGE)
initMsghdr(memory.bytes, 0, memory.base + IOVEC, host)

/**
 * Sends a message, as far as the kernel takes it at once.
 *
 * @returns the bytes taken, which may be fewer than there are, or -errno.
 * Descriptors go with the first byte: after a short send the rest must go
 * without them
 */
export function sendNow(fd: number, { data, control }: Outgoing): number {
  const length = Math.min(data.length, MAX_SEND)
  memory.bytes.set(control, CONTROL)
  place(addressToSend(data), length, control.length)
  return sendmsg(fd, memory.address, SEND_FLAGS)
}

/**
 * Receives one message of up to `maxBytes` bytes. The descriptors in it are
 * close-on-exec and belong to the caller. End of file is a message without data
 * and control.
 *
 * @returns the message, or -errno if there was none
 */
export function receiveNow(fd: number, maxBytes: number): Received | number {
  const room = Math.min(maxBytes, MAX_BYTES)
  place(roomFor(room), room, CONTROL_ROOM)
  const length = recvmsg(fd, memory.address, RECEIVE_FLAGS)
  if (length < 0) return length

  const { controlLength, flags } = readMsghdr(memory.bytes, 0, host)
  const control = copyOf(memory.bytes, CONTROL, controlLength)
  closeOnExec(control)
  return { data: takeArrived(length, room), control, flags: known(flags) }
}

/** MSG_TRUNC and MSG_CTRUNC of `flags`, without its other bits. */
export function known(flags: number): number {
  // The BSDs echo the flags of the call, Linux MSG_CMSG_CLOEXEC.
  return flags & (host.constants.MSG_TRUNC | host.constants.MSG_CTRUNC)
}

/**
 * Where data can be sent from in the next call. While a call runs no JavaScript
 * does, so nothing moves or frees the memory of large data. That of small data
 * may lie inside an object, and is copied.
 */
export function addressToSend(data: Uint8Array): number {
  if (data.length >= LARGE) return addressOf(data)
  memory.bytes.set(data, DATA)
  return memory.base + DATA
}

/**
 * Makes what came with a control buffer close-on-exec. Without MSG_CMSG_CLOEXEC
 * (darwin) a child that another thread starts between recvmsg and this inherits
 * the descriptors: no call does both.
 */
export function closeOnExec(control: Buffer): void {
  if (MSG_CMSG_CLOEXEC !== 0) return
  for (const received of descriptorsIn(control)) {
    check('ioctl', ioctl(received, host.constants.FIOCLEX, NULL))
  }
}

// Points the header to the data and to the control buffer.
function place(data: number, dataLength: number, controlLength: number): void {
  const control = memory.base + CONTROL
  const parts = { data, dataLength, control, controlLength }
  setParts(memory.bytes, 0, IOVEC, parts, host)
}

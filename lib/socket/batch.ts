// Several messages in one call, sendmmsg(2) and recvmmsg(2): the time for the
// call is spent once for all of them. Used where more than one message is in
// line; a single one goes through message.ts.
// Optional: speed. The memory is laid out in this order:
//
//    mmsghdrs | iovecs | control buffers | data
//
// Open sendmmsg(2) and recvmmsg(2) beside it.
// Read next: lib/conn/conn.ts.

import { constants } from 'node:os'

import { copyOf, LARGE } from '../arrivals.ts'
import { host } from '../layouts.ts'
import { addressOf, allocate, declare, NULL } from '../libc.ts'
import {
  CONTROL_ROOM,
  known,
  MAX_BYTES,
  MAX_SEND,
  type Outgoing,
  RECEIVE_FLAGS,
  type Received,
  SEND_FLAGS,
  sendNow,
} from '../message.ts'
import { initMsghdr, readMsghdr, setParts } from '../msghdr.ts'
import { hasBatchCalls } from './c-library.ts'

// int sendmmsg(int fd, struct mmsghdr *msgs, unsigned vlen, int flags)
const sendmmsg = declare('sendmmsg', 'int', ['int', 'pointer', 'uint', 'int'])
// int recvmmsg(int fd, struct mmsghdr *msgs, unsigned vlen, int flags,
//              struct timespec *timeout)
const recvmmsg = declare('recvmmsg', 'int', [
  'int',
  'pointer',
  'uint',
  'int',
  'pointer',
])

const { ENOSYS, EPERM } = constants.errno

/** At most so many messages in one call. */
export const MAX_BATCH = 64

const { mmsghdr, iovec } = host
const IOVECS = MAX_BATCH * mmsghdr.size
const CONTROLS = IOVECS + MAX_BATCH * iovec.size
const DATA = CONTROLS + MAX_BATCH * CONTROL_ROOM

const memory = allocate(DATA + MAX_BYTES)

for (let slot = 0; slot < MAX_BATCH; slot++) {
  const iov = memory.base + IOVECS + slot * iovec.size
  initMsghdr(memory.bytes, slot * mmsghdr.size, iov, host)
}

/** Whether this system has the calls, as far as is known. */
let isPossible = hasBatchCalls

/** Whether there is more than one message in a call. */
export function canBatch(): boolean {
  return isPossible
}

/**
 * Sends `messages`, in order, as far as the kernel takes them at once.
 *
 * @returns the bytes taken of each message that was taken, of which the last
 * may be short, as of sendNow(); or -errno if none was taken
 */
export function sendBatch(
  fd: number,
  messages: readonly Outgoing[],
): number[] | number {
  let count = 0
  let used = 0
  for (const { data, control } of messages) {
    if (count === MAX_BATCH) break
    const isCopied = data.length < LARGE
    if (isCopied) memory.bytes.set(data, DATA + used)
    const address = isCopied ? memory.base + DATA + used : addressOf(data)
    place(count, address, Math.min(data.length, MAX_SEND), control.length)
    memory.bytes.set(control, CONTROLS + count * CONTROL_ROOM)
    count++
    if (isCopied) used += data.length
    // Nothing may come between the parts of a message that is cut here.
    if (data.length > MAX_SEND) break
  }
  const sent = sendmmsg(fd, memory.address, count, SEND_FLAGS)
  if (sent === -ENOSYS || sent === -EPERM) return sendFirst(fd, messages, sent)
  if (sent < 0) return sent
  const lengths: number[] = []
  for (let slot = 0; slot < sent; slot++) lengths.push(lengthOf(slot))
  return lengths
}

// A filter of system calls (seccomp(2)) refuses the call itself. But EPERM also
// says that the peer takes no descriptors: then sendmsg says so too.
function sendFirst(
  fd: number,
  messages: readonly Outgoing[],
  refusal: number,
): number[] | number {
  const [first] = messages
  if (first === undefined) return refusal
  const sent = sendNow(fd, first)
  if (sent !== refusal) isPossible = false
  return sent < 0 ? sent : [sent]
}

/**
 * Receives up to `count` messages of up to `maxBytes` bytes each, as far as
 * they have arrived, each as receiveNow() does.
 *
 * @returns the messages, or -errno if there was none. Where the call is refused,
 * none, and no error: they can be received one by one
 */
export function receiveBatch(
  fd: number,
  maxBytes: number,
  count: number,
): Received[] | number {
  const room = Math.min(maxBytes, MAX_BYTES)
  const slots = Math.min(count, MAX_BATCH, Math.floor(MAX_BYTES / room))
  for (let slot = 0; slot < slots; slot++) {
    place(slot, memory.base + DATA + slot * room, room, CONTROL_ROOM)
  }
  const filled = recvmmsg(fd, memory.address, slots, RECEIVE_FLAGS, NULL)
  if (filled === -ENOSYS || filled === -EPERM) {
    isPossible = false
    return []
  }
  if (filled < 0) return filled
  const messages: Received[] = []
  for (let slot = 0; slot < filled; slot++) {
    messages.push(take(slot, DATA + slot * room))
  }
  return messages
}

function take(slot: number, dataAt: number): Received {
  const { bytes } = memory
  const header = readMsghdr(bytes, slot * mmsghdr.size, host)
  const controlAt = CONTROLS + slot * CONTROL_ROOM
  return {
    data: copyOf(bytes, dataAt, lengthOf(slot)),
    control: copyOf(bytes, controlAt, header.controlLength),
    flags: known(header.flags),
  }
}

// struct mmsghdr is a msghdr and msg_len, the bytes that the call moved.
function lengthOf(slot: number): number {
  return memory.bytes.readUInt32LE(slot * mmsghdr.size + mmsghdr.msg_len)
}

// Points the header of a slot to its data and control buffer.
function place(
  slot: number,
  data: number,
  dataLength: number,
  controlLength: number,
): void {
  const control = memory.base + CONTROLS + slot * CONTROL_ROOM
  const parts = { data, dataLength, control, controlLength }
  const iovAt = IOVECS + slot * iovec.size
  setParts(memory.bytes, slot * mmsghdr.size, iovAt, parts, host)
}

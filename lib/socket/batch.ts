// Several messages in one call, sendmmsg(2) and recvmmsg(2): the time for the
// call is spent once for all of them. Used by sender.ts and receiver.ts where
// more than one message is in line; a single one goes through message.ts.
// Optional: speed. The memory is laid out in this order:
//
//    mmsghdrs | iovecs | control buffers | data
//
// Open sendmmsg(2) and recvmmsg(2) beside it.
// Read next: lib/conn/conn.ts.

import { host } from '../layouts.ts'
import { allocate, declare, hasFunction, NULL } from '../libc.ts'
import {
  CONTROL_ROOM,
  copyOf,
  knownFlags,
  MAX_BYTES,
  type Outgoing,
  RECEIVE_FLAGS,
  type Received,
  SEND_FLAGS,
} from '../message.ts'
import { initMsghdr, readMsghdr, readMsgLen, setParts } from '../msghdr.ts'

// int sendmmsg(int fd, struct mmsghdr *msgs, unsigned vlen, int flags)
const sendmmsg = declare('sendmmsg', 'int', ['int', 'pointer', 'uint', 'int'])
// int recvmmsg(int fd, struct mmsghdr *msgs, unsigned vlen, int flags,
//              struct timespec *timeout)
const timed = ['int', 'pointer', 'uint', 'int', 'pointer'] as const
const recvmmsg = declare('recvmmsg', 'int', timed)

/**
 * Most messages in one call: several only with glibc, where sendmmsg and
 * recvmmsg are the kernel's, which stops after a short send. In musl sendmmsg
 * is a loop that goes on (src/network/sendmmsg.c), and puts the next message
 * inside the one that was cut; FreeBSD's are loops too, and darwin has none.
 */
export const MAX_BATCH = hasFunction('gnu_get_libc_version') ? 64 : 1

const HEADER_SIZE = host.mmsghdr.size
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
 * may be short, as of sendNow(); or -errno if none was taken
 */
export function sendBatch(
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
 * they have arrived, each as receiveNow() does.
 *
 * @returns the messages, or -errno if there was none
 */
export function receiveBatch(
  fd: number,
  maxBytes: number,
  count: number,
): Received[] | number {
  const room = Math.min(maxBytes, MAX_BYTES)
  const slots = Math.min(count, MAX_BATCH, Math.floor(MAX_BYTES / room))
  for (let slot = 0; slot < slots; slot++) {
    place(slot, DATA + slot * room, room, CONTROL_ROOM)
  }
  const filled = recvmmsg(fd, memory.address, slots, RECEIVE_FLAGS, NULL)
  if (filled < 0) return filled
  const messages: Received[] = []
  for (let slot = 0; slot < filled; slot++) {
    messages.push(take(slot, DATA + slot * room))
  }
  return messages
}

function take(slot: number, dataAt: number): Received {
  const { bytes } = memory
  const at = slot * HEADER_SIZE
  const { controlLength, flags } = readMsghdr(bytes, at, host)
  return {
    data: copyOf(bytes, dataAt, readMsgLen(bytes, at, host)),
    control: copyOf(bytes, CONTROLS + slot * CONTROL_ROOM, controlLength),
    flags: knownFlags(flags),
  }
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

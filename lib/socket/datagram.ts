// sendmsg(2) and recvmsg(2) with an address, for sockets of datagrams: to whom a
// message goes, and from whom it came. As in message.ts nothing waits, and one
// stretch of memory serves all calls:
//
//    msghdr | iovec | sockaddr_un | control buffer
//
// Open unix(7) beside it. Read next: lib/conn/datagram.ts.

import type { Buffer } from 'node:buffer'

import { copyOf, roomFor, takeArrived } from '../arrivals.ts'
import { host } from '../layouts.ts'
import { allocate } from '../libc.ts'
import {
  addressToSend,
  CONTROL_ROOM,
  closeOnExec,
  known,
  type Outgoing,
  RECEIVE_FLAGS,
  type Received,
  recvmsg,
  SEND_FLAGS,
  sendmsg,
} from '../message.ts'
import { initMsghdr, readMsghdr, setName, setParts } from '../msghdr.ts'

/** sizeof(struct sockaddr_un), and more. */
const NAME_ROOM = 128

const IOVEC = host.msghdr.size
const NAME = IOVEC + host.iovec.size
const CONTROL = NAME + NAME_ROOM

const memory = allocate(CONTROL + CONTROL_ROOM)
initMsghdr(memory.bytes, 0, memory.base + IOVEC, host)

/** Nobody, as the socket is connected, or its sender has no name. */
const NO_NAME = new Uint8Array()

/**
 * Sends a datagram.
 *
 * @param to struct sockaddr_un, unless the socket is connected
 * @returns the bytes, all of them, or -errno
 */
export function sendTo(
  fd: number,
  { data, control }: Outgoing,
  to: Uint8Array = NO_NAME,
): number {
  memory.bytes.set(to, NAME)
  memory.bytes.set(control, CONTROL)
  setName(memory.bytes, 0, memory.base + NAME, to.length, host)
  place(addressToSend(data), data.length, control.length)
  return sendmsg(fd, memory.address, SEND_FLAGS)
}

/** A datagram, and the struct sockaddr_un of who sent it. */
export type ReceivedFrom = Received & {
  readonly from: Buffer
  /** Of the datagram, of which `data` may have less (MSG_TRUNC), in bytes. */
  readonly length: number
}

/**
 * Receives one datagram of up to `maxBytes` bytes, as receiveNow() does.
 *
 * @returns the datagram, or -errno if there was none
 */
export function receiveFrom(
  fd: number,
  maxBytes: number,
): ReceivedFrom | number {
  setName(memory.bytes, 0, memory.base + NAME, NAME_ROOM, host)
  place(roomFor(maxBytes), maxBytes, CONTROL_ROOM)
  // On Linux the result is then the whole length, of which a part may be lost.
  const { MSG_TRUNC } = host.constants
  const asked = process.platform === 'linux' ? MSG_TRUNC : 0
  const length = recvmsg(fd, memory.address, RECEIVE_FLAGS | asked)
  if (length < 0) return length

  const header = readMsghdr(memory.bytes, 0, host)
  const control = copyOf(memory.bytes, CONTROL, header.controlLength)
  closeOnExec(control)
  const nameLength = Math.min(header.nameLength, NAME_ROOM)
  return {
    data: takeArrived(Math.min(length, maxBytes), maxBytes),
    control,
    flags: known(header.flags),
    from: copyOf(memory.bytes, NAME, nameLength),
    length,
  }
}

// Points the header to the data and to the control buffer.
function place(data: number, dataLength: number, controlLength: number): void {
  const control = memory.base + CONTROL
  const parts = { data, dataLength, control, controlLength }
  setParts(memory.bytes, 0, IOVEC, parts, host)
}

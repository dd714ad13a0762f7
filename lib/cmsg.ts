// The bytes of ancillary data: what the CMSG_* macros compute, a control
// message of type SCM_RIGHTS built, and a control buffer taken apart. Pure
// arithmetic, no calls. Open cmsg(3) and unix(7) beside it.
//
// A control buffer with one control message of one descriptor, 64-bit Linux:
//
//    0               8       12      16      20      24
//    | cmsg_len = 20 | level | type  |  fd   |padding|
//    |<------------- CMSG_LEN(4) = 20 ------>|
//    |<------------ CMSG_SPACE(4) = 24 ------------->|
//
// LEN is what stands in cmsg_len: header and payload. SPACE is what the message
// takes up: LEN, rounded up so that the next header is aligned. One descriptor
// fills 24 bytes and so do two. A receiver with room for one may therefore get
// two, and must count what came. Read next: lib/msghdr.ts.

import { Buffer } from 'node:buffer'

import { type Abi, host } from './layouts.ts'

/** sizeof(int): a descriptor travels as a signed 32-bit number. */
const FD_SIZE = 4

/** msg_controllen has 32 bits on some platforms, signed ones in the kernel. */
const MAX_LENGTH = 0x7fffffff

/**
 * CMSG_ALIGN: `length` in bytes, rounded up to where a header may begin.
 *
 * @throws RangeError for what is no length of a control buffer
 * @see cmsg(3)
 */
export function cmsgAlign(length: number, abi: Abi = host): number {
  const most = MAX_LENGTH - abi.cmsghdr.cmsg_data - abi.cmsgAlignment
  if (!Number.isInteger(length) || length < 0 || length > most) {
    throw new RangeError(`Expected 0 to ${most} bytes, got ${length}`)
  }
  return Math.ceil(length / abi.cmsgAlignment) * abi.cmsgAlignment
}

/** CMSG_LEN of cmsg(3): the cmsg_len for `dataLength` bytes of payload. */
export function cmsgLen(dataLength: number, abi: Abi = host): number {
  cmsgAlign(dataLength, abi) // for its check
  return abi.cmsghdr.cmsg_data + dataLength
}

/** CMSG_SPACE of cmsg(3): the bytes that such a message takes up. */
export function cmsgSpace(dataLength: number, abi: Abi = host): number {
  return abi.cmsghdr.cmsg_data + cmsgAlign(dataLength, abi)
}

/**
 * One SCM_RIGHTS control message that carries `fds`, padding included and
 * zeroed, for `conn.sendmsg`. Neither duplicates nor closes the descriptors.
 *
 * @throws RangeError for what is no descriptor number
 * @see unix(7)
 */
export function unixRights(...fds: number[]): Buffer {
  return buildRights(fds)
}

/** `unixRights`, for any layout. */
export function buildRights(fds: readonly number[], abi: Abi = host): Buffer {
  const size = cmsgSpace(fds.length * FD_SIZE, abi)
  const message = Buffer.allocUnsafe(size).fill(0)
  const { cmsg_len, cmsg_level, cmsg_type, cmsg_data } = abi.cmsghdr
  message.writeUInt32LE(cmsgLen(fds.length * FD_SIZE, abi), cmsg_len)
  message.writeInt32LE(abi.constants.SOL_SOCKET, cmsg_level)
  message.writeInt32LE(abi.constants.SCM_RIGHTS, cmsg_type)
  let offset = cmsg_data
  for (const fd of fds) {
    if (!Number.isInteger(fd) || fd < 0 || fd > MAX_LENGTH) {
      throw new RangeError(`Expected a file descriptor, got ${String(fd)}`)
    }
    offset = message.writeInt32LE(fd, offset)
  }
  return message
}

/** One control message of a control buffer, as cmsg(3) describes it. */
export type ControlMessage = {
  /** cmsg_level, such as SOL_SOCKET. */
  readonly level: number
  /** cmsg_type, such as SCM_RIGHTS. */
  readonly type: number
  /** The payload, without header and padding. */
  readonly data: Buffer
}

/**
 * The control messages in a control buffer, in order. The payloads are views
 * into `control`, not copies.
 *
 * @throws Error if a header claims less than itself or more than there is
 * @see cmsg(3), CMSG_FIRSTHDR and CMSG_NXTHDR
 */
export function parseControlMessages(
  control: Uint8Array,
  abi: Abi = host,
): ControlMessage[] {
  const bytes = asBuffer(control)
  return walk(bytes, true, abi).map(({ level, type, start, end }) => {
    return { level, type, data: bytes.subarray(start, end) }
  })
}

/**
 * The descriptors that an SCM_RIGHTS control message carries. The caller owns
 * each of them and must close it.
 *
 * @throws Error for any other control message: a payload of credentials, read
 * as descriptors, would have the caller close descriptors of its own
 * @see SCM_RIGHTS in unix(7)
 */
export function parseUnixRights(
  message: ControlMessage,
  abi: Abi = host,
): number[] {
  if (!isRights(message, abi)) {
    const got = `level ${message.level}, type ${message.type}`
    throw new Error(`Expected an SCM_RIGHTS control message, got ${got}`)
  }
  const { data } = message
  return checkGranted(readInts(data, 0, data.length, []))
}

/** Whether a control message is of the type SCM_RIGHTS. */
export function isRights(message: Omit<ControlMessage, 'data'>, abi = host) {
  const { SOL_SOCKET, SCM_RIGHTS } = abi.constants
  return message.level === SOL_SOCKET && message.type === SCM_RIGHTS
}

/**
 * The descriptors in a control buffer: those that SCM_RIGHTS control messages
 * carry, and the others, which the kernel itself added (SCM_PIDFD). One of the
 * others may be negative: the -errno with which the kernel failed to make it.
 *
 * @throws Error as parseControlMessages and parseUnixRights do
 */
export function splitDescriptors(
  control: Uint8Array,
  abi: Abi = host,
): { rights: number[]; others: number[] } {
  const { rights, others } = sort(control, true, abi)
  return { rights: checkGranted(rights), others }
}

/**
 * Every descriptor that came with a control buffer, however malformed, so that
 * it can be closed.
 */
export function descriptorsIn(control: Uint8Array, abi: Abi = host): number[] {
  const { rights, others } = sort(control, false, abi)
  // A security module may refuse single descriptors and leave -1 in the slot.
  return rights.concat(others).filter((fd) => fd >= 0)
}

function sort(control: Uint8Array, isStrict: boolean, abi: Abi) {
  const { SOL_SOCKET, SCM_PIDFD } = abi.constants
  const bytes = asBuffer(control)
  const rights: number[] = []
  const others: number[] = []
  for (const { level, type, start, end } of walk(bytes, isStrict, abi)) {
    const isPidfd = level === SOL_SOCKET && type === SCM_PIDFD
    if (isRights({ level, type }, abi)) {
      readInts(bytes, start, end, rights)
    } else if (isPidfd && SCM_PIDFD !== 0) {
      readInts(bytes, start, end, others)
    }
  }
  return { rights, others }
}

// To make a Buffer takes as long as to read what is in it.
function asBuffer(control: Uint8Array): Buffer {
  if (Buffer.isBuffer(control)) return control
  return Buffer.from(control.buffer, control.byteOffset, control.length)
}

// No length in the buffer is trusted. darwin leaves the original cmsg_len there
// when it cut a message short, and a cmsg_len of 0 sends the C macro of the
// BSDs round for ever. So a payload ends where the buffer ends at the latest,
// and the walk ends at a header that claims less than itself. The padding of
// the last message may be missing.
function walk(bytes: Buffer, isStrict: boolean, abi: Abi) {
  const { cmsg_len, cmsg_level, cmsg_type, cmsg_data } = abi.cmsghdr
  const messages = []
  let start = 0
  while (bytes.length - start >= cmsg_data) {
    const available = bytes.length - start
    const claimed = bytes.readUInt32LE(start + cmsg_len)
    const isTrue = claimed >= cmsg_data && claimed <= available
    if (isStrict && !isTrue) {
      const expected = `a cmsg_len of ${cmsg_data} to ${available} bytes`
      throw new Error(`Expected ${expected}, got ${claimed}`)
    }
    const end = start + Math.max(cmsg_data, Math.min(claimed, available))
    const level = bytes.readInt32LE(start + cmsg_level)
    const type = bytes.readInt32LE(start + cmsg_type)
    messages.push({ level, type, start: start + cmsg_data, end })
    if (!isTrue || claimed === available) break
    start += cmsgAlign(claimed, abi)
  }
  return messages
}

// Bytes at the end of a payload that do not fill an int are no descriptor.
function readInts(bytes: Buffer, start: number, end: number, to: number[]) {
  for (let at = start; at + FD_SIZE <= end; at += FD_SIZE) {
    to.push(bytes.readInt32LE(at))
  }
  return to
}

function checkGranted(fds: number[]): number[] {
  const denied = fds.findIndex((fd) => fd < 0)
  if (denied < 0) return fds
  throw new Error(`Expected descriptors, got ${fds[denied]} in slot ${denied}`)
}

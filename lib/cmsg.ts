// The bytes of ancillary data: what the CMSG_* macros compute, and one control
// message of type SCM_RIGHTS built; parse.ts takes them apart. Pure arithmetic,
// no calls. Open cmsg(3) and unix(7) beside it.
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
// two, and must count what came.

import { Buffer } from 'node:buffer'

import { type Abi, host } from './layouts.ts'

/** sizeof(int): a descriptor travels as a signed 32-bit number. */
export const FD_SIZE = 4

/** All the layouts are little-endian, as DataView wants it said. */
export const LE = true

/** msg_controllen is 32 bits wide on some platforms, and signed in the kernel. */
const MAX_LENGTH = 0x7fffffff

/** CMSG_ALIGN: `length` in bytes, rounded up to where a header may begin. */
export function cmsgAlign(length: number, abi: Abi = host): number {
  checkLength(length, abi)
  return Math.ceil(length / abi.cmsgAlignment) * abi.cmsgAlignment
}

/** CMSG_LEN: the cmsg_len of a message with `dataLength` bytes of payload. */
export function cmsgLen(dataLength: number, abi: Abi = host): number {
  checkLength(dataLength, abi)
  return abi.cmsghdr.cmsg_data + dataLength
}

/** CMSG_SPACE: the bytes that a message with such a payload takes up. */
export function cmsgSpace(dataLength: number, abi: Abi = host): number {
  return abi.cmsghdr.cmsg_data + cmsgAlign(dataLength, abi)
}

/**
 * One SCM_RIGHTS control message that carries `fds`, padding included and
 * zeroed. Neither duplicates nor closes them.
 *
 * @throws RangeError for what is not a descriptor number
 */
export function unixRights(...fds: number[]): Buffer {
  return buildRights(fds)
}

/** `unixRights`, for any layout. */
export function buildRights(fds: readonly number[], abi: Abi = host): Buffer {
  const size = cmsgSpace(fds.length * FD_SIZE, abi)
  const message = Buffer.allocUnsafe(size).fill(0)
  const view = viewOf(message)
  const { cmsg_len, cmsg_level, cmsg_type, cmsg_data } = abi.cmsghdr
  view.setUint32(cmsg_len, cmsgLen(fds.length * FD_SIZE, abi), LE)
  view.setInt32(cmsg_level, abi.constants.SOL_SOCKET, LE)
  view.setInt32(cmsg_type, abi.constants.SCM_RIGHTS, LE)
  let offset = cmsg_data
  for (const fd of fds) {
    if (!Number.isInteger(fd) || fd < 0 || fd > MAX_LENGTH) {
      throw new RangeError(`Expected a file descriptor, got ${String(fd)}`)
    }
    view.setInt32(offset, fd, LE)
    offset += FD_SIZE
  }
  return message
}

function checkLength(length: number, abi: Abi): void {
  const most = MAX_LENGTH - abi.cmsghdr.cmsg_data - abi.cmsgAlignment
  if (!Number.isInteger(length) || length < 0 || length > most) {
    throw new RangeError(`Expected 0 to ${most} bytes, got ${length}`)
  }
}

/** The bytes, for reading and writing numbers. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

// struct msghdr and struct iovec as bytes: what sendmsg(2) and recvmsg(2) read
// and write. Pure arithmetic on memory; the layouts come from layouts.ts. On
// 64-bit Linux:
//
//    msghdr                                  iovec
//     0  msg_name        8  (null)            0  iov_base  8
//     8  msg_namelen     4  (0)               8  iov_len   8
//    16  msg_iov         8  ----------------> 16
//    24  msg_iovlen      8  (1)
//    32  msg_control     8  ---> the control buffer of cmsg.ts
//    40  msg_controllen  8
//    48  msg_flags       4  (set by recvmsg)
//    56
// Read next: lib/layouts.ts.

import type { Buffer } from 'node:buffer'

import type { Abi } from './layouts.ts'

/** Where in memory the parts of one message lie. Addresses and bytes. */
export type Parts = {
  /** Of the data, and how much of it there is. */
  readonly data: number
  readonly dataLength: number
  readonly control: number
  readonly controlLength: number
}

/**
 * Makes zeroed memory at `at` a msghdr with one iovec, which is at the address
 * `iov`. To be done once: no call changes this part.
 */
export function initMsghdr(memory: Buffer, at: number, iov: number, abi: Abi) {
  writePointer(memory, at + abi.msghdr.msg_iov, iov, abi.pointerSize)
  memory.writeUInt32LE(1, at + abi.msghdr.msg_iovlen)
}

/**
 * Points the msghdr at `at`, whose iovec is at `iovAt`, to the parts of a
 * message. To be done before every call: recvmsg writes over msg_controllen,
 * and a header used again would offer no room for descriptors.
 */
export function setParts(
  memory: Buffer,
  at: number,
  iovAt: number,
  parts: Parts,
  abi: Abi,
): void {
  const { msghdr } = abi
  setIovec(memory, iovAt, parts.data, parts.dataLength, abi)
  // darwin refuses a control pointer that has no control behind it.
  const control = parts.controlLength > 0 ? parts.control : 0
  writePointer(memory, at + msghdr.msg_control, control, abi.pointerSize)
  memory.writeUInt32LE(parts.controlLength, at + msghdr.msg_controllen)
}

/**
 * Points the msghdr at `at` to an address (struct sockaddr_un): the receiver's
 * for sendmsg; room of `length` bytes for the sender's for recvmsg.
 */
export function setName(
  memory: Buffer,
  at: number,
  name: number,
  length: number,
  { msghdr, pointerSize }: Abi,
): void {
  writePointer(memory, at + msghdr.msg_name, length > 0 ? name : 0, pointerSize)
  memory.writeUInt32LE(length, at + msghdr.msg_namelen)
}

/** Points the iovec at `at` to `length` bytes of data. */
export function setIovec(
  memory: Buffer,
  at: number,
  data: number,
  length: number,
  { iovec, pointerSize }: Pick<Abi, 'iovec' | 'pointerSize'>,
): void {
  writePointer(memory, at + iovec.iov_base, data, pointerSize)
  memory.writeUInt32LE(length, at + iovec.iov_len)
}

/** What recvmsg wrote back: the bytes of name and control, and its flags. */
export function readMsghdr(memory: Buffer, at: number, abi: Abi) {
  return {
    nameLength: memory.readUInt32LE(at + abi.msghdr.msg_namelen),
    controlLength: memory.readUInt32LE(at + abi.msghdr.msg_controllen),
    flags: memory.readUInt32LE(at + abi.msghdr.msg_flags),
  }
}

function writePointer(
  memory: Buffer,
  at: number,
  address: number,
  size: Abi['pointerSize'],
): void {
  memory.writeUInt32LE(address >>> 0, at)
  if (size === 4) return
  memory.writeUInt32LE(Math.floor(address / 2 ** 32), at + 4)
}

// struct msghdr, struct iovec and struct mmsghdr as bytes: what sendmsg(2),
// recvmsg(2) and their plural forms read and write. Pure arithmetic on memory;
// the layouts come from abi.ts. On 64-bit Linux:
//
//    msghdr                                  iovec
//     0  msg_name        8  (null)            0  iov_base  8
//     8  msg_namelen     4  (0)               8  iov_len   8
//    16  msg_iov         8  ----------------> 16
//    24  msg_iovlen      8  (1)
//    32  msg_control     8  ---> the control buffer of cmsg.ts
//    40  msg_controllen  8
//    48  msg_flags       4  (set by recvmsg)
//    56                     mmsghdr adds msg_len here, the bytes moved

import { LE } from './cmsg.ts'
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
export function initMsghdr(
  memory: DataView,
  at: number,
  iov: number,
  abi: Abi,
): void {
  writePointer(memory, at + abi.msghdr.msg_iov, iov, abi)
  memory.setUint32(at + abi.msghdr.msg_iovlen, 1, LE)
}

/**
 * Points the msghdr at `at`, whose iovec is at `iovAt`, to the parts of a
 * message. To be done before every call: recvmsg writes over msg_controllen,
 * and a header used again would offer no room for descriptors.
 */
export function setParts(
  memory: DataView,
  at: number,
  iovAt: number,
  parts: Parts,
  abi: Abi,
): void {
  const { msghdr, iovec } = abi
  writePointer(memory, iovAt + iovec.iov_base, parts.data, abi)
  memory.setUint32(iovAt + iovec.iov_len, parts.dataLength, LE)
  // darwin refuses a control pointer that has no control behind it.
  const control = parts.controlLength > 0 ? parts.control : 0
  writePointer(memory, at + msghdr.msg_control, control, abi)
  memory.setUint32(at + msghdr.msg_controllen, parts.controlLength, LE)
}

/** What recvmsg wrote back: the control bytes that it used, and its flags. */
export function readMsghdr(
  memory: DataView,
  at: number,
  abi: Abi,
): { controlLength: number; flags: number } {
  return {
    controlLength: memory.getUint32(at + abi.msghdr.msg_controllen, LE),
    flags: memory.getUint32(at + abi.msghdr.msg_flags, LE),
  }
}

/** What sendmmsg or recvmmsg wrote back: the bytes that one message moved. */
export function readMsgLen(memory: DataView, at: number, abi: Abi): number {
  return memory.getUint32(at + abi.mmsghdr.msg_len, LE)
}

function writePointer(
  memory: DataView,
  at: number,
  address: number,
  abi: Abi,
): void {
  memory.setUint32(at, address >>> 0, LE)
  if (abi.pointerSize === 4) return
  memory.setUint32(at + 4, Math.floor(address / 2 ** 32), LE)
}

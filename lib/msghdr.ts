// struct msghdr, struct iovec and struct mmsghdr as bytes: what sendmsg(2),
// recvmsg(2) and their plural forms read and write. Pure arithmetic on a
// Buffer; the layouts come from abi.ts. On 64-bit Linux:
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

import type { Abi } from './abi.ts'

/** Where in memory the parts of one message lie. Addresses and bytes. */
export type Parts = {
  /** Of the struct iovec. */
  readonly iov: number
  /** Of the data, and how much of it there is. */
  readonly data: number
  readonly dataLength: number
  readonly control: number
  readonly controlLength: number
}

/**
 * Writes the msghdr at `at` and its one iovec at `iovAt`, both offsets into
 * `memory`. To be done before every call: recvmsg overwrites msg_controllen
 * and msg_flags, and a header used again offers no room for descriptors.
 */
export function writeMsghdr(
  memory: Buffer,
  at: number,
  iovAt: number,
  parts: Parts,
  abi: Abi,
): void {
  const { msghdr, iovec } = abi
  memory.fill(0, at, at + Math.max(abi.mmsghdr.size, msghdr.size))
  writePointer(memory, at + msghdr.msg_iov, parts.iov, abi)
  memory.writeUInt32LE(1, at + msghdr.msg_iovlen)
  // darwin refuses a control pointer that has no control behind it.
  if (parts.controlLength > 0) {
    writePointer(memory, at + msghdr.msg_control, parts.control, abi)
    memory.writeUInt32LE(parts.controlLength, at + msghdr.msg_controllen)
  }
  memory.fill(0, iovAt, iovAt + iovec.size)
  writePointer(memory, iovAt + iovec.iov_base, parts.data, abi)
  memory.writeUInt32LE(parts.dataLength, iovAt + iovec.iov_len)
}

/** What recvmsg wrote back: the control bytes that it used, and its flags. */
export function readMsghdr(
  memory: Buffer,
  at: number,
  abi: Abi,
): { controlLength: number; flags: number } {
  return {
    controlLength: memory.readUInt32LE(at + abi.msghdr.msg_controllen),
    flags: memory.readUInt32LE(at + abi.msghdr.msg_flags),
  }
}

/** What sendmmsg or recvmmsg wrote back: the bytes that one message moved. */
export function readMsgLen(memory: Buffer, at: number, abi: Abi): number {
  return memory.readUInt32LE(at + abi.mmsghdr.msg_len)
}

function writePointer(
  memory: Buffer,
  at: number,
  address: number,
  abi: Abi,
): void {
  // 48 bits are a whole user-space address; the upper 16 are zero.
  if (abi.pointerSize === 4) memory.writeUInt32LE(address, at)
  else memory.writeUIntLE(address, at, 6)
}

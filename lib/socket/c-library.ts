// What differs between the C libraries of one system, glibc and musl: found out
// by asking the one that is here.
// Read next: lib/socket/batch.ts.

import { constants } from 'node:os'

import { buildRights } from '../cmsg.ts'
import { host } from '../layouts.ts'
import { allocate, hasFunction } from '../libc.ts'
import { sendmsg } from '../message.ts'
import { initMsghdr, setParts } from '../msghdr.ts'

/**
 * Whether sendmmsg(2) and recvmmsg(2) are the kernel's, which stops after a
 * short send: only with glibc. In musl sendmmsg is a loop that goes on
 * (src/network/sendmmsg.c), and puts the next message inside the one that was
 * cut; FreeBSD's are loops too, and darwin has none.
 */
export const hasBatchCalls: boolean = hasFunction('gnu_get_libc_version')

/**
 * Most descriptors that one message may carry here. musl before 1.2.4 copies
 * the control buffer into 1024 bytes of its own and says ENOMEM where 253
 * descriptors need more (src/network/sendmsg.c). So libc is asked: with a
 * socket of -1, EBADF means that the kernel saw the call.
 */
export function maxFdsPerMessage(): number {
  const rights = buildRights(new Array<number>(host.maxFds).fill(0), host)
  const iovAt = host.msghdr.size
  const controlAt = iovAt + host.iovec.size
  const { bytes, base, address } = allocate(controlAt + rights.length)
  bytes.set(rights, controlAt)
  initMsghdr(bytes, 0, base + iovAt, host)
  const parts = {
    data: base,
    dataLength: 1,
    control: base + controlAt,
    controlLength: rights.length,
  }
  setParts(bytes, 0, iovAt, parts, host)
  const isRefused = sendmsg(-1, address, 0) === -constants.errno.ENOMEM
  return isRefused ? Math.min(host.maxFds, 252) : host.maxFds
}

// Reading and writing a descriptor that was received, without ever waiting in
// the kernel and without O_NONBLOCK. That flag belongs to the open file
// description: to set it would change reads of the sender, and the sender may
// turn it off again. So each call says by itself that it must not wait:
// sockets have MSG_DONTWAIT, pipes and some devices RWF_NOWAIT. What has
// neither (terminals, named FIFOs, most devices) answers EOPNOTSUPP.
// Open preadv2(2) beside it. Linux only. Read next: lib/stream/pool.ts.

import type { Buffer } from 'node:buffer'
import { constants } from 'node:os'

import { roomFor, takeArrived } from '../arrivals.ts'
import { descriptorsIn } from '../cmsg.ts'
import { host } from '../layouts.ts'
import { allocate, declareOptional, toAddress } from '../libc.ts'
import { receiveNow, sendNow } from '../message.ts'
import { setIovec } from '../msghdr.ts'
import { closeReceived } from '../socket/unix.ts'

// ssize_t preadv2(int fd, const struct iovec *iov, int iovcnt, off_t offset,
//                 int flags)
const parameters = ['int', 'pointer', 'int', 'pointer', 'int'] as const
const preadv2 = declareOptional('preadv2', 'size', parameters)
// ssize_t pwritev2(int fd, const struct iovec *iov, int iovcnt, off_t offset,
//                  int flags)
const pwritev2 = declareOptional('pwritev2', 'size', parameters)

const RWF_NOWAIT = 8 // <linux/fs.h>
/** An offset: where the open file description is. */
const CURRENT = toAddress(-1)

const { EOPNOTSUPP, ENOSYS, EPERM } = constants.errno
const NOTHING = new Uint8Array()

/** At most so many bytes in one write. */
const WRITE_SIZE = 64 * 1024

const iovec = allocate(host.iovec.size)
const outgoing = allocate(WRITE_SIZE)

/** Calls that never wait: a result, or -errno, -EAGAIN and -EOPNOTSUPP too. */
export type Calls = {
  /** The bytes that are there, none at the end of file. */
  read(fd: number, size: number): Buffer | number
  /** How many of the bytes were taken. */
  write(fd: number, bytes: Uint8Array): number
}

/**
 * For a stream socket. Descriptors that come with the bytes are closed, as a
 * plain read(2) would have the kernel do.
 */
export const socketCalls: Calls = {
  read(fd, size) {
    const message = receiveNow(fd, size)
    if (typeof message === 'number') return message
    for (const received of descriptorsIn(message.control)) {
      closeReceived(received)
    }
    return message.data
  },
  write: (fd, bytes) => sendNow(fd, { data: bytes, control: NOTHING }),
}

/** For a pipe, a terminal or a device. */
export const nowaitCalls: Calls = {
  read(fd, size) {
    setIovec(iovec.bytes, 0, roomFor(size), size, host)
    const length = call(preadv2, fd)
    return length < 0 ? length : takeArrived(length, size)
  },
  write(fd, bytes) {
    const part = bytes.subarray(0, WRITE_SIZE)
    outgoing.bytes.set(part)
    setIovec(iovec.bytes, 0, outgoing.base, part.length, host)
    return call(pwritev2, fd)
  },
}

// Linux has the calls from 4.14 on, musl from 1.2.5 on, and a filter of system
// calls (seccomp(2)) that does not know them says EPERM. With 32 bits the two C
// libraries have offsets of different sizes.
function call(vectored: typeof preadv2, fd: number): number {
  if (host.pointerSize === 4) return -EOPNOTSUPP
  const result = vectored(fd, iovec.address, 1, CURRENT, RWF_NOWAIT)
  return result === -ENOSYS || result === -EPERM ? -EOPNOTSUPP : result
}

// Which socket is the other end of a Unix socket: the kernel tells by netlink,
// in the way that ss(8) asks it. Linux only, and only where the process may
// have such a socket and the kernel was built with UNIX_DIAG; elsewhere nothing
// is known. Sockets have inode numbers, as files do, and fstat(2) shows them.
// Open sock_diag(7) and netlink(7) beside it.
// Read next: lib/socket/describe.ts.

import { Buffer } from 'node:buffer'
import { fstatSync } from 'node:fs'

import { host } from '../layouts.ts'
import { declare } from '../libc.ts'
import { receiveNow, sendNow } from '../message.ts'
import { closeFd } from './unix.ts'

// int socket(int domain, int type, int protocol)
const socket = declare('socket', 'int', ['int', 'int', 'int'])

const AF_NETLINK = 16
const SOCK_RAW = 3
const NETLINK_SOCK_DIAG = 4
const SOCK_DIAG_BY_FAMILY = 20
const NLM_F_REQUEST = 1
const UDIAG_SHOW_PEER = 4
const UNIX_DIAG_PEER = 2
const ANY = 0xffffffff

/** struct nlmsghdr, and behind it struct unix_diag_req. */
const HEADER = { size: 16, nlmsg_len: 0, nlmsg_type: 4, nlmsg_flags: 6 }
const REQUEST = { size: 24, family: 0, states: 4, ino: 8, show: 12, cookie: 16 }

/** Where the attributes of an answer begin: behind struct unix_diag_msg. */
const ATTRIBUTES = HEADER.size + 16

const NOTHING = Buffer.alloc(0)

/**
 * Whether the descriptor `fd` is the other end of the Unix socket `own`. To be
 * called by a program that keeps received descriptors until their sender hangs
 * up: as long as such a one is open, the connection has no end, even if the
 * sender is gone.
 * The ends of two connections, each sent over the other, look like any other
 * sockets: against those only limits help, of connections, descriptors, time.
 *
 * @returns false also where the kernel does not tell, and for -1 as `own`
 * @throws Error EBADF
 * @see sock_diag(7)
 * @example
 * if (isOtherEnd(fd, conn.fd)) closeReceived(fd)
 */
export function isOtherEnd(fd: number, own: number): boolean {
  const found = fstatSync(fd)
  if (!found.isSocket() || own < 0) return false
  return found.ino === peerInode(fstatSync(own).ino)
}

/** The inode number of the socket at the other end of the one with `inode`. */
export function peerInode(inode: number): number | undefined {
  const { SOCK_CLOEXEC, SOCK_NONBLOCK } = host.constants
  const type = SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK
  const fd = socket(AF_NETLINK, type, NETLINK_SOCK_DIAG)
  // The kernel answers within the call, so the answer is there at once. Without
  // a socket (EMFILE) both calls fail.
  sendNow(fd, { data: requestFor(inode), control: NOTHING })
  const answer = receiveNow(fd, 4096)
  closeFd(fd)
  return typeof answer === 'number' ? undefined : peerIn(answer.data)
}

function requestFor(inode: number): Buffer {
  const request = Buffer.alloc(HEADER.size + REQUEST.size)
  request.writeUInt32LE(request.length, HEADER.nlmsg_len)
  request.writeUInt16LE(SOCK_DIAG_BY_FAMILY, HEADER.nlmsg_type)
  request.writeUInt16LE(NLM_F_REQUEST, HEADER.nlmsg_flags)
  const wanted = request.subarray(HEADER.size)
  wanted[REQUEST.family] = host.constants.AF_UNIX
  wanted.writeUInt32LE(ANY, REQUEST.states)
  wanted.writeUInt32LE(inode, REQUEST.ino)
  wanted.writeUInt32LE(UDIAG_SHOW_PEER, REQUEST.show)
  wanted.writeUInt32LE(ANY, REQUEST.cookie)
  wanted.writeUInt32LE(ANY, REQUEST.cookie + 4)
  return request
}

// struct rtattr: its length and type, 16 bits each, then what it tells, padded
// to 4 bytes. A socket that is not connected has no such attribute.
function peerIn(answer: Buffer): number | undefined {
  const type = answer.readUInt16LE(HEADER.nlmsg_type)
  // NLMSG_ERROR: the socket is not in our network namespace.
  if (type !== SOCK_DIAG_BY_FAMILY) return undefined
  let at = ATTRIBUTES
  while (at + 8 <= answer.length) {
    const length = answer.readUInt16LE(at)
    const attribute = answer.readUInt16LE(at + 2)
    if (attribute === UNIX_DIAG_PEER) return answer.readUInt32LE(at + 4)
    at += (length + 3) & ~3
  }
  return undefined
}

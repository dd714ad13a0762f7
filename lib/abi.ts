// What C gets from its headers, for the running platform: where each field of
// msghdr, iovec and cmsghdr lies, and what each constant is worth. The numbers
// are in layouts.ts. All sizes and offsets are bytes.

import { endianness } from 'node:os'

import { abis } from './layouts.ts'

export type Abi = {
  readonly name: string
  readonly pointerSize: 4 | 8
  readonly cmsgAlignment: number
  readonly cmsghdr: {
    readonly size: number
    readonly cmsg_len: number
    readonly cmsg_level: number
    readonly cmsg_type: number
    /** Where CMSG_DATA begins, which is CMSG_LEN(0). */
    readonly cmsg_data: number
  }
  readonly msghdr: {
    readonly size: number
    readonly msg_iov: number
    readonly msg_iovlen: number
    readonly msg_control: number
    readonly msg_controllen: number
    readonly msg_flags: number
  }
  /** sendmmsg(2), recvmmsg(2); size 0 where there are none. */
  readonly mmsghdr: { readonly size: number; readonly msg_len: number }
  readonly iovec: {
    readonly size: number
    readonly iov_base: number
    readonly iov_len: number
  }
  readonly sockaddr_un: {
    /** 1 on the BSDs, where a length byte comes first. */
    readonly sun_family: 0 | 1
    readonly sun_path: number
    /** Room for a path, its terminating zero included. */
    readonly sun_path_size: number
    /** Names that are no paths: a zero byte, then anything. */
    readonly hasAbstractNames: boolean
  }
  readonly peercred: {
    readonly level: number
    readonly option: number
    readonly size: number
    readonly uid: number
    readonly gid: number
    /** Offset of the pid, or the socket option that tells it. */
    readonly pid: { readonly offset: number } | { readonly option: number }
  }
  /** Most descriptors that one message may carry. */
  readonly maxFds: number
  /** True where sendmsg says EMSGSIZE for "full, try later" (see `mustWait`). */
  readonly emsgsizeMeansFull: boolean
  readonly constants: Readonly<Record<ConstantName, number>>
}

type ConstantName =
  | 'AF_UNIX'
  | 'SOCK_STREAM'
  | 'SOCK_CLOEXEC'
  | 'SOCK_NONBLOCK'
  | 'SOL_SOCKET'
  | 'SO_TYPE'
  | 'SCM_RIGHTS'
  | 'SCM_PIDFD'
  | 'MSG_CTRUNC'
  | 'MSG_TRUNC'
  | 'MSG_DONTWAIT'
  | 'MSG_NOSIGNAL'
  | 'MSG_CMSG_CLOEXEC'
  | 'FIOCLEX'
  | 'F_GETFL'
  | 'RLIMIT_NOFILE'
  | 'ETOOMANYREFS'

/**
 * The layout for one platform, or an error: a guess would write a length over
 * a pointer.
 */
export function selectAbi(
  platform: string,
  arch: string,
  byteOrder: string,
): Abi {
  if (platform === 'win32') {
    throw new Error(
      'Windows has no SCM_RIGHTS: its Unix sockets carry no file descriptors',
    )
  }
  const abi = abis[`${platform}-${arch}`]
  if (abi === undefined || byteOrder !== 'LE') {
    throw new Error(
      `Expected one of ${Object.keys(abis).join(', ')}, little-endian, ` +
        `got ${platform}-${arch}, ${byteOrder}: its struct layouts are not known`,
    )
  }
  return abi
}

/** The running platform's layout. */
export const host: Abi = selectAbi(process.platform, process.arch, endianness())

// The numbers that C gets from its headers: where each field of msghdr, iovec
// and cmsghdr lies, and what each constant is worth, for every platform that
// this library knows, and the choice of one. Nothing here calls anything.
//
// All sizes and offsets are bytes. Every length field is written as 32 bits:
// where the C type is wider (size_t on 64-bit glibc) or carries a pad beside it
// (musl), the upper half stays zero, so that one table serves both libcs.
//
// The tests compile test/peers/abi.c and compare what it prints with `host`.
// `make test-headers` compiles it for Linux (glibc, musl), darwin and FreeBSD,
// with their headers, and compares the values. `maxFds` and `emsgsizeMeansFull`
// are in no header: read from the kernels' sources.
// Man pages: cmsg(3), recvmsg(2), unix(7).
// Read next: lib/libc.ts.

import { endianness } from 'node:os'

/** The layouts of one platform, and its constants. */
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
    readonly msg_name: number
    readonly msg_namelen: number
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
  /** epoll_wait(2); size 0 where there is none. */
  readonly epoll_event: { readonly size: number; readonly data: number }
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
    /** Offset of the pid, or the socket option that gives it. */
    readonly pid: { readonly offset: number } | { readonly option: number }
  }
  /** SCM_CREDENTIALS, and struct ucred in it; where there is no such message,
   * undefined. */
  readonly credentials:
    | {
        readonly type: number
        readonly size: number
        readonly pid: number
        readonly uid: number
        readonly gid: number
      }
    | undefined
  /** Most descriptors that one message may carry. */
  readonly maxFds: number
  /** True where EMSGSIZE of sendmsg means "full, try later": see mustWait() in
   * lib/conn/sender.ts. */
  readonly emsgsizeMeansFull: boolean
  readonly constants: Readonly<Record<ConstantName, number>>
}

type ConstantName =
  | 'AF_UNIX'
  | 'AF_INET'
  | 'AF_INET6'
  | 'SOCK_STREAM'
  | 'SOCK_DGRAM'
  | 'SOCK_SEQPACKET'
  | 'SOCK_CLOEXEC'
  | 'SOCK_NONBLOCK'
  | 'SOL_SOCKET'
  | 'SO_ACCEPTCONN'
  | 'SO_LINGER'
  | 'SO_REUSEADDR'
  | 'SO_TYPE'
  | 'SO_SNDBUF'
  | 'SO_PASSCRED'
  | 'SCM_RIGHTS'
  | 'SCM_PIDFD'
  | 'MSG_CTRUNC'
  | 'MSG_TRUNC'
  | 'MSG_DONTWAIT'
  | 'MSG_NOSIGNAL'
  | 'MSG_CMSG_CLOEXEC'
  | 'FIOCLEX'
  | 'FIONBIO'
  | 'F_GETFL'
  | 'RLIMIT_NOFILE'
  | 'ETOOMANYREFS'

/** A constant that the platform has not got: flags of 0 change nothing. */
const NONE = 0

const linuxConstants = {
  AF_UNIX: 1,
  AF_INET: 2,
  AF_INET6: 10,
  SOCK_STREAM: 1,
  SOCK_DGRAM: 2,
  SOCK_SEQPACKET: 5,
  SOCK_CLOEXEC: 0x80000,
  SOCK_NONBLOCK: 0x800,
  SOL_SOCKET: 1,
  SO_ACCEPTCONN: 30,
  SO_LINGER: 13,
  SO_REUSEADDR: 2,
  SO_TYPE: 3,
  SO_SNDBUF: 7,
  SO_PASSCRED: 16,
  SCM_RIGHTS: 1,
  SCM_PIDFD: 4,
  MSG_CTRUNC: 0x8,
  MSG_TRUNC: 0x20,
  MSG_DONTWAIT: 0x40,
  MSG_NOSIGNAL: 0x4000,
  MSG_CMSG_CLOEXEC: 0x40000000,
  FIOCLEX: 0x5451,
  FIONBIO: 0x5421,
  F_GETFL: 3,
  RLIMIT_NOFILE: 7,
  ETOOMANYREFS: 109,
} as const

const linuxPeercred = {
  level: 1, // SOL_SOCKET
  option: 17, // SO_PEERCRED
  size: 12, // struct ucred
  uid: 4,
  gid: 8,
  pid: { offset: 0 },
} as const

const linux64: Abi = {
  name: 'linux 64-bit',
  pointerSize: 8,
  cmsgAlignment: 8,
  cmsghdr: {
    size: 16,
    cmsg_len: 0,
    cmsg_level: 8,
    cmsg_type: 12,
    cmsg_data: 16,
  },
  msghdr: {
    size: 56,
    msg_name: 0,
    msg_namelen: 8,
    msg_iov: 16,
    msg_iovlen: 24,
    msg_control: 32,
    msg_controllen: 40,
    msg_flags: 48,
  },
  mmsghdr: { size: 64, msg_len: 56 },
  iovec: { size: 16, iov_base: 0, iov_len: 8 },
  epoll_event: { size: 16, data: 8 },
  sockaddr_un: {
    sun_family: 0,
    sun_path: 2,
    sun_path_size: 108,
    hasAbstractNames: true,
  },
  peercred: linuxPeercred,
  credentials: { type: 2, size: 12, pid: 0, uid: 4, gid: 8 },
  maxFds: 253, // SCM_MAX_FD in include/net/scm.h
  emsgsizeMeansFull: false,
  constants: linuxConstants,
}

// Packed on x86-64 alone, so that 32-bit programs see the same there.
const linuxX64: Abi = { ...linux64, epoll_event: { size: 12, data: 4 } }

const linux32: Abi = {
  ...linux64,
  name: 'linux 32-bit',
  pointerSize: 4,
  cmsgAlignment: 4,
  cmsghdr: {
    size: 12,
    cmsg_len: 0,
    cmsg_level: 4,
    cmsg_type: 8,
    cmsg_data: 12,
  },
  msghdr: {
    size: 28,
    msg_name: 0,
    msg_namelen: 4,
    msg_iov: 8,
    msg_iovlen: 12,
    msg_control: 16,
    msg_controllen: 20,
    msg_flags: 24,
  },
  mmsghdr: { size: 32, msg_len: 28 },
  iovec: { size: 8, iov_base: 0, iov_len: 4 },
}

const bsdConstants = {
  ...linuxConstants,
  AF_INET6: 30,
  SOCK_CLOEXEC: NONE,
  SOCK_NONBLOCK: NONE,
  SOL_SOCKET: 0xffff,
  SO_ACCEPTCONN: 0x2,
  SO_LINGER: 0x80,
  SO_REUSEADDR: 4,
  SO_TYPE: 0x1008,
  SO_SNDBUF: 0x1001,
  SO_PASSCRED: NONE,
  SCM_PIDFD: NONE,
  MSG_CTRUNC: 0x20,
  MSG_TRUNC: 0x10,
  MSG_DONTWAIT: 0x80,
  MSG_NOSIGNAL: 0x80000,
  MSG_CMSG_CLOEXEC: NONE,
  FIOCLEX: 0x20006601,
  FIONBIO: 0x8004667e,
  RLIMIT_NOFILE: 8,
  ETOOMANYREFS: 59,
} as const

const darwin: Abi = {
  name: 'darwin',
  pointerSize: 8,
  cmsgAlignment: 4,
  cmsghdr: {
    size: 12,
    cmsg_len: 0,
    cmsg_level: 4,
    cmsg_type: 8,
    cmsg_data: 12,
  },
  msghdr: {
    size: 48,
    msg_name: 0,
    msg_namelen: 8,
    msg_iov: 16,
    msg_iovlen: 24,
    msg_control: 32,
    msg_controllen: 40,
    msg_flags: 44,
  },
  mmsghdr: { size: NONE, msg_len: NONE },
  epoll_event: { size: NONE, data: NONE },
  iovec: { size: 16, iov_base: 0, iov_len: 8 },
  sockaddr_un: {
    sun_family: 1,
    sun_path: 2,
    sun_path_size: 104,
    hasAbstractNames: false,
  },
  peercred: {
    level: 0, // SOL_LOCAL
    option: 1, // LOCAL_PEERCRED
    size: 76, // struct xucred
    uid: 4,
    gid: 12, // cr_groups[0]
    pid: { option: 2 }, // LOCAL_PEERPID
  },
  credentials: undefined,
  maxFds: 254,
  emsgsizeMeansFull: true,
  constants: bsdConstants,
}

const freebsd: Abi = {
  ...darwin,
  name: 'freebsd 64-bit',
  cmsgAlignment: 8,
  // Here alone the data does not begin where the header of 12 bytes ends.
  cmsghdr: {
    size: 12,
    cmsg_len: 0,
    cmsg_level: 4,
    cmsg_type: 8,
    cmsg_data: 16,
  },
  mmsghdr: { size: 56, msg_len: 48 },
  peercred: { ...darwin.peercred, size: 88, pid: { offset: 80 } },
  emsgsizeMeansFull: false,
  constants: {
    ...bsdConstants,
    AF_INET6: 28,
    SOCK_CLOEXEC: 0x10000000,
    SOCK_NONBLOCK: 0x20000000,
    MSG_NOSIGNAL: 0x20000,
    MSG_CMSG_CLOEXEC: 0x40000,
  },
}

/** Every known layout, by `platform-arch` as Node names them. */
export const abis: Readonly<Record<string, Abi>> = {
  'linux-x64': linuxX64,
  'linux-arm64': linux64,
  'linux-arm': linux32,
  'darwin-x64': darwin,
  'darwin-arm64': darwin,
  'freebsd-x64': freebsd,
  'freebsd-arm64': freebsd,
}

/**
 * The layout for one platform.
 *
 * @throws Error for a platform that is not known: with a guess, a length could
 * be written over a pointer
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
        `got ${platform}-${arch}, ${byteOrder}: its struct layouts are unknown`,
    )
  }
  return abi
}

/** The running platform's layout. */
export const host: Abi = selectAbi(process.platform, process.arch, endianness())

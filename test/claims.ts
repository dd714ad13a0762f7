// What lib/ says about each platform, by the names that test/peers/abi.c has
// for it, and the comparison with what that program found in C headers.
// layouts.test.ts runs the program; test/platforms/headers.ts compiles it for
// other systems, and reads what the compiler has left in the object file.
//
// No header has these: `maxFds`, `emsgsizeMeansFull` and `hasAbstractNames`
// come from the kernels' sources.

import type { Buffer } from 'node:buffer'

import { align, lenFor, spaceFor } from '../lib/cmsg.ts'
import { type Abi, abis } from '../lib/layouts.ts'
import { inetAddress } from '../lib/socket/sockaddr.ts'

/** Numbers by the name of what they are the number of. */
export type Values = ReadonlyMap<string, number>

/** The longest payload for which the CMSG_ macros are compared. */
const MOST_BYTES = 259

// Bytes that stand nowhere else in an address that is made of them.
const HOST = 0xaa
const PORT = 0xbb

/** The family is here at the latest, where a length may be of equal value. */
const FAMILY = 1

/** Numbers that lib/ writes down for every platform, beside their use. */
const everywhere = {
  SHUT_WR: 1,
  F_GETFD: 1,
  F_SETFD: 2,
  FD_CLOEXEC: 1,
  POLLOUT: 4,
  LOCK_EX: 2,
  LOCK_NB: 4,
  O_ACCMODE: 3,
  'linger.size': 8,
}

/** And those that it uses on Linux only. */
const onLinux = {
  O_PATH: 0o10000000,
  O_CLOEXEC: 0o2000000,
  EPOLLIN: 1,
  EPOLLOUT: 4,
  EPOLLERR: 0x8,
  EPOLLHUP: 0x10,
  EPOLLRDHUP: 0x2000,
  EPOLLET: 0x80000000,
  EPOLLONESHOT: 1 << 30,
  EPOLL_CTL_ADD: 1,
  EPOLL_CTL_DEL: 2,
  EPOLL_CTL_MOD: 3,
  F_DUPFD_CLOEXEC: 1030,
  F_ADD_SEALS: 1033,
  MFD_CLOEXEC: 1,
  MFD_ALLOW_SEALING: 2,
  POLLRDHUP: 0x2000,
  TIOCGPTN: 0x80045430,
  FIONREAD: 0x541b,
  SO_OOBINLINE: 10,
}

/**
 * What the headers of a C library may be too old for, which says nothing about
 * the kernel.
 */
export function youngOn(platform: string): readonly string[] {
  return platform === 'linux' ? ['SCM_PIDFD'] : []
}

/**
 * All that lib/ says about one platform.
 *
 * @param name as in `abis`: 'linux-x64'
 */
export function claimsOf(name: string): Values {
  const abi = abis[name]
  if (abi === undefined) throw new Error(`Expected a platform, got ${name}`)
  const [platform = ''] = name.split('-')
  const { level, option, size, uid, gid, pid } = abi.peercred
  const { sun_family, sun_path, sun_path_size } = abi.sockaddr_un
  const claims = new Map(
    Object.entries({
      pointerSize: abi.pointerSize,
      ...fields('msghdr', abi.msghdr),
      ...fields('mmsghdr', abi.mmsghdr),
      ...fields('iovec', abi.iovec),
      ...fields('cmsghdr', abi.cmsghdr),
      ...fields('epoll_event', abi.epoll_event),
      ...fields('sockaddr_un', { sun_family, sun_path, sun_path_size }),
      ...fields('peercred', { level, option, size, uid, gid }),
      ...fields('peercred.pid', pid),
      ...abi.constants,
      ...(abi.credentials && fields('credentials', abi.credentials)),
      ...addressFields(abi),
      ...everywhere,
      ...(platform === 'linux' && {
        ...onLinux,
        ...(abi.pointerSize === 8 && { SO_RCVTIMEO: 20 }),
        EPOLL_CLOEXEC: abi.constants.SOCK_CLOEXEC, // as lib/wait/epoll.ts says
      }),
    }),
  )
  for (let n = 0; n <= MOST_BYTES; n++) {
    claims.set(`cmsgAlign(${n})`, align(n, abi))
    claims.set(`cmsgLen(${n})`, lenFor(n, abi))
    claims.set(`cmsgSpace(${n})`, spaceFor(n, abi))
  }
  return claims
}

function fields(struct: string, values: Readonly<Record<string, number>>) {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [`${struct}.${name}`, value]),
  )
}

// sockaddr.ts has no tables for these: found in the addresses that it makes.
function addressFields(abi: Abi): Record<string, number> {
  const { AF_INET, AF_INET6 } = abi.constants
  const port = PORT * 0x101
  const v4 = inetAddress([HOST, HOST, HOST, HOST].join('.'), port, abi)
  const v6 = inetAddress(`${'aaaa:'.repeat(7)}aaaa`, port, abi)
  return {
    'sockaddr_in.size': v4.length,
    'sockaddr_in.sin_family': v4.lastIndexOf(AF_INET, FAMILY),
    'sockaddr_in.sin_port': v4.indexOf(PORT),
    'sockaddr_in.sin_addr': v4.indexOf(HOST),
    'sockaddr_in6.size': v6.length,
    'sockaddr_in6.sin6_family': v6.lastIndexOf(AF_INET6, FAMILY),
    'sockaddr_in6.sin6_port': v6.indexOf(PORT),
    'sockaddr_in6.sin6_addr': v6.indexOf(HOST),
  }
}

/** The values in what test/peers/abi.c prints, or in its object file. */
export function valuesIn(bytes: Buffer): Values {
  // A name ends with a blank as it is printed, and with zeros in the object.
  const line = /([A-Za-z][\w.()]*)(?: |\0+)(\d{10})\n/g
  const found = bytes.toString('latin1').matchAll(line)
  return new Map(Array.from(found, ([, name = '', n]) => [name, Number(n)]))
}

/**
 * Compares what lib/ says with what the headers have.
 *
 * @param mayLack names that the headers need not have
 * @returns names for which both have the same value; those of `mayLack` that
 * the headers do not have; and a line for each other name, of either side
 */
export function compare(
  claims: Values,
  headers: Values,
  mayLack: readonly string[] = [],
): { same: string[]; lacking: string[]; differences: string[] } {
  const same = []
  const lacking = []
  const differences = []
  for (const name of new Set([...claims.keys(), ...headers.keys()])) {
    const ours = claims.get(name)
    const theirs = headers.get(name)
    if (ours === theirs) same.push(name)
    else if (theirs === 0 && mayLack.includes(name)) lacking.push(name)
    else
      differences.push(`${name}: Expected ${text(theirs)}, got ${text(ours)}`)
  }
  return { same, lacking, differences }
}

function text(value: number | undefined): string {
  return value === undefined ? 'nothing' : `${value}`
}

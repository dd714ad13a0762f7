// Addresses as the bytes that bind(2) and connect(2) take. Nothing here makes
// a call. Open unix(7), ip(7) and ipv6(7) beside it.
//
//    sockaddr_un      sockaddr_in          sockaddr_in6
//     0  sun_family    0  sin_family  2     0  sin6_family    2
//     2  sun_path      2  sin_port    2     2  sin6_port      2
//                      4  sin_addr    4     4  sin6_flowinfo  4
//                      8  (zero)      8     8  sin6_addr     16
//                     16                   24  sin6_scope_id  4
//                                          28
//
// The BSDs begin with a length byte and a family of one byte. Port and address
// are big-endian everywhere: "network byte order".
// Read next: lib/socket/options.ts.

import { Buffer } from 'node:buffer'
import { isIP, isIPv6 } from 'node:net'
import { constants } from 'node:os'

import { type Abi, host } from '../layouts.ts'

const PORT = 2
const v4 = { size: 16, address: 4 }
const v6 = { size: 28, address: 8, addressSize: 16 }

export const AF_INET = 2 // on every platform

/** What differs between platforms for TCP and UDP sockets. */
export type InetAbi = {
  /** Whether an address begins with a byte that holds its length. */
  readonly hasLength: boolean
  readonly AF_INET6: number
  readonly SO_REUSEADDR: number
}

const linux: InetAbi = { hasLength: false, AF_INET6: 10, SO_REUSEADDR: 2 }

// Read from the headers of xnu and FreeBSD, not executed there.
const others: Readonly<Record<string, InetAbi>> = {
  darwin: { hasLength: true, AF_INET6: 30, SO_REUSEADDR: 4 },
  freebsd: { hasLength: true, AF_INET6: 28, SO_REUSEADDR: 4 },
}

/** Those of one platform, as process.platform names it. */
export function inetAbi(platform: string): InetAbi {
  return others[platform] ?? linux
}

/** An abstract name (Linux) begins with a zero byte and is in no folder. */
export function isAbstract(path: string): boolean {
  return path.startsWith('\0')
}

/**
 * struct sockaddr_un. A path ends with a zero byte, an abstract name does not.
 *
 * @throws Error ENAMETOOLONG, saying how long it may be; TypeError for what is
 * no name
 */
export function unixAddress(path: string, abi: Abi = host): Buffer {
  const { sun_family, sun_path, sun_path_size, hasAbstractNames } =
    abi.sockaddr_un
  const name = Buffer.from(path)
  const most = sun_path_size - 1
  if (name.length > most) throw tooLong(path, name.length, most)
  if (path === '' || path.includes('\0', 1)) {
    throw new TypeError(`Expected a socket path, got ${JSON.stringify(path)}`)
  }
  if (isAbstract(path) && !hasAbstractNames) {
    throw new TypeError('Expected a socket path: only Linux has abstract names')
  }
  const size = sun_path + name.length + (isAbstract(path) ? 0 : 1)
  const address = Buffer.alloc(size)
  // Two bytes on Linux, of which the second is zero; one on the BSDs.
  if (sun_family === 1) address[0] = size
  address[sun_family] = abi.constants.AF_UNIX
  name.copy(address, sun_path)
  return address
}

function tooLong(path: string, length: number, most: number): Error {
  const message =
    `Expected a socket path of at most ${most} bytes, ` +
    `got ${length}: ${path}`
  return Object.assign(new Error(message), {
    code: 'ENAMETOOLONG',
    errno: -constants.errno.ENAMETOOLONG,
  })
}

/**
 * struct sockaddr_in or sockaddr_in6.
 *
 * @param address IPv4 or IPv6 in digits, without a zone
 * @throws RangeError for what is no address or no port
 */
export function inetAddress(
  address: string,
  port: number,
  abi: InetAbi = inetAbi(process.platform),
): Buffer {
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw new RangeError(`Expected a port from 0 to 65535, got ${port}`)
  }
  if (isIP(address) === 0 || address.includes('%')) {
    throw new RangeError(`Expected an IP address in digits, got ${address}`)
  }
  const layout = isIPv6(address) ? v6 : v4
  const family = isIPv6(address) ? abi.AF_INET6 : AF_INET
  const name = Buffer.alloc(layout.size)
  if (abi.hasLength) name.set([layout.size, family])
  else name.writeUInt16LE(family)
  name.writeUInt16BE(port, PORT)
  name.set(
    isIPv6(address) ? v6Bytes(address) : v4Bytes(address),
    layout.address,
  )
  return name
}

function v4Bytes(address: string): number[] {
  return address.split('.').map(Number)
}

// `::` stands once for as many zeros as are missing.
function v6Bytes(address: string): number[] {
  const [before = [], after = []] = address.split('::').map(groupBytes)
  const missing = v6.addressSize - before.length - after.length
  return [...before, ...new Array<number>(missing).fill(0), ...after]
}

// Four hexadecimal digits a group; the last may be an IPv4 address.
function groupBytes(text: string): number[] {
  return text.split(':').flatMap((group) => {
    if (group === '') return []
    if (group.includes('.')) return v4Bytes(group)
    const value = Number.parseInt(group, 16)
    return [value >> 8, value & 0xff]
  })
}

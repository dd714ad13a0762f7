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

/** An abstract name (Linux) begins with a zero byte and is in no folder. */
export function isAbstract(path: string): boolean {
  return path.startsWith('\0')
}

/**
 * struct sockaddr_un. A path ends with a zero byte. An abstract name does not:
 * it begins with one, fills what there is, and may have others inside.
 *
 * @throws Error ENAMETOOLONG, saying how long it may be; TypeError for what is
 * no name
 */
export function unixAddress(path: string, abi: Abi = host): Buffer {
  const { sun_family, sun_path, sun_path_size, hasAbstractNames } =
    abi.sockaddr_un
  const isName = isAbstract(path)
  const name = Buffer.from(path)
  const longest = isName ? sun_path_size : sun_path_size - 1
  if (name.length > longest) throw tooLong(path, name.length, longest)
  if (path === '' || (!isName && path.includes('\0'))) {
    throw new TypeError(`Expected a socket path, got ${JSON.stringify(path)}`)
  }
  if (isName && !hasAbstractNames) {
    throw new TypeError('Expected a socket path: only Linux has abstract names')
  }
  const size = sun_path + name.length + (isName ? 0 : 1)
  const address = Buffer.alloc(size)
  // Two bytes on Linux, of which the second is zero; one on the BSDs.
  if (sun_family === 1) address[0] = size
  address[sun_family] = abi.constants.AF_UNIX
  name.copy(address, sun_path)
  return address
}

/**
 * The path in a struct sockaddr_un, `'\0name'` for an abstract name, '' for a
 * socket that has neither.
 */
export function parseUnixAddress(address: Buffer, abi: Abi = host): string {
  const name = address.toString('utf8', abi.sockaddr_un.sun_path)
  if (isAbstract(name)) return abi.sockaddr_un.hasAbstractNames ? name : ''
  return name.split('\0', 1)[0] ?? ''
}

function tooLong(path: string, length: number, longest: number): Error {
  const message =
    `Expected a socket path of at most ${longest} bytes, ` +
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
  abi: Abi = host,
): Buffer {
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw new RangeError(`Expected a port from 0 to 65535, got ${port}`)
  }
  if (isIP(address) === 0 || address.includes('%')) {
    throw new RangeError(`Expected an IP address in digits, got ${address}`)
  }
  const layout = isIPv6(address) ? v6 : v4
  const { AF_INET, AF_INET6 } = abi.constants
  const family = isIPv6(address) ? AF_INET6 : AF_INET
  const name = Buffer.alloc(layout.size)
  if (abi.sockaddr_un.sun_family === 1) name.set([layout.size, family])
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

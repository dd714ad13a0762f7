// Calls of C in words, for `NODE_DEBUG=fdpass`: each call that the library makes
// is printed on stderr as strace(1) would print it, with what its structs hold.
// Unless that is set, none of this is used.
// Read next: lib/ffi/choose.ts.

import { Buffer } from 'node:buffer'
import { debuglog, getSystemErrorName } from 'node:util'

import { parseFor } from '../cmsg.ts'
import { type Abi, host } from '../layouts.ts'
import type { Call, Memory, Param } from './types.ts'

const debug = debuglog('fdpass')

/** Whether calls are printed: `fdpass` is in NODE_DEBUG. */
export const isTracing: boolean = debug.enabled

/** At most so many bytes of data are shown. */
const SHOWN = 32

/** Memory that calls are given addresses into, while tracing. */
const regions: Pick<Memory, 'bytes' | 'base'>[] = []

/** Notes memory, so that the structs in it can be shown. */
export function noteMemory(bytes: Buffer, base: number): void {
  regions.push({ bytes, base })
}

/** A function that prints each call of `call`. */
export function traced(
  name: string,
  params: readonly Param[],
  call: Call,
): Call {
  return (...values) => {
    // sendmsg(2) is shown as it was given, recvmsg(2) as it came back.
    const given = name === 'sendmsg' ? describe(name, params, values) : ''
    const result = call(...values)
    const shown = given || describe(name, params, values, result)
    debug('%s(%s) = %s', name, shown, outcome(result))
    return result
  }
}

/** Errors are -1 to -MAX_ERRNO; what is below is a pointer, cut to 32 bits. */
const MAX_ERRNO = 4095 // <linux/err.h>

function outcome(result: number): string {
  if (result >= 0) return `${result}`
  if (result < -MAX_ERRNO) return `${result >>> 0}`
  return `-1 ${getSystemErrorName(result)}`
}

function describe(
  name: string,
  params: readonly Param[],
  values: readonly (number | bigint)[],
  result?: number,
): string {
  const [fd, second = 0, third = 0, fourth = 0] = values
  switch (name) {
    case 'sendmsg':
    case 'recvmsg':
      return `${fd}, ${message(Number(second), result)}, ${flags(third, 'MSG_')}`
    case 'epoll_ctl':
      return `${fd}, ${operations[Number(second)]}, ${third}, ${events(fourth)}`
    case 'socket':
    case 'socketpair':
      return `${flags(fd ?? 0, 'AF_')}, ${socketType(second)}, ${third}`
    default:
      return values.map((value, i) => plain(value, params[i])).join(', ')
  }
}

const operations = ['', 'EPOLL_CTL_ADD', 'EPOLL_CTL_DEL', 'EPOLL_CTL_MOD']

// Data and control messages of the msghdr at an address.
function message(address: number, result: number | undefined): string {
  const { msghdr, iovec } = host
  if (result !== undefined && result < 0) return '…'
  const iov = pointerAt(address + msghdr.msg_iov)
  const length = result ?? numberAt(iov + iovec.iov_len)
  const data = bytesAt(pointerAt(iov + iovec.iov_base), length)
  const controlLength = numberAt(address + msghdr.msg_controllen)
  const control = bytesAt(
    pointerAt(address + msghdr.msg_control),
    controlLength,
  )
  return `{data: ${text(data, length)}, control: [${controls(control)}]}`
}

function text(data: Buffer, length: number): string {
  const shown = JSON.stringify(data.toString('latin1', 0, SHOWN))
  return length > SHOWN ? `${shown}... (${length} bytes)` : shown
}

function controls(control: Buffer): string {
  const { SOL_SOCKET, SCM_RIGHTS } = host.constants
  const described = parseFor(control, host).map(({ level, type, data }) => {
    if (level !== SOL_SOCKET || type !== SCM_RIGHTS) {
      return `level ${level}, type ${type}, ${data.length} bytes`
    }
    const fds = Array.from({ length: data.length / 4 }, (_, i) => {
      return data.readInt32LE(4 * i)
    })
    return `SCM_RIGHTS [${fds.join(', ')}]`
  })
  return described.join('; ')
}

function socketType(type: number | bigint): string {
  const { SOCK_CLOEXEC, SOCK_NONBLOCK } = host.constants
  const kind = Number(type) & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)
  const name = { 1: 'SOCK_STREAM', 2: 'SOCK_DGRAM', 5: 'SOCK_SEQPACKET' }[kind]
  const others = ['SOCK_CLOEXEC', 'SOCK_NONBLOCK'] as const
  const set = others.filter((flag) => Number(type) & host.constants[flag])
  return [name ?? kind, ...set].join('|')
}

function events(address: number | bigint): string {
  const names = { EPOLLIN: 1, EPOLLOUT: 4, EPOLLRDHUP: 0x2000 }
  const shown = numberAt(Number(address))
  const set = Object.entries(names).filter(([, bit]) => shown & bit)
  const how =
    shown & (1 << 30) ? ['EPOLLONESHOT'] : shown < 0 ? ['EPOLLET'] : []
  return `{${[...set.map(([name]) => name), ...how].join('|') || 0}}`
}

// The names of the constants with this prefix that are in `value`.
function flags(value: number | bigint, prefix: string): string {
  const known = Object.entries(host.constants as Abi['constants'])
  const set = known.filter(([name, bit]) => {
    return name.startsWith(prefix) && bit !== 0 && (Number(value) & bit) === bit
  })
  return set.map(([name]) => name).join('|') || `${value}`
}

// What an address leads to is shown for some functions only.
function plain(value: number | bigint, param: Param | undefined): string {
  if (param !== 'pointer') return `${value}`
  return Number(value) === 0 ? 'NULL' : '…'
}

function bytesAt(address: number, length: number): Buffer {
  const found = regions.find(({ bytes, base }) => {
    return address >= base && address < base + bytes.length
  })
  if (found === undefined) return Buffer.alloc(0)
  const start = address - found.base
  return found.bytes.subarray(start, start + length)
}

function numberAt(address: number): number {
  const bytes = bytesAt(address, 4)
  return bytes.length === 4 ? bytes.readInt32LE() : 0
}

function pointerAt(address: number): number {
  const bytes = bytesAt(address, host.pointerSize)
  if (bytes.length < host.pointerSize) return 0
  const upper = host.pointerSize === 8 ? bytes.readUInt32LE(4) : 0
  return upper * 2 ** 32 + bytes.readUInt32LE()
}

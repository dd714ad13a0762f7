// The bytes of ancillary data: what the CMSG_* macros compute, one SCM_RIGHTS
// control message built, any control buffer taken apart. Pure arithmetic, no
// calls. Open cmsg(3) and unix(7) beside it.
//
// A control buffer with one control message of one descriptor, 64-bit Linux:
//
//    0               8       12      16      20      24
//    | cmsg_len = 20 | level | type  |  fd   |padding|
//    |<------------- CMSG_LEN(4) = 20 ------>|
//    |<------------ CMSG_SPACE(4) = 24 ------------->|
//
// LEN is what stands in cmsg_len: header and payload. SPACE is what the message
// takes up: LEN, rounded up so that the next header is aligned. One descriptor
// fills 24 bytes and so do two. A receiver with room for one may therefore get
// two, and must count what came.

import { Buffer } from 'node:buffer'

import { type Abi, host } from './abi.ts'

export type ControlMessage = {
  /** cmsg_level, such as SOL_SOCKET. */
  readonly level: number
  /** cmsg_type, such as SCM_RIGHTS. */
  readonly type: number
  /** The payload, without header and padding. */
  readonly data: Buffer
}

// A control message by the place of its payload, from `start` to before `end`.
type Span = {
  readonly level: number
  readonly type: number
  readonly start: number
  readonly end: number
}

/** sizeof(int): a descriptor travels as a signed 32-bit number. */
const FD_SIZE = 4

/** msg_controllen is 32 bits wide on some platforms, and signed in the kernel. */
const MAX_LENGTH = 0x7fffffff

/** CMSG_ALIGN: `length` in bytes, rounded up to where a header may begin. */
export function cmsgAlign(length: number, abi: Abi = host): number {
  checkLength(length, abi)
  return Math.ceil(length / abi.cmsgAlignment) * abi.cmsgAlignment
}

/** CMSG_LEN: the cmsg_len of a message with `dataLength` bytes of payload. */
export function cmsgLen(dataLength: number, abi: Abi = host): number {
  checkLength(dataLength, abi)
  return abi.cmsghdr.cmsg_data + dataLength
}

/** CMSG_SPACE: the bytes that a message with such a payload takes up. */
export function cmsgSpace(dataLength: number, abi: Abi = host): number {
  return abi.cmsghdr.cmsg_data + cmsgAlign(dataLength, abi)
}

/**
 * One SCM_RIGHTS control message that carries `fds`, padding included and
 * zeroed. Neither duplicates nor closes them.
 *
 * @throws RangeError for what is not a descriptor number
 */
export function unixRights(...fds: number[]): Buffer {
  return buildRights(fds)
}

/** `unixRights`, for any layout. */
export function buildRights(fds: readonly number[], abi: Abi = host): Buffer {
  const size = cmsgSpace(fds.length * FD_SIZE, abi)
  const message = Buffer.allocUnsafe(size).fill(0)
  const { cmsg_len, cmsg_level, cmsg_type, cmsg_data } = abi.cmsghdr
  message.writeUInt32LE(cmsgLen(fds.length * FD_SIZE, abi), cmsg_len)
  message.writeInt32LE(abi.constants.SOL_SOCKET, cmsg_level)
  message.writeInt32LE(abi.constants.SCM_RIGHTS, cmsg_type)
  let offset = cmsg_data
  for (const fd of fds) {
    if (!Number.isInteger(fd) || fd < 0 || fd > MAX_LENGTH) {
      throw new RangeError(`Expected a file descriptor, got ${String(fd)}`)
    }
    offset = message.writeInt32LE(fd, offset)
  }
  return message
}

/**
 * The control messages in a control buffer, in order. The payloads are views
 * into `control`, not copies.
 *
 * @throws Error if a header claims less than itself or more than there is
 */
export function parseControlMessages(
  control: Uint8Array,
  abi: Abi = host,
): ControlMessage[] {
  const bytes = asBuffer(control)
  return walk(bytes, abi, refuse).map(({ level, type, start, end }) => {
    return { level, type, data: bytes.subarray(start, end) }
  })
}

/**
 * The descriptors that an SCM_RIGHTS control message carries. The caller owns
 * each of them and must close it.
 *
 * @throws Error for any other control message: a payload of credentials, read
 * as descriptors, would have the caller close somebody else's
 */
export function parseUnixRights(
  message: ControlMessage,
  abi: Abi = host,
): number[] {
  if (!isRights(message, abi)) {
    throw new Error(
      'Expected an SCM_RIGHTS control message, ' +
        `got level ${message.level}, type ${message.type}`,
    )
  }
  return checkGranted(readInts(message.data, 0, message.data.length))
}

/**
 * The descriptors in a control buffer, to be closed each: those that SCM_RIGHTS
 * control messages carry, and the others, that nobody sent: see descriptorsIn.
 *
 * @throws Error as parseControlMessages and parseUnixRights do
 */
export function splitDescriptors(
  control: Uint8Array,
  abi: Abi = host,
): { rights: number[]; others: number[] } {
  const bytes = asBuffer(control)
  const rights: number[] = []
  const others: number[] = []
  for (const span of walk(bytes, abi, refuse)) {
    const { start, end } = span
    if (isRights(span, abi)) rights.push(...readInts(bytes, start, end))
    else if (isPidfd(span, abi)) others.push(...readInts(bytes, start, end))
  }
  checkGranted(rights)
  return { rights, others }
}

/**
 * Every descriptor that came with a control buffer, however malformed, so that
 * it can be closed: those of SCM_RIGHTS, and the one that SCM_PIDFD brings.
 */
export function descriptorsIn(control: Uint8Array, abi: Abi = host): number[] {
  const bytes = asBuffer(control)
  // A security module may refuse single descriptors and leave -1 in the slot.
  return walk(bytes, abi, tolerate)
    .filter((span) => isRights(span, abi) || isPidfd(span, abi))
    .flatMap(({ start, end }) => readInts(bytes, start, end))
    .filter((fd) => fd >= 0)
}

/** How many descriptors came with a control buffer, without a list of them. */
export function countDescriptors(control: Uint8Array, abi: Abi = host): number {
  let bytes = 0
  for (const span of walk(asBuffer(control), abi, tolerate)) {
    const carries = isRights(span, abi) || isPidfd(span, abi)
    if (carries) bytes += span.end - span.start
  }
  return Math.floor(bytes / FD_SIZE)
}

export function isRights(
  { level, type }: { readonly level: number; readonly type: number },
  abi: Abi = host,
): boolean {
  return level === abi.constants.SOL_SOCKET && type === abi.constants.SCM_RIGHTS
}

function isPidfd({ level, type }: Span, abi: Abi): boolean {
  const { SOL_SOCKET, SCM_PIDFD } = abi.constants
  return SCM_PIDFD !== 0 && level === SOL_SOCKET && type === SCM_PIDFD
}

// CMSG_FIRSTHDR and CMSG_NXTHDR. Nothing in the buffer is believed: darwin
// leaves the original cmsg_len behind when it cut a message short, and a
// cmsg_len of 0 sends the C macro of the BSDs round for ever. So a payload ends
// where the buffer ends, and a header that claims less than itself ends the
// walk. The padding of the last message may be missing.
function walk(
  bytes: Buffer,
  abi: Abi,
  onLie: (claimed: number, least: number, most: number) => void,
): Span[] {
  const { cmsg_len, cmsg_level, cmsg_type, cmsg_data } = abi.cmsghdr
  const spans: Span[] = []
  let start = 0
  while (bytes.length - start >= cmsg_data) {
    const claimed = bytes.readUInt32LE(start + cmsg_len)
    const available = bytes.length - start
    if (claimed < cmsg_data || claimed > available) {
      onLie(claimed, cmsg_data, available)
    }
    spans.push({
      level: bytes.readInt32LE(start + cmsg_level),
      type: bytes.readInt32LE(start + cmsg_type),
      start: start + cmsg_data,
      end: start + Math.min(claimed, available),
    })
    if (claimed < cmsg_data || claimed >= available) break
    start += cmsgAlign(claimed, abi)
  }
  return spans
}

function refuse(claimed: number, least: number, most: number): never {
  throw new Error(
    `Expected a cmsg_len of ${least} to ${most} bytes, got ${claimed}`,
  )
}

function tolerate(): void {}

function asBuffer(bytes: Uint8Array): Buffer {
  if (Buffer.isBuffer(bytes)) return bytes
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

// A payload that is no multiple of an int ends in a scrap, not a descriptor.
function readInts(bytes: Buffer, start: number, end: number): number[] {
  const ints = []
  for (let at = start; at + FD_SIZE <= end; at += FD_SIZE) {
    ints.push(bytes.readInt32LE(at))
  }
  return ints
}

function checkGranted(fds: number[]): number[] {
  const denied = fds.findIndex((fd) => fd < 0)
  if (denied < 0) return fds
  throw new Error(`Expected descriptors, got ${fds[denied]} in slot ${denied}`)
}

function checkLength(length: number, abi: Abi): void {
  const most = MAX_LENGTH - abi.cmsghdr.cmsg_data - abi.cmsgAlignment
  if (!Number.isInteger(length) || length < 0 || length > most) {
    throw new RangeError(`Expected 0 to ${most} bytes, got ${length}`)
  }
}

// The bytes of ancillary data: what the CMSG_* macros compute, a control
// message of type SCM_RIGHTS built, and a control buffer taken apart. Pure
// arithmetic, no calls. Open cmsg(3) and unix(7) beside it.
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
// two, and must count what came. Read next: lib/msghdr.ts.

import { Buffer } from 'node:buffer'

import { type Abi, host } from './layouts.ts'

/** The level and type of a control message that carries descriptors, here. */
export const { SOL_SOCKET, SCM_RIGHTS } = host.constants

/** sizeof(int): a descriptor travels as a signed 32-bit number. */
export const FD_SIZE = 4

/** msg_controllen has 32 bits on some platforms, signed ones in the kernel. */
const MAX_LENGTH = 0x7fffffff

/** A uid or a gid has 32 bits, of which none is a sign. */
const MAX_ID = 0xffffffff

/**
 * CMSG_LEN of cmsg(3): the cmsg_len for `dataLength` bytes of payload.
 *
 * @throws RangeError for what is no length of a payload
 */
export function cmsgLen(dataLength: number): number {
  return lenFor(dataLength, host)
}

/**
 * CMSG_SPACE of cmsg(3): the bytes that such a message takes up.
 *
 * @throws RangeError for what is no length of a payload
 */
export function cmsgSpace(dataLength: number): number {
  return spaceFor(dataLength, host)
}

/** cmsgLen(), for any layout. */
export function lenFor(dataLength: number, abi: Abi): number {
  align(dataLength, abi) // for its check
  return abi.cmsghdr.cmsg_data + dataLength
}

/** cmsgSpace(), for any layout. */
export function spaceFor(dataLength: number, abi: Abi): number {
  return abi.cmsghdr.cmsg_data + align(dataLength, abi)
}

/** CMSG_ALIGN of cmsg(3): `length`, rounded up to where a header may begin. */
export function align(length: number, abi: Abi): number {
  const longest = MAX_LENGTH - abi.cmsghdr.cmsg_data - abi.cmsgAlignment
  if (!Number.isInteger(length) || length < 0 || length > longest) {
    throw new RangeError(`Expected 0 to ${longest} bytes, got ${length}`)
  }
  return Math.ceil(length / abi.cmsgAlignment) * abi.cmsgAlignment
}

/**
 * One SCM_RIGHTS control message that carries `fds`, padding included and
 * zeroed, for `conn.sendmsg`. Neither duplicates nor closes the descriptors.
 *
 * @throws RangeError for what is no descriptor number
 * @see unix(7)
 */
export function unixRights(...fds: number[]): Buffer {
  return buildRights(fds, host)
}

/** unixRights(), for any layout. */
export function buildRights(fds: readonly number[], abi: Abi): Buffer {
  const { SCM_RIGHTS } = abi.constants
  const message = buildMessage(SCM_RIGHTS, fds.length * FD_SIZE, abi)
  let offset = abi.cmsghdr.cmsg_data
  for (const fd of fds) {
    if (!Number.isInteger(fd) || fd < 0 || fd > MAX_LENGTH) {
      throw new RangeError(`Expected a file descriptor, got ${String(fd)}`)
    }
    offset = message.writeInt32LE(fd, offset)
  }
  return message
}

// A control message of the level SOL_SOCKET, its payload and padding zeroed.
function buildMessage(type: number, dataLength: number, abi: Abi): Buffer {
  const size = spaceFor(dataLength, abi)
  const message = Buffer.allocUnsafe(size).fill(0)
  const { cmsg_len, cmsg_level, cmsg_type } = abi.cmsghdr
  message.writeUInt32LE(lenFor(dataLength, abi), cmsg_len)
  message.writeInt32LE(abi.constants.SOL_SOCKET, cmsg_level)
  message.writeInt32LE(type, cmsg_type)
  return message
}

/** A process and its user: struct ucred in unix(7). */
export type Credentials = {
  /** 0 where the kernel does not tell. */
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

/**
 * One SCM_CREDENTIALS control message, for `conn.sendmsg`: says who sends. The
 * kernel checks it, and lets only a privileged process name another one.
 * The receiver gets it if its socket was made with `passCredentials`. Linux
 * only.
 *
 * @throws RangeError for what is no pid, uid or gid; Error on other systems
 * @see unix(7)
 */
export function unixCredentials(credentials: Credentials): Buffer {
  const { type, size, pid, uid, gid } = credentialsLayout()
  const message = buildMessage(type, size, host)
  const at = host.cmsghdr.cmsg_data
  message.writeInt32LE(checkId('pid', credentials.pid, MAX_LENGTH), at + pid)
  message.writeUInt32LE(checkId('uid', credentials.uid, MAX_ID), at + uid)
  message.writeUInt32LE(checkId('gid', credentials.gid, MAX_ID), at + gid)
  return message
}

/**
 * The credentials that an SCM_CREDENTIALS control message carries. Linux only.
 *
 * @throws Error for any other control message, and on other systems
 * @see unix(7)
 */
export function parseUnixCredentials(message: ControlMessage): Credentials {
  const layout = credentialsLayout()
  const { data, level, type } = message
  const isThat = level === host.constants.SOL_SOCKET && type === layout.type
  const found = isThat && readCredentials(data, 0, data.length, layout)
  if (!found) throw unexpected('SCM_CREDENTIALS', message)
  return found
}

// Undefined for a payload that is too short.
function readCredentials(
  bytes: Buffer,
  start: number,
  end: number,
  { size, pid, uid, gid }: UcredLayout,
): Credentials | undefined {
  if (end - start < size) return undefined
  return {
    pid: bytes.readInt32LE(start + pid),
    uid: bytes.readUInt32LE(start + uid),
    gid: bytes.readUInt32LE(start + gid),
  }
}

type UcredLayout = NonNullable<Abi['credentials']>

function credentialsLayout(): UcredLayout {
  if (host.credentials) return host.credentials
  throw new Error(
    `Expected Linux, got ${host.name}: only Linux has SCM_CREDENTIALS`,
  )
}

function checkId(name: string, id: number, largest: number): number {
  if (Number.isInteger(id) && id >= 0 && id <= largest) return id
  throw new RangeError(`Expected ${name} from 0 to ${largest}, got ${id}`)
}

/** One control message of a control buffer, as cmsg(3) describes it. */
export type ControlMessage = {
  /** cmsg_level, such as SOL_SOCKET. */
  readonly level: number
  /** cmsg_type, such as SCM_RIGHTS. */
  readonly type: number
  /** The payload, without header and padding. */
  readonly data: Buffer
}

/**
 * The control messages in a control buffer, in order. The payloads are views
 * into `control`, not copies.
 *
 * @throws Error if a header claims less than itself or more than there is
 * @see cmsg(3), CMSG_FIRSTHDR and CMSG_NXTHDR
 */
export function parseControlMessages(control: Uint8Array): ControlMessage[] {
  return parseFor(control, host)
}

/** parseControlMessages(), for any layout. */
export function parseFor(control: Uint8Array, abi: Abi): ControlMessage[] {
  const bytes = asBuffer(control)
  return walk(bytes, true, abi).map(({ level, type, start, end }) => {
    return { level, type, data: bytes.subarray(start, end) }
  })
}

/**
 * The descriptors that an SCM_RIGHTS control message carries. The caller owns
 * each of them and must close it.
 *
 * @throws Error for any other control message: a payload of credentials, read
 * as descriptors, would have the caller close descriptors of its own
 * @see SCM_RIGHTS in unix(7)
 */
export function parseUnixRights(message: ControlMessage): number[] {
  return parseRightsFor(message, host)
}

/** parseUnixRights(), for any layout. */
export function parseRightsFor(message: ControlMessage, abi: Abi): number[] {
  if (!isRights(message, abi)) throw unexpected('SCM_RIGHTS', message)
  const { data } = message
  return checkGranted(readInts(data, 0, data.length, []))
}

function unexpected(what: string, { level, type }: ControlMessage): Error {
  const got = `level ${level}, type ${type}`
  return new Error(`Expected an ${what} control message, got ${got}`)
}

/** Whether a control message is of the type SCM_RIGHTS. */
export function isRights(
  message: Omit<ControlMessage, 'data'>,
  abi: Abi,
): boolean {
  const { SOL_SOCKET, SCM_RIGHTS } = abi.constants
  return message.level === SOL_SOCKET && message.type === SCM_RIGHTS
}

/** What a control buffer carries. */
export type Carried = {
  /** The descriptors of SCM_RIGHTS control messages. */
  readonly rights: number[]
  /**
   * Descriptors that the kernel itself added (SCM_PIDFD). One may be negative:
   * the -errno with which the kernel failed to make it.
   */
  readonly others: number[]
  /** Of SCM_CREDENTIALS, if there are any (Linux). */
  readonly credentials: Credentials | undefined
}

/**
 * What a control buffer carries; control messages of other types are passed
 * over.
 *
 * @throws Error as parseControlMessages and parseUnixRights do
 */
export function takeApart(control: Uint8Array, abi: Abi): Carried {
  const carried = sort(control, true, abi)
  checkGranted(carried.rights)
  return carried
}

/**
 * Every descriptor that came with a control buffer, however malformed, so that
 * it can be closed.
 */
export function descriptorsIn(control: Uint8Array): number[] {
  return descriptorsFor(control, host)
}

/** descriptorsIn(), for any layout. */
export function descriptorsFor(control: Uint8Array, abi: Abi): number[] {
  const { rights, others } = sort(control, false, abi)
  // A security module may refuse single descriptors and leave -1 in the slot.
  return rights.concat(others).filter((fd) => fd >= 0)
}

function sort(control: Uint8Array, isStrict: boolean, abi: Abi): Carried {
  const { SOL_SOCKET, SCM_RIGHTS, SCM_PIDFD } = abi.constants
  const bytes = asBuffer(control)
  const rights: number[] = []
  const others: number[] = []
  let credentials: Credentials | undefined
  for (const { level, type, start, end } of walk(bytes, isStrict, abi)) {
    if (level !== SOL_SOCKET) continue
    if (type === SCM_RIGHTS) readInts(bytes, start, end, rights)
    else if (SCM_PIDFD !== 0 && type === SCM_PIDFD) {
      readInts(bytes, start, end, others)
    } else if (type === abi.credentials?.type) {
      credentials ??= readCredentials(bytes, start, end, abi.credentials)
    }
  }
  return { rights, others, credentials }
}

// To make a Buffer takes as long as to read what is in it.
function asBuffer(control: Uint8Array): Buffer {
  if (Buffer.isBuffer(control)) return control
  return Buffer.from(control.buffer, control.byteOffset, control.length)
}

// No length in the buffer is trusted. darwin leaves the original cmsg_len there
// when it cut a message short, and a cmsg_len of 0 sends the C macro of the
// BSDs round for ever. So a payload ends where the buffer ends at the latest,
// and the walk ends at a header that claims less than itself. The padding of
// the last message may be missing.
function walk(bytes: Buffer, isStrict: boolean, abi: Abi) {
  const { cmsg_len, cmsg_level, cmsg_type, cmsg_data } = abi.cmsghdr
  const messages = []
  let start = 0
  while (bytes.length - start >= cmsg_data) {
    const available = bytes.length - start
    const claimed = bytes.readUInt32LE(start + cmsg_len)
    const isTrue = claimed >= cmsg_data && claimed <= available
    if (isStrict && !isTrue) {
      const expected = `a cmsg_len of ${cmsg_data} to ${available} bytes`
      throw new Error(`Expected ${expected}, got ${claimed}`)
    }
    const end = start + Math.max(cmsg_data, Math.min(claimed, available))
    const level = bytes.readInt32LE(start + cmsg_level)
    const type = bytes.readInt32LE(start + cmsg_type)
    messages.push({ level, type, start: start + cmsg_data, end })
    if (!isTrue || claimed === available) break
    start += align(claimed, abi)
  }
  return messages
}

// Bytes at the end of a payload that do not fill an int are no descriptor.
function readInts(bytes: Buffer, start: number, end: number, to: number[]) {
  for (let at = start; at + FD_SIZE <= end; at += FD_SIZE) {
    to.push(bytes.readInt32LE(at))
  }
  return to
}

function checkGranted(fds: number[]): number[] {
  const denied = fds.findIndex((fd) => fd < 0)
  if (denied < 0) return fds
  throw new Error(`Expected descriptors, got ${fds[denied]} in slot ${denied}`)
}

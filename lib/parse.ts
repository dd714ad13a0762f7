// The way back from bytes to control messages and descriptors. See cmsg.ts for
// the layout. Pure arithmetic, no calls; nothing in the bytes is believed.

import { Buffer } from 'node:buffer'
import { cmsgAlign, FD_SIZE, LE, viewOf } from './cmsg.ts'
import { type Abi, host } from './layouts.ts'

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
  const bytes = Buffer.from(control.buffer, control.byteOffset, control.length)
  return walk(viewOf(control), abi, refuse).map((span) => {
    const { level, type, start, end } = span
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
  return checkGranted(
    readInts(viewOf(message.data), { start: 0, end: message.data.length }),
  )
}

/**
 * The descriptors in a control buffer: those that SCM_RIGHTS control messages
 * carry, and the others, that nobody sent: see descriptorsIn. Of the others one
 * may be negative: why the kernel could not make it.
 *
 * @throws Error as parseControlMessages and parseUnixRights do
 */
export function splitDescriptors(
  control: Uint8Array,
  abi: Abi = host,
): { rights: number[]; others: number[] } {
  const sorted = sort(control, abi, refuse)
  checkGranted(sorted.rights)
  return sorted
}

/**
 * Every descriptor that came with a control buffer, however malformed, so that
 * it can be closed: those of SCM_RIGHTS, and the one that SCM_PIDFD brings.
 */
export function descriptorsIn(control: Uint8Array, abi: Abi = host): number[] {
  const { rights, others } = sort(control, abi, tolerate)
  // A security module may refuse single descriptors and leave -1 in the slot.
  return rights.concat(others).filter((fd) => fd >= 0)
}

/** How many descriptors came with a control buffer, without a list of them. */
export function countDescriptors(control: Uint8Array, abi: Abi = host): number {
  let bytes = 0
  for (const span of walk(viewOf(control), abi, tolerate)) {
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

function sort(
  control: Uint8Array,
  abi: Abi,
  onLie: OnLie,
): { rights: number[]; others: number[] } {
  const view = viewOf(control)
  let rights: number[] = []
  let others: number[] = []
  for (const span of walk(view, abi, onLie)) {
    if (isRights(span, abi)) rights = join(rights, readInts(view, span))
    else if (isPidfd(span, abi)) others = join(others, readInts(view, span))
  }
  return { rights, others }
}

type OnLie = (claimed: number, least: number, most: number) => void

// CMSG_FIRSTHDR and CMSG_NXTHDR. Nothing in the buffer is believed: darwin
// leaves the original cmsg_len behind when it cut a message short, and a
// cmsg_len of 0 sends the C macro of the BSDs round for ever. So a payload ends
// where the buffer ends, and a header that claims less than itself ends the
// walk. The padding of the last message may be missing.
function walk(view: DataView, abi: Abi, onLie: OnLie): Span[] {
  const { cmsg_len, cmsg_level, cmsg_type, cmsg_data } = abi.cmsghdr
  const spans: Span[] = []
  let start = 0
  while (view.byteLength - start >= cmsg_data) {
    const claimed = view.getUint32(start + cmsg_len, LE)
    const available = view.byteLength - start
    if (claimed < cmsg_data || claimed > available) {
      onLie(claimed, cmsg_data, available)
    }
    spans.push({
      level: view.getInt32(start + cmsg_level, LE),
      type: view.getInt32(start + cmsg_type, LE),
      start: start + cmsg_data,
      end: start + Math.max(cmsg_data, Math.min(claimed, available)),
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

// A payload that is no multiple of an int ends in a scrap, not a descriptor.
function readInts(
  view: DataView,
  { start, end }: Pick<Span, 'start' | 'end'>,
): number[] {
  const ints = new Array<number>(Math.floor((end - start) / FD_SIZE))
  for (let i = 0; i < ints.length; i++) {
    ints[i] = view.getInt32(start + i * FD_SIZE, LE)
  }
  return ints
}

function checkGranted(fds: number[]): number[] {
  const denied = fds.findIndex((fd) => fd < 0)
  if (denied < 0) return fds
  throw new Error(`Expected descriptors, got ${fds[denied]} in slot ${denied}`)
}

function join(some: number[], more: number[]): number[] {
  return some.length === 0 ? more : some.concat(more)
}

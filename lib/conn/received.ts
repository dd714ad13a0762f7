// A message as it was received: whether it is one, what is wrong with it, and
// who owns the descriptors that came with it.

import type { Buffer } from 'node:buffer'
import { closeSync } from 'node:fs'

import { host } from '../layouts.ts'
import type { Received } from '../message.ts'
import { countDescriptors, descriptorsIn, splitDescriptors } from '../parse.ts'
import { descriptorLimit } from '../socket/unix.ts'

/** How many descriptors may have come with it, without a look inside. */
export function mostFds({ control }: Received): number {
  return control.length >> 2
}

/** Whether it is no message but the end of file. */
export function isEnd({ data, control }: Received): boolean {
  // Recent FreeBSD brings descriptors with zero bytes. Credentials may stand
  // beside an end of file (SO_PASSCRED).
  return data.length === 0 && countDescriptors(control) === 0
}

/** Why a message must not be delivered, if so: then nothing of it is. */
export function problemWith(
  message: Received,
  maxFds: number,
): Error | undefined {
  const { data, control, flags } = message
  if (flags & host.constants.MSG_CTRUNC) {
    const got = countDescriptors(control)
    return Object.assign(
      new Error(
        'Expected whole ancillary data, got it truncated (MSG_CTRUNC): ' +
          `closed the ${got} descriptors that came; is the limit of open ` +
          `descriptors (${descriptorLimit()}, RLIMIT_NOFILE) reached?`,
      ),
      { code: 'ERR_FDS_TRUNCATED', data },
    )
  }
  if (mostFds(message) <= maxFds) return undefined
  const got = countDescriptors(control)
  return got > maxFds ? tooMany(maxFds, got, data) : undefined
}

/**
 * The descriptors of all rights in a message, from then on the caller's; any
 * other is closed. Where a part makes no sense, or there are more than `maxFds`
 * in all, nothing is kept of the whole.
 */
export function takeRights(message: Received, maxFds: number): number[] {
  try {
    const { rights, others } = splitDescriptors(message.control)
    const got = rights.length + others.length
    if (got > maxFds) throw tooMany(maxFds, got, message.data)
    for (const fd of others) if (fd >= 0) closeSync(fd)
    return rights
  } catch (error) {
    closeAll(message)
    throw error
  }
}

/** Closes what came with a message that is not delivered. */
export function closeAll({ control }: Received): void {
  for (const fd of descriptorsIn(control)) closeSync(fd)
}

function tooMany(maxFds: number, got: number, data: Buffer): Error {
  return Object.assign(
    new Error(`Expected at most ${maxFds} descriptors, got ${got}: closed all`),
    { code: 'ERR_TOO_MANY_FDS', data },
  )
}

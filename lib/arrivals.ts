// Where data that arrives is put: into memory in which a large message can stay
// for good, and from which a small one is copied out.
//
// A message that stays keeps all of the memory that it shares, so small ones do
// not stay. Nor does one for which there was much more room than it took: each
// would need new memory.
// Read next: lib/ffi/types.ts.

import { Buffer } from 'node:buffer'
import { markAsUntransferable } from 'node:worker_threads'

import { allocate, locate } from './libc.ts'

/** Data of so many bytes stays where it was received. */
export const LARGE = 16 * 1024

/** Memory that is taken at a time, in bytes: for several large messages. */
const BLOCK_SIZE = 256 * 1024

let block = allocate(0)
/** So many bytes of it, from the start, belong to messages that stay there. */
let taken = 0

/**
 * Room for up to `size` bytes to arrive in, until the next call of this.
 *
 * @returns its address
 */
export function roomFor(size: number): number {
  if (block.bytes.length - taken < size) {
    // Not zeroed, which would take as long as to copy the data.
    block = locate(Buffer.allocUnsafeSlow(Math.max(size, BLOCK_SIZE)))
    // Whoever transfers one message to a worker thread must not take away the
    // memory of the others.
    markAsUntransferable(block.bytes.buffer)
    taken = 0
  }
  return block.base + taken
}

/**
 * The first `length` bytes of the room that the last roomFor(`size`) gave. From
 * then on they are the caller's alone.
 */
export function takeArrived(length: number, size: number): Buffer {
  if (length < LARGE || length < size / 4) {
    return copyOf(block.bytes, taken, length)
  }
  const data = block.bytes.subarray(taken, taken + length)
  taken += length
  return data
}

/** Copies `length` bytes. What subarray() gives would share the memory. */
export function copyOf(bytes: Buffer, at: number, length: number): Buffer {
  const copy = Buffer.allocUnsafe(length)
  bytes.copy(copy, 0, at, at + length)
  return copy
}

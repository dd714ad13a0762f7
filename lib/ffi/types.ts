// What a foreign function interface has to do for us, so that either can: the
// package ffi-rs (ffi-rs.ts) or Node's own node:ffi (node-ffi.ts). Of C's types
// only those are here that the calls of this library have.
// Read next: lib/ffi/ffi-rs.ts.

import type { Buffer } from 'node:buffer'

/** An argument: int, unsigned or socklen_t, anything that is a pointer. */
export type Param = 'int' | 'uint' | 'pointer'

/**
 * A result: int, or ssize_t. 'int or -1' is an int whose errno nobody asks for,
 * which with ffi-rs takes less time.
 */
export type Result = 'int' | 'size' | 'int or -1'

declare const opaque: unique symbol

/**
 * An address as the chosen engine takes it for an argument: a number with
 * ffi-rs, a bigint with node:ffi. To make one costs time, so make it once.
 */
export type Address = (number | bigint) & { readonly [opaque]: true }

/** The arguments of a call, by the types of its parameters. */
export type Values<P extends readonly Param[]> = {
  [I in keyof P]: P[I] extends 'pointer' ? Address : number
}

/** Returns what C returns, or -errno where C returns -1 (see Result). */
export type Call = (...values: (number | bigint)[]) => number

/** Memory that C sees. It stays where it is for as long as `bytes` is kept. */
export type Memory = {
  readonly bytes: Buffer
  /** Where it begins, to be written into structs: 48 bits fit a double. */
  readonly base: number
  /** The same, to be given to a call. */
  readonly address: Address
}

/** What makes the calls: see libc.ts, which chooses one. */
export type Engine = {
  readonly name: 'ffi-rs' | 'node:ffi'
  /** A function that is missing on this platform fails when it is called. */
  declare(name: string, returns: Result, params: readonly Param[]): Call
  toAddress(location: number): Address
  /** Where the bytes of `memory`, a whole ArrayBuffer, begin. */
  locate(memory: Buffer): number
}

// How C is called: a function of the C library is declared where it is used,
// with its prototype beside it, and called like any other function. It returns
// what C returns, or -errno where C returns -1, as the kernel itself does;
// `systemError` makes an Error of that. How a call is made differs: lib/ffi/
// has a file for each engine.
//
// A variable argument of a variadic function, such as the third of ioctl(2),
// may be given on Linux only: Apple's arm64 convention puts those on the stack,
// where an interface that knows fixed arguments only does not. FIOCLEX and
// F_GETFL need none. Read next: lib/message.ts.

import { Buffer } from 'node:buffer'
import { constants } from 'node:os'
import { getSystemErrorName } from 'node:util'

import { chooseEngine } from './ffi/choose.ts'
import { ffiRs } from './ffi/ffi-rs.ts'
import { nodeFfi } from './ffi/node-ffi.ts'
import { refuseOtherRuntimes } from './ffi/runtime.ts'
import { isTracing, noteMemory, traced } from './ffi/trace.ts'
import type { Address, Memory, Param, Result, Values } from './ffi/types.ts'
import { host } from './layouts.ts'

export type { Address, Memory } from './ffi/types.ts'

refuseOtherRuntimes(process.versions)

const engine = chooseEngine(process.env.FDPASS_FFI, {
  'ffi-rs': ffiRs,
  node: nodeFfi,
})

/** What makes the calls of this process. */
export const engineName: 'ffi-rs' | 'node:ffi' = engine.name

/**
 * A C function of the process. What the platform does not have may be declared
 * all the same, but throws when it is called.
 *
 * @example
 * // int shutdown(int fd, int how)
 * const shutdown = declare('shutdown', 'int', ['int', 'int'])
 */
export function declare<const P extends readonly Param[]>(
  name: string,
  returns: Result,
  params: P,
): (...values: Values<P>) => number {
  const plain = engine.declare(name, returns, params)
  const call: unknown = isTracing ? traced(name, params, plain) : plain
  return call as (...values: Values<P>) => number
}

/**
 * As declare(), for what only some C libraries have: without the function a
 * call says -ENOSYS, as it does with a kernel that does not know it.
 */
export function declareOptional<const P extends readonly Param[]>(
  name: string,
  returns: Result,
  params: P,
): (...values: Values<P>) => number {
  const call = declare(name, returns, params)
  let isMissing = false
  return (...values) => {
    if (!isMissing) {
      try {
        return call(...values)
      } catch {
        isMissing = true
      }
    }
    return -constants.errno.ENOSYS
  }
}

/**
 * Whether the process has a C function of this name, which is called for it:
 * only for those without arguments and effects.
 */
export function hasFunction(name: string): boolean {
  return declareOptional(name, 'int', [])() !== -constants.errno.ENOSYS
}

/** Zeroed memory at a known address: see locate(). */
export function allocate(size: number): Memory {
  return locate(Buffer.from(new ArrayBuffer(size)))
}

/**
 * The address of `bytes`, a Buffer with a whole ArrayBuffer of its own. V8
 * never moves that memory, but frees it with the Buffer: keep the Buffer for as
 * long as an address into it is in use.
 */
export function locate(bytes: Buffer): Memory {
  const base = engine.locate(bytes)
  if (isTracing) noteMemory(bytes, base)
  return { bytes, base, address: toAddress(base) }
}

/** Where ArrayBuffers begin: to ask takes longer than to remember. */
const bases = new WeakMap<ArrayBufferLike, number>()

/**
 * Where the first byte of `bytes` lies, to be written into a struct for a call
 * that follows at once. Not for less than some hundred bytes, which V8 may keep
 * inside the object, and move.
 */
export function addressOf(bytes: Uint8Array): number {
  const { buffer, byteOffset } = bytes
  let base = bases.get(buffer)
  if (base === undefined) {
    base = engine.locate(Buffer.from(buffer, 0, 1))
    bases.set(buffer, base)
    if (isTracing) noteMemory(Buffer.from(buffer), base)
  }
  return base + byteOffset
}

/** A location in memory, as calls take it: to be made once. */
export function toAddress(location: number): Address {
  return engine.toAddress(location)
}

/** The null pointer. */
export const NULL: Address = toAddress(0)

/**
 * A failed system call in Node's own shape: `code`, negative `errno`,
 * `syscall`, message `sendmsg EPIPE`.
 *
 * @param errno negative, as the calls return it
 */
export function systemError(
  syscall: string,
  errno: number,
  detail = '',
): NodeJS.ErrnoException {
  const code = nameOf(errno)
  const message = `${syscall} ${code}${detail && ` ${detail}`}`
  return Object.assign(new Error(message), { code, errno, syscall })
}

// libuv, and so Node, has no name for ETOOMANYREFS.
function nameOf(errno: number): string {
  if (-errno === host.constants.ETOOMANYREFS) return 'ETOOMANYREFS'
  return getSystemErrorName(errno)
}

/** `result`, unless it is a failure: that is thrown as a `systemError`. */
export function check(syscall: string, result: number, detail = ''): number {
  if (result < 0) throw systemError(syscall, result, detail)
  return result
}

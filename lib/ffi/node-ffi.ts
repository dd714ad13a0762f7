// The engine without any package: node:ffi, which Node has by default from
// 26.10 on. It is experimental, and Node says so once on stderr. It takes and
// gives pointers as bigint, and V8 calls C directly, so that a call takes a
// small part of the time that it takes through an addon.
//
// Open https://nodejs.org/api/ffi.html beside it.
// Read next: lib/socket/calls.ts.

import type { Address, Call, Engine, Param } from './types.ts'

type Signature<R extends string> = {
  readonly return: R
  readonly arguments: readonly string[]
}

/** A loaded library, as far as it is used here. */
export type Library = {
  getFunction(name: string, signature: Signature<'int32' | 'void'>): Call
  getFunction(
    name: string,
    signature: Signature<'pointer'>,
  ): (...values: (number | bigint)[]) => bigint
  registerCallback(
    signature: Signature<'void'>,
    callback: (handle: bigint, status: number, events: number) => void,
  ): bigint
}

/** node:ffi, as far as it is used here: @types/node 20 does not know it. */
export type NodeFfi = {
  readonly DynamicLibrary: new (path: null) => Library
  getCurrentEventLoop(): bigint
  getInt32(address: bigint): number
  getRawPointer(memory: Uint8Array): bigint
}

// int32 and uint32 travel as numbers, a pointer as a bigint.
const types = { int: 'int32', uint: 'uint32', pointer: 'pointer' } as const

// int *__errno_location(void), int *__error(void)
const errnoFunctions: Readonly<Record<string, string>> = {
  linux: '__errno_location',
  darwin: '__error',
  freebsd: '__error',
}

/**
 * Node's module, and the process itself as a library: libc and libuv are in it.
 *
 * @throws Error if this Node has no node:ffi, or does not permit it
 */
export function openNodeFfi(): { ffi: NodeFfi; library: Library } {
  try {
    const ffi = builtin('node:ffi')
    return { ffi, library: new ffi.DynamicLibrary(null) }
  } catch (error) {
    throw new Error(
      'Expected node:ffi, which Node has from 26.10 on, unless started with ' +
        '--no-experimental-ffi, or with --permission and no --allow-ffi; ' +
        `got ${(error as Error).message} from Node ${process.version}`,
      { cause: error },
    )
  }
}

// Not an import, which would fail where there is none, and not by createRequire,
// for which a bundle to CommonJS has no import.meta.url.
function builtin(name: string): NodeFfi {
  const module = process.getBuiltinModule?.(name) as NodeFfi | undefined
  if (module === undefined) throw new Error(`no built-in module ${name}`)
  return module
}

/** @throws Error as openNodeFfi */
export function nodeFfi(): Engine {
  const { ffi, library } = openNodeFfi()
  const { getInt32 } = ffi
  // An address for each thread, and each thread loads this module for itself.
  const find = String(errnoFunctions[process.platform])
  const pointer = { return: 'pointer', arguments: [] } as const
  const errnoAt = library.getFunction(find, pointer)()

  // Nothing comes between the call and this, so errno is still the call's.
  const outcome = (value: number): number =>
    value === -1 ? -getInt32(errnoAt) : value

  return {
    name: 'node:ffi',
    declare: (name, _returns, params) =>
      fixArity(find32(library, name, params), params.length, outcome),
    // -1 too, for an offset: a pointer has no sign.
    toAddress: (location) => BigInt.asUintN(64, BigInt(location)) as Address,
    locate: (memory) => Number(ffi.getRawPointer(memory)),
  }
}

// The result is read as an int, an ssize_t too: its lower half tells all that a
// call here can return, and the whole would come as a bigint.
function find32(
  library: Library,
  name: string,
  params: readonly Param[],
): Call {
  const signature = {
    return: 'int32',
    arguments: params.map((param) => types[param]),
  } as const
  try {
    return library.getFunction(name, signature)
  } catch (error) {
    // The platform does not have it. That is an error only for its callers.
    return () => {
      throw error
    }
  }
}

// A function for each number of arguments: to collect them in an array and
// spread them again would cost more than the call.
function fixArity(
  call: Call,
  count: number,
  outcome: (value: number) => number,
): Call {
  const fixed: Call[] = [
    () => outcome(call()),
    (a) => outcome(call(a)),
    (a, b) => outcome(call(a, b)),
    (a, b, c) => outcome(call(a, b, c)),
    (a, b, c, d) => outcome(call(a, b, c, d)),
    (a, b, c, d, e) => outcome(call(a, b, c, d, e)),
  ]
  return fixed[count] ?? ((...values) => outcome(call(...values)))
}

// The engine for every Node: the package ffi-rs, a ready-made addon for Linux
// and macOS. It takes addresses as plain numbers, and reads errno in the same
// native call: in a later one, Node may have overwritten it.
// Read next: lib/ffi/choose.ts.

import { createRequire } from 'node:module'
import { constants } from 'node:os'

import { host } from '../layouts.ts'
import type { Address, Call, Engine, Param, Result } from './types.ts'

const library = 'libc'

/**
 * @throws Error if there is no ffi-rs binary for this platform, or if Node's
 * Permission Model forbids addons
 */
export function ffiRs(): Engine {
  // Not an import: where node:ffi is chosen ffi-rs need not be there.
  const require = createRequire(import.meta.url)
  const ffi: typeof import('ffi-rs') = require('ffi-rs')
  const { I32, I64, U32, U8Array } = ffi.DataType
  const pointer = ({ 4: U32, 8: I64 } as const)[host.pointerSize]
  const types = {
    int: I32,
    uint: U32,
    pointer,
    size: pointer,
    'int or -1': I32,
  } as const

  // An empty path is the process itself, which has its libc loaded already.
  ffi.open({ library, path: '' })

  keepLoaded(ffi, Object.keys(require.cache))

  function declare(
    funcName: string,
    returns: Result,
    params: readonly Param[],
  ): Call {
    // One parameter object serves all calls: to build it costs as much as one.
    const call = {
      library,
      funcName,
      retType: types[returns],
      paramsType: params.map((param) => types[param]),
      paramsValue: [] as unknown[],
    }
    if (returns === 'int or -1') {
      return (...values) => {
        call.paramsValue = values
        return ffi.load(call)
      }
    }
    const callWithErrno = { ...call, errno: true as const }
    return (...values) => {
      callWithErrno.paramsValue = values
      const { value, errnoCode } = ffi.load(callWithErrno)
      // As 32 bits: a 32-bit platform's ssize_t of -1 arrives as 2 ** 32 - 1.
      return (value | 0) === -1 ? -errnoCode : value
    }
  }

  return {
    name: 'ffi-rs',
    declare,
    toAddress: (location) => location as Address,
    // void *memcpy(void *dest, const void *src, size_t n) returns dest, and
    // with n = 0 does nothing else.
    locate: (memory) =>
      ffi.load({
        library,
        funcName: 'memcpy',
        retType: pointer,
        paramsType: [U8Array, U8Array, pointer],
        paramsValue: [memory, memory, 0],
      }),
  }
}

// Node unloads an addon when the last thread that uses it ends. This one leaves
// destructors for the end of the thread, which then run in memory that is gone:
// a worker thread that used it alone would end the process with SIGSEGV. To
// open it once more, and never close that, keeps it where it is.
function keepLoaded(ffi: typeof import('ffi-rs'), files: string[]): void {
  for (const file of files) {
    if (!file.endsWith('.node') || !file.includes('ffi-rs')) continue
    // void *dlopen(const char *filename, int flags)
    ffi.load({
      library,
      funcName: 'dlopen',
      retType: ffi.DataType.I64,
      paramsType: [ffi.DataType.String, ffi.DataType.I32],
      paramsValue: [file, constants.dlopen.RTLD_LAZY],
    })
  }
}

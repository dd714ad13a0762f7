// The engine for every Node: the package ffi-rs, a ready-made addon for Linux
// and macOS. It takes addresses as plain numbers, and reads errno in the same
// native call: in a later one, Node may have overwritten it.
// Read next: lib/ffi/runtime.ts.

import { readFileSync } from 'node:fs'
import { Module } from 'node:module'
import { constants } from 'node:os'

import { host } from '../layouts.ts'
import type { Address, Call, Engine, Param, Result } from './types.ts'

type FfiRs = typeof import('ffi-rs')

const library = 'libc'

/**
 * @throws Error if there is no ffi-rs binary for this platform, or if Node's
 * Permission Model forbids addons
 */
export function ffiRs(): Engine {
  const ffi = requireFfiRs()
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

  keepLoaded(ffi)

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

// Not an import: where node:ffi is chosen ffi-rs need not be there. Bundlers
// cannot see it either (webpack would see a bare `createRequire`): a native
// addon has no place in a bundle.
function requireFfiRs(): FfiRs {
  let reason: unknown
  for (const place of [import.meta.url, bundle()]) {
    if (place === undefined) continue
    try {
      return Module.createRequire(place)('ffi-rs')
    } catch (error) {
      if (codeOf(error) !== 'MODULE_NOT_FOUND') throw error
      reason = error
    }
  }
  // Without the list of files that required it.
  const [missing] = (reason as Error).message.split('\n')
  throw new Error(
    `${missing}, which has to be installed where the program runs, beside a ` +
      'bundle too',
    { cause: reason },
  )
}

// The file that this one has become a part of, if that is a bundle of CommonJS.
// There import.meta.url is undefined, or (webpack) where this file was at build
// time. In a module the name is not defined.
function bundle(): string | undefined {
  try {
    return __filename
  } catch {
    return undefined
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code
}

const RTLD_NOLOAD = 4 // <bits/dlfcn.h>: only what is loaded already

// Node unloads an addon when the last thread that uses it ends. This one leaves
// destructors for the end of the thread, which then run in memory that is gone:
// a worker thread, or a test runner's, that used it alone would end the process
// with SIGSEGV. To open it once more, and never close that, keeps it where it
// is.
function keepLoaded(ffi: FfiRs): void {
  const noLoad = process.platform === 'linux' ? RTLD_NOLOAD : 0
  for (const file of loadedAddons()) {
    // void *dlopen(const char *filename, int flags)
    ffi.load({
      library,
      funcName: 'dlopen',
      retType: ffi.DataType.I64,
      paramsType: [ffi.DataType.String, ffi.DataType.I32],
      paramsValue: [file, constants.dlopen.RTLD_LAZY | noLoad],
    })
  }
}

// Of all addons, as a bundler may have given this one another name.
function loadedAddons(): Set<string> {
  const files =
    mappedFiles() ?? Object.keys(Module.createRequire(anyFile).cache)
  return new Set(files.filter((file) => file.endsWith('.node')))
}

/** All that createRequire() gives have one cache. */
const anyFile = process.execPath

// What the kernel has mapped into this process: some loaders (vitest's) have a
// require.cache of their own. Undefined where there is no such list, or where
// the Permission Model forbids to read it. Each line of it, see proc(5):
// address, permissions, offset, device, inode, path.
function mappedFiles(): string[] | undefined {
  try {
    const lines = readFileSync('/proc/self/maps', 'utf8').split('\n')
    return lines.map((line) => line.replace(/^(\S+\s+){5}/, ''))
  } catch {
    return undefined
  }
}

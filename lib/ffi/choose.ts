// Which engine makes the calls. ffi-rs unless told otherwise: it works with
// every Node. Where it has no binary (FreeBSD, say), node:ffi steps in.
// Read next: lib/ffi/node-ffi.ts.

import type { Engine } from './types.ts'

/** The values that FDPASS_FFI may have, each with what opens that engine. */
export type Engines = Readonly<Record<'ffi-rs' | 'node', () => Engine>>

/**
 * @param wanted the value of FDPASS_FFI in the environment
 * @throws Error for any other value, and if the engine cannot be had
 */
export function chooseEngine(
  wanted: string | undefined,
  engines: Engines,
): Engine {
  if (wanted === 'ffi-rs' || wanted === 'node') return engines[wanted]()
  if (wanted !== undefined && wanted !== '') {
    throw new Error(`Expected FDPASS_FFI to be ffi-rs or node, got ${wanted}`)
  }
  try {
    return engines['ffi-rs']()
  } catch (first) {
    try {
      return engines.node()
    } catch (second) {
      throw new Error(
        'Expected a foreign function interface, got none. ffi-rs: ' +
          `${messageOf(first)}. node:ffi: ${messageOf(second)}`,
        { cause: first },
      )
    }
  }
}

// Without the list of files that required what was not found.
function messageOf(error: unknown): string {
  return String((error as Error).message).replace(/\n.*/s, '')
}

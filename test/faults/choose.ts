// Which faults a program is put through, by chance but repeatable. Used by
// ../faults.ts.

import { errnosOf } from './calls.ts'
import type { Fault } from './trace.ts'

/**
 * The first call of each kind, one in the middle and one at random, with each
 * error. In an order of its own with each seed, so that the first ones are a
 * sample of all.
 *
 * @param calls which ones are the program's own, by name
 * @param only this call
 */
export function faultsFor(
  calls: ReadonlyMap<string, readonly number[]>,
  random: () => number,
  only?: string,
): Fault[] {
  const faults: Fault[] = []
  for (const [call, own] of calls) {
    if (only !== undefined && only !== call) continue
    for (const errno of errnosOf[call] ?? []) {
      const places = [0, Math.floor(own.length / 2)]
      places.push(Math.floor(random() * own.length))
      for (const when of new Set(places.map((place) => own[place])))
        if (when !== undefined) faults.push({ call, errno, when })
    }
  }
  return faults
    .map((fault) => ({ fault, place: random() }))
    .sort((a, b) => a.place - b.place)
    .map(({ fault }) => fault)
}

/** Mulberry32: the same numbers from 0 to 1 for the same seed. */
export function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

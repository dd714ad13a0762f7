// What a row of the benchmark is, for the files that measure one.

import type { Peer } from './peers.ts'
import type { Table } from './table.ts'

/** How long to measure. */
export type Effort = {
  readonly rounds: number
  /** What each batch should take, in ms. */
  readonly batch: number
}

export type Row = {
  readonly name: string
  measure(peers: readonly Peer[], effort: Effort): Promise<Table[]>
}

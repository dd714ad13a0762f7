// What is measured, row by row, and the goals that the project set itself.

import { measureCold } from './cold.ts'
import type { Row } from './effort.ts'
import { measureHeld } from './held.ts'
import { NET_26, NODE_FFI, OURS } from './peers.ts'
import { timed } from './timed.ts'

const THERE_AND_BACK =
  'a message with a descriptor there, one back: half a round trip'

export const rows: readonly Row[] = [
  timed({
    name: 'one-at-a-time',
    wiring: 'one process',
    unit: 'ns per descriptor',
    title: 'a descriptor a message, sent and received before the next is sent',
  }),
  timed({
    name: 'in-flight',
    wiring: 'two processes',
    unit: 'ns per descriptor',
    title: 'a descriptor a message, as many in flight as fit',
  }),
  timed({
    name: 'full',
    wiring: 'one process',
    unit: 'ns per descriptor',
    title: 'messages of 252 descriptors, sent and received',
  }),
  timed({
    name: 'ping-pong',
    wiring: 'two processes',
    unit: 'ns per descriptor',
    title: THERE_AND_BACK,
  }),
  timed({
    name: 'pinned',
    does: 'ping-pong',
    wiring: 'two processes',
    unit: 'ns per descriptor',
    title: `${THERE_AND_BACK}, both processes on one core`,
    beside: 'pinned to one core',
  }),
  timed({
    name: 'neighbour',
    does: 'ping-pong',
    wiring: 'two processes',
    unit: 'ns per descriptor',
    title: `${THERE_AND_BACK}, beside a busy loop on each core`,
    beside: 'a busy loop on each core',
  }),
  { name: 'cold', measure: measureCold },
  timed({
    name: 'stream',
    wiring: 'two processes',
    unit: 'MB/s',
    title: 'messages of 64 KiB with a descriptor each',
  }),
  timed({
    name: 'bytes',
    wiring: 'two processes',
    unit: 'MB/s',
    title: 'writes of 64 KiB without descriptors',
  }),
  timed({
    name: 'wake-up',
    wiring: 'one process',
    unit: 'ns per wake-up',
    title: 'from write(2) of a byte until the event loop has brought it',
  }),
  timed({
    name: 'connect',
    wiring: 'a path',
    unit: 'ns per connection',
    title: 'connect, accept, a descriptor there, a byte back, close',
  }),
  { name: 'idle', measure: measureHeld },
]

type Goal = {
  readonly row: string
  readonly peer: string
  readonly times: number
  readonly of: string
}

/** At most so many times as long as another, in the same run. */
export const goals: readonly Goal[] = [
  { row: 'in-flight', peer: OURS, times: 1.5, of: 'C' },
  { row: 'full', peer: OURS, times: 1.6, of: 'C' },
  { row: 'bytes', peer: OURS, times: 2, of: 'net.Socket' },
  { row: 'one-at-a-time', peer: NODE_FFI, times: 2, of: 'C' },
  { row: 'one-at-a-time', peer: NODE_FFI, times: 1, of: 'Python asyncio' },
  { row: 'one-at-a-time', peer: NODE_FFI, times: 1, of: 'usocket' },
  { row: 'in-flight', peer: NODE_FFI, times: 1.15, of: 'C' },
  { row: 'in-flight', peer: NODE_FFI, times: 1, of: 'Go' },
  { row: 'full', peer: NODE_FFI, times: 1.25, of: 'C' },
  { row: 'wake-up', peer: NODE_FFI, times: 1, of: 'usocket' },
  { row: 'ping-pong', peer: NODE_FFI, times: 1.2, of: 'C' },
  { row: 'ping-pong', peer: NODE_FFI, times: 0.25, of: 'subprocess socket' },
  { row: 'ping-pong', peer: NODE_FFI, times: 0.25, of: 'subprocess server' },
  { row: 'pinned', peer: NODE_FFI, times: 2, of: 'C' },
  { row: 'neighbour', peer: NODE_FFI, times: 1, of: 'usocket' },
  { row: 'cold', peer: NODE_FFI, times: 1, of: 'usocket' },
  { row: 'connect', peer: NODE_FFI, times: 2, of: 'C' },
  { row: 'bytes', peer: NODE_FFI, times: 1.11, of: NET_26 },
]

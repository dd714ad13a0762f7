// Where the programs of one scenario of faults.ts meet, away from all others.

import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export type Place = {
  /** Of their own, for files and sockets. */
  readonly folder: string
  readonly socket: string
  readonly other: string
  /** A TCP port for the server. */
  readonly port: string
  /** Another port with each call. */
  readonly freshPort: () => string
}

export function newPlace(): Place {
  const folder = mkdtempSync(join(tmpdir(), 'faults-'))
  return {
    folder,
    socket: join(folder, 'socket'),
    other: join(folder, 'other'),
    port: freshPort(),
    freshPort,
  }
}

let port = 20_000 + (process.pid % 8000)

// Below those that the kernel chooses from (ip(7), ip_local_port_range).
function freshPort(): string {
  return `${++port}`
}

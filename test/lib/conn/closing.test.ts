// close() a second time, when its number is somebody else's by then.

import { closeSync, fstatSync, openSync } from 'node:fs'
import { join } from 'node:path'

import {
  ListeningSocket,
  socketpair,
  UnixDatagram,
} from '../../../lib/index.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { until } from '../../support/waiting.ts'

type Closable = { close(): void; readonly fd: number }

/** Of each kind one, and what has to be closed with it. */
const kinds: Record<string, (path: string) => Promise<Closable[]>> = {
  connection: async () => socketpair(),
  'connection of packets': async () => socketpair({ type: 'seqpacket' }),
  'socket of datagrams': async (path) => [await UnixDatagram.open({ path })],
  'listening socket': async (path) => [await ListeningSocket.open(path)],
}

/** Opens files until one has the number `fd`, which is free, or soon will be. */
async function openAt(fd: number, before: number[]): Promise<number[]> {
  const opened: number[] = []
  await until(`descriptor ${fd} is free`, () => {
    if (![...before, ...opened].includes(fd)) opened.push(openSync('.', 'r'))
    return [...before, ...opened].includes(fd)
  })
  return opened
}

for (const [kind, open] of Object.entries(kinds)) {
  leakFree(`a ${kind} that is closed twice closes once`, async (t) => {
    const all = await open(join(temporaryFolder(t), 's'))
    const fds = all.map(({ fd }) => fd)
    for (const each of all) each.close()
    const newcomers: number[] = []
    for (const fd of fds) newcomers.push(...(await openAt(fd, newcomers)))
    for (const each of all) each.close()
    for (const fd of fds)
      t.ok(fstatSync(fd).isDirectory(), 'its new owner keeps it')
    for (const fd of newcomers) closeSync(fd)
  })
}

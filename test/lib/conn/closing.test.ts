// close() a second time, when its number is somebody else's by then; and with
// the number 0.

import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'

import {
  ListeningSocket,
  socketpair,
  UnixDatagram,
} from '../../../lib/index.ts'
import { newSocketpair, type SocketType } from '../../../lib/socket/unix.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { Running, script } from '../../support/processes.ts'
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

/** What is made of descriptor 0, by its kind, and the type of its socket. */
const ofZero: Record<string, [string, SocketType]> = {
  connection: ['UnixConn.fromFd(0)', 'stream'],
  'socket of datagrams': ['UnixDatagram.fromFd(0)', 'datagram'],
  'listening socket': ["new ListeningSocket(0, '127.0.0.1:80')", 'stream'],
}

// inetd(8) gives a server its socket so: as the standard input.
for (const [kind, [expression, type]] of Object.entries(ofZero)) {
  leakFree(`a ${kind} with descriptor 0 works as any other`, async (t) => {
    const [near, far] = newSocketpair({ type })
    const source = `
      import { ListeningSocket, UnixConn, UnixDatagram } from './lib/index.ts'
      import { isOpen } from './lib/socket/options.ts'
      import { until } from './test/support/waiting.ts'
      const socket = ${expression}
      if (socket instanceof UnixConn) {
        const { data } = await socket.recvmsg()
        await socket.sendmsg(data)
      }
      if (socket instanceof UnixDatagram) {
        const { data } = await socket.receive()
        await socket.send(data)
      }
      socket.close()
      console.log(socket.fd)
      // A connection is closed in the thread pool.
      await until('it is closed', () => !isOpen(0), 20)
      console.log('closed')`
    const command = [...script('--input-type=module', '-e'), source]
    const child = new Running(t, command, { stdio: [far, 'pipe', 'pipe'] })
    closeSync(far)
    writeSync(near, 'x')
    t.match(await child.exit, { code: 0 })
    t.equal(child.stdout, '-1\nclosed\n', child.stderr)
    if (kind !== 'listening socket') {
      const answer = Buffer.alloc(1)
      readSync(near, answer)
      t.equal(`${answer}`, 'x')
    }
    closeSync(near)
  })
}

// Which of Node's streams a descriptor gets where there is no epoll, and what
// two of them together do as one. What every stream does: open.test.ts.

import { once } from 'node:events'
import {
  closeSync,
  fstatSync,
  openSync,
  readSync,
  writeFileSync,
} from 'node:fs'
import { Socket } from 'node:net'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { ReadStream } from 'node:tty'

import { waitReadable } from '../../../lib/index.ts'
import { newSocketpair, shutdownWriting } from '../../../lib/socket/unix.ts'
import {
  nodeDuplex,
  nodeReadable,
  nodeWritable,
} from '../../../lib/stream/node-streams.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing } from '../../support/missing.ts'
import { anonymousPipe } from '../../support/pipes.ts'
import { turns, until } from '../../support/waiting.ts'
import { newFifo, newTerminal } from './support.ts'

const needsPython = missing('python3')

async function destroy(stream: Readable | Writable): Promise<void> {
  const closed = once(stream, 'close')
  stream.destroy()
  await closed
}

// The stream of a file waits in libuv's pool, which has four threads.
leakFree(
  'a terminal, a pipe and a socket wait on the event loop',
  async (t) => {
    const { master, slave } = await newTerminal(t)
    const terminal = nodeReadable(slave, 'terminal')
    t.ok(terminal instanceof ReadStream)
    const { r, w, shared } = await anonymousPipe(t)
    const [one, other] = newSocketpair()
    const sockets = [
      nodeReadable(r, 'pipe'),
      nodeWritable(w, 'pipe'),
      nodeDuplex(newFifo(t), 'pipe'),
      nodeDuplex(one, 'socket'),
    ]
    for (const stream of sockets) t.ok(stream instanceof Socket)
    for (const stream of [terminal, ...sockets]) await destroy(stream)
    for (const fd of [master, shared, other]) closeSync(fd)
  },
  needsPython,
)

leakFree('a socket whose peer has ended can be written to', async (t) => {
  const [one, other] = newSocketpair()
  const stream = nodeDuplex(one, 'socket')
  shutdownWriting(other)
  stream.resume()
  await once(stream, 'end')
  await turns()
  stream.write('an answer')
  await waitReadable(other)
  const answer = Buffer.alloc(100)
  t.equal(answer.toString('utf8', 0, readSync(other, answer)), 'an answer')
  await destroy(stream)
  closeSync(other)
})

// Nothing can be opened anew in its place, so its stream has it itself.
leakFree(
  'the master of a terminal is closed once',
  async (t) => {
    const { master, slave } = await newTerminal(t)
    const stream = nodeReadable(master, 'terminal')
    const newcomers: number[] = []
    stream.prependOnceListener('close', () => {
      while (newcomers.at(-1) !== master) newcomers.push(openSync('.', 'r'))
    })
    await destroy(stream)
    t.ok(fstatSync(master).isDirectory(), 'its new owner keeps it')
    for (const fd of [slave, ...newcomers]) closeSync(fd)
  },
  needsPython,
)

leakFree('a duplex that nobody reads stops reading', async (t) => {
  const path = join(temporaryFolder(t), 'file')
  writeFileSync(path, Buffer.alloc(2e6))
  const stream = nodeDuplex(openSync(path, 'r+'), 'file')
  await once(stream, 'readable')
  await turns(500)
  t.ok(stream.readableLength < 500_000, `${stream.readableLength} bytes`)
  let length = 0
  for await (const chunk of stream) length += chunk.length
  t.equal(length, 2e6, 'and goes on when it is read')
  await until('it is closed', () => stream.closed)
})

leakFree('an error of one side is one of the duplex', async (t) => {
  const path = join(temporaryFolder(t), 'file')
  writeFileSync(path, 'text')
  const unreadable = nodeDuplex(openSync(path, 'w'), 'file')
  unreadable.resume()
  const [error] = await once(unreadable, 'error')
  t.match(error, { code: 'EBADF', syscall: 'read' })
  const unwritable = nodeDuplex(openSync(path, 'r'), 'file')
  unwritable.write('text')
  const [other] = await once(unwritable, 'error')
  t.match(other, { code: 'EBADF', syscall: 'write' })
  await until('both are closed', () => unreadable.closed && unwritable.closed)
})

// What a child inherits while everything of the library is open: nothing but
// what `stdio` says, whichever thread starts it.

import { join } from 'node:path'
import { t } from 'tap'

import { UnixConn, UnixDatagram } from '../../lib/index.ts'
import { fcntl } from '../../lib/socket/calls.ts'
import { newSocketpair } from '../../lib/socket/unix.ts'
import { leakFree } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { missing } from '../support/missing.ts'
import { run, script } from '../support/processes.ts'
import { runInWorker } from '../support/worker.ts'

/** Opens one of each, and prints the descriptors of a child. */
const BODY = `
  const { spawnSync } = await import('node:child_process')
  // The list is that of what this process has itself inherited, too.
  const list = () => {
    const source =
      'import os; print(sorted(int(fd) for fd in os.listdir("/proc/self/fd")))'
    return String(spawnSync('python3', ['-c', source]).stdout)
  }
  const before = list()
  const listener = await lib.listen(argv[0])
  const conn = await lib.connect(argv[0])
  const accepted = await listener.accept()
  await conn.sendFds('x', [0, 1])
  const received = await accepted.recvFds()
  const waiting = accepted.recvFds()
  const packets = lib.socketpair({ type: 'seqpacket' })
  const datagram = await lib.UnixDatagram.open({ path: argv[1] })
  const tcp = lib.serviceSocket('tcp', { host: '127.0.0.1', port: 0 })
  const udp = lib.serviceSocket('udp', { host: '127.0.0.1', port: 0 })
  const { read, write } = lib.pipe()
  const memory = lib.memfd('memory', { size: 10 })
  const copy = lib.duplicate(read)
  const stream = lib.readableFrom(read)
  stream.resume()
  const { childFd } = lib.pairForChild()
  const fdStream = new lib.FdStream(lib.socketpair()[0])
  fdStream.writeWithFds('x', [tcp])
  lib.waitReadable(copy).catch(() => {})
  await new Promise((resolve) => setImmediate(resolve))
  // Of a child in Python, 3 is the folder that it reads.
  console.log(before.startsWith('[0, 1, 2, 3'), list() === before, list())
  process.exit()`

const ALONE = /^true true \[/

t.test(
  'a child has descriptors 0, 1 and 2 alone',
  { skip: missing('python3') },
  async (t) => {
    const folder = temporaryFolder(t)
    const paths = [join(folder, 's'), join(folder, 'd')]
    const source = `import * as lib from './lib/index.ts'
      const argv = process.argv.slice(1)
      ${BODY}`
    const command = [...script('--input-type=module', '-e'), source, ...paths]
    const { stdout, stderr } = await run(t, command)
    t.match(stdout, ALONE, stderr)
  },
)

t.test(
  'a child that a worker thread starts, too',
  { skip: missing('python3') },
  async (t) => {
    const folder = temporaryFolder(t)
    const paths = [join(folder, 's'), join(folder, 'd')]
    const { stdout, stderr } = await runInWorker(t, BODY, ...paths)
    t.match(stdout, ALONE, stderr)
  },
)

const F_SETFD = 2
const F_GETFD = 1
const FD_CLOEXEC = 1

leakFree('fromFd() keeps what it adopts from children', async (t) => {
  for (const type of ['stream', 'seqpacket', 'datagram'] as const) {
    const pair = newSocketpair({ type })
    for (const fd of pair) {
      // As a descriptor is that this process has itself inherited.
      fcntl(fd, F_SETFD, 0)
      const adopted =
        type === 'datagram' ? UnixDatagram.fromFd(fd) : UnixConn.fromFd(fd)
      t.equal(fcntl(fd, F_GETFD, 0), FD_CLOEXEC, type)
      adopted.close()
    }
  }
})

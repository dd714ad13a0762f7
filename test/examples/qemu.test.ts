// examples/qemu: a real QEMU gets a file, a listening socket and connections,
// and NBD and VNC clients find them there.

import { once } from 'node:events'
import {
  chmodSync,
  closeSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { Monitor } from '../../examples/qemu/monitor.ts'
import { socketpair } from '../../lib/index.ts'
import { leakFree, openFds, settledFds } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { missing } from '../support/missing.ts'
import { Running, script } from '../support/processes.ts'
import { expecting, freePort, noMoreFds, tcpSocket } from './support.ts'

const RUN = 'examples/qemu/run.ts'
const skip = missing('qemu-system-x86_64')

async function start(t: Test, ...options: string[]) {
  const file = join(temporaryFolder(t), 'disk')
  writeFileSync(file, Buffer.alloc(65536, 'This is the disk. '))
  const [nbd, vnc] = [await freePort(), await freePort()]
  const ports = ['-n', `${nbd}`, '-v', `${vnc}`]
  const run = new Running(t, script(RUN, ...ports, ...options, file))
  const [, pid = ''] = await run.printed(/^QEMU \d\S+ ready, pid (\d+)$/m)
  // It is of a process group of its own, and outlives a `run` that is killed.
  t.teardown(() => {
    if (isRunning(pid)) process.kill(Number(pid), 'SIGKILL')
  })
  await run.printed(/^Screen shown on 127\.0\.0\.1 port \d+ \(VNC\)$/m)
  return { run, file, nbd, vnc, pid }
}

function isRunning(pid: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/exe`).includes('qemu')
  } catch {
    return false
  }
}

async function read(socket: Socket, size: number): Promise<Buffer> {
  for (;;) {
    const bytes: Buffer | null = socket.read(size)
    if (bytes !== null) return bytes
    if (socket.readableEnded) throw new Error(`Expected ${size} bytes, got end`)
    await Promise.race([once(socket, 'readable'), once(socket, 'end')])
  }
}

/** What a packet of NBD has: see its protocol, "newstyle negotiation". */
function packet(...parts: readonly (string | [size: number, value: bigint])[]) {
  return Buffer.concat(
    parts.map((part) => {
      if (typeof part === 'string') return Buffer.from(part)
      const [size, value] = part
      const bytes = Buffer.alloc(8)
      bytes.writeBigUInt64BE(value)
      return bytes.subarray(8 - size)
    }),
  )
}

const [READ, WRITE] = [0n, 1n]

/** An NBD client, as far as it takes to read and to write. */
async function openDisk(t: Test, port: number) {
  const socket = await tcpSocket(t, port)
  const greeting = await read(socket, 18)
  t.equal(greeting.toString('latin1', 0, 16), 'NBDMAGICIHAVEOPT')
  const name = 'disk'
  const [NO_ZEROES, EXPORT_NAME] = [3n, 1n]
  const option = [4, EXPORT_NAME] as [number, bigint]
  const length = [4, BigInt(name.length)] as [number, bigint]
  socket.write(packet([4, NO_ZEROES], 'IHAVEOPT', option, length, name))
  const size = Number((await read(socket, 10)).readBigUInt64BE())

  const ask = async (
    what: bigint,
    offset: number,
    count: number,
    data = '',
  ) => {
    const range = [
      [8, BigInt(offset)],
      [4, BigInt(count)],
    ] as [number, bigint][]
    const MAGIC = 0x25609513n
    socket.write(
      packet([4, MAGIC], [2, 0n], [2, what], [8, 7n], ...range, data),
    )
    const answer = await read(socket, 16)
    t.equal(answer.readUInt32BE(0), 0x67446698, 'an answer')
    return answer.readUInt32BE(4)
  }
  return {
    socket,
    size,
    read: async (offset: number, count: number) => {
      t.equal(await ask(READ, offset, count), 0, 'no error')
      return (await read(socket, count)).toString()
    },
    write: (offset: number, data: string) => {
      return ask(WRITE, offset, data.length, data)
    },
  }
}

t.test(
  'a file is the disk, and read over a socket from here',
  { skip },
  async (t) => {
    const { run, file, nbd, pid } = await start(t)
    const disk = await openDisk(t, nbd)
    t.equal(disk.size, 65536)
    t.equal(await disk.read(18 * 100, 16), 'This is the disk')
    t.not(await disk.write(0, 'What'), 0, 'not to be written')
    t.equal(readFileSync(file, 'latin1').slice(0, 4), 'This')

    // QEMU was told no path: it has the file only by the descriptor.
    t.notMatch(readFileSync(`/proc/${pid}/cmdline`, 'utf8'), file)
    t.ok(openFds(Number(pid)).some((fd) => fd.endsWith(` -> ${file}`)))
    t.notOk(openFds(run.pid).some((fd) => fd.endsWith(` -> ${file}`)))

    run.child.kill('SIGINT')
    t.match(await run.exit, { code: 0, signal: null })
    t.match(run.stdout, /\nQEMU ended\n$/)
    t.equal(run.stderr, '')
    t.notOk(isRunning(pid))
  },
)

t.test('with --writable it can be written', { skip }, async (t) => {
  const { file, nbd } = await start(t, '--writable')
  const disk = await openDisk(t, nbd)
  t.equal(await disk.write(18, 'What'), 0)
  t.equal(await disk.read(0, 24), 'This is the disk. What i')
  t.equal(readFileSync(file, 'latin1').slice(18, 24), 'What i')
})

t.test(
  'connections are given away, one after the other',
  { skip },
  async (t) => {
    const { run, vnc } = await start(t)
    const before = await settledFds(run.pid)
    const sockets = []
    for (let count = 1; count <= 5; count++) {
      const socket = await tcpSocket(t, vnc)
      t.equal((await read(socket, 12)).toString(), 'RFB 003.008\n')
      await run.printed(
        new RegExp(`^viewer ${count}: fd \\d+ here, QEMU has `, 'm'),
      )
      sockets.push(socket)
    }
    await noMoreFds(t, run, before)

    // Each of them is a viewer: no password, any of the two may share, and then
    // comes the size of the screen.
    for (const socket of sockets) {
      socket.write('RFB 003.008\n')
      t.strictSame(await read(socket, 2), Buffer.from([1, 1]))
      socket.write(Buffer.from([1]))
      t.strictSame(await read(socket, 4), Buffer.alloc(4))
      socket.write(Buffer.from([1]))
      const screen = await read(socket, 28)
      t.equal(screen.readUInt16BE(0), 640)
      t.equal(screen.toString('latin1', 24), 'QEMU')
    }
  },
)

t.test('a QEMU that ends is told, and ends it', { skip }, async (t) => {
  const { run, pid } = await start(t)
  process.kill(Number(pid), 'SIGKILL')
  t.match(await run.exit, { code: 1 })
  t.equal(run.stderr, 'run.ts: QEMU ended by itself: SIGKILL\n')
})

t.test('run.ts says what is wrong', async (t) => {
  const expect = expecting(t)
  const folder = temporaryFolder(t)
  const disk = join(folder, 'disk')
  writeFileSync(disk, 'disk')
  const ports = ['-n', `${await freePort()}`, '-v', `${await freePort()}`]
  await expect(RUN, ['--help'], 0, /^Usage: .*run\.ts \[OPTIONS\] FILE\n/)
  await expect(RUN, [], 2, /Expected 1 argument, got 0\n/)
  await expect(RUN, ['-n', 'x', disk], 2, /Expected --nbd as a number, got "x"/)
  await expect(RUN, ['-v', '', disk], 2, /Expected --vnc as a number, got ""/)
  const range = /Expected --vnc from 0 to 65535, got "70000"/
  await expect(RUN, ['-v', '70000', disk], 2, range)
  await expect(RUN, [join(folder, 'none')], 1, /^run\.ts: ENOENT: .*none'\n$/)
  await expect(
    RUN,
    [folder],
    1,
    /^run\.ts: Expected a file .*, got a directory/,
  )

  const none = [...ports, '-q', 'nonesuch', disk]
  await expect(RUN, none, 1, /^run\.ts: Expected nonesuch, got no such program/)
  await expect(
    RUN,
    [...ports, '-q', 'false', disk],
    1,
    /^run\.ts: QEMU hung up/,
  )
  const program = join(folder, 'qemu')
  writeFileSync(program, '#!/bin/sh\necho Hello >&3\ncat <&3\n')
  chmodSync(program, 0o755)
  const other = [...ports, '-q', program, disk]
  await expect(
    RUN,
    other,
    1,
    /^run\.ts: QEMU hung up: Expected a line of QMP, got "Hello"\n$/,
  )

  const taken = `${await freePort()}`
  const server = new Running(t, [
    process.execPath,
    '-e',
    `require('net').createServer().listen(${taken}, '127.0.0.1',
      () => console.log('ready'))`,
  ])
  await server.printed(/ready/)
  await expect(RUN, ['-n', taken, disk], 1, /^run\.ts: .*EADDRINUSE/)
})

leakFree('Monitor: answers in order, events between them', async (t) => {
  const [ours, theirs] = socketpair()
  const say = (value: object) => theirs.sendmsg(`${JSON.stringify(value)}\r\n`)
  const hear = async () => {
    const { data, fds } = (await theirs.recvFds()) ?? {}
    return { value: JSON.parse(`${data}`), fds: fds ?? [] }
  }
  await say({ QMP: { version: { qemu: { major: 7, minor: 2, micro: 1 } } } })
  const opening = Monitor.open(ours)
  t.strictSame((await hear()).value.execute, 'qmp_capabilities')
  await say({ event: 'RESUME' })
  await say({ return: {} })
  const monitor = await opening
  t.equal(monitor.version, '7.2.1')

  const first = monitor.execute('first', { a: 1 }, ours.fd)
  const { value, fds } = await hear()
  t.strictSame(value, { execute: 'first', arguments: { a: 1 } })
  t.equal(fds.length, 1)
  for (const fd of fds) closeSync(fd)
  const second = monitor.execute('second')
  t.strictSame(await hear(), {
    value: { execute: 'second', arguments: {} },
    fds: [],
  })
  await say({ error: { class: 'GenericError', desc: 'No such thing' } })
  await say({ event: 'STOP' })
  await say({ return: 2 })
  await t.rejects(first, { message: 'QEMU: No such thing' })
  t.equal(await second, 2)

  const third = monitor.execute('third')
  await hear()
  theirs.close()
  await t.rejects(third, { message: 'QEMU hung up' })
  await t.rejects(monitor.execute('fourth'), { message: 'QEMU hung up' })
  monitor.close()
})

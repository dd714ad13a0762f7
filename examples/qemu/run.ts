#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A QEMU that opens nothing itself: the file that is its disk, the port on which
// it serves that disk, and the connections of those who look at its screen are
// opened here, and it gets their descriptors. It needs no right to any of them,
// and could run as a user who has none. libvirt can start virtual machines in
// this way.
//
// Partner: qemu-system-x86_64, which this starts, without a machine in it. See
// monitor.ts for what the two say. Clients: any NBD client, such as nbd-client
// and `qemu-img info nbd://127.0.0.1/disk`, and any VNC viewer. Open
// socketpair(2), open(2) and listen(2) with it.
//
// New here: one connection, on which a program is given descriptors of three
// kinds by a protocol of lines: a file, a listening socket, a live connection.
//
// Security: on 127.0.0.1 every user of this machine can connect to the ports,
// read the disk and, with --writable, write on it.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync } from 'node:fs'

import {
  connectionsOn,
  describeFd,
  pairForChild,
  serviceSocket,
} from '../../lib/index.ts'
import {
  codeOf,
  commandLine,
  fail,
  help,
  messageOf,
  numberOption,
  onStop,
  orFail,
  PORTS,
  print,
} from '../../lib/script/cli.ts'
import { Monitor } from './monitor.ts'

const USAGE = `Usage: ./examples/qemu/run.ts [OPTIONS] FILE
Starts QEMU with FILE as a disk that it serves over NBD, and gives it each VNC
viewer that connects. Ctrl-C ends both.
  -n, --nbd PORT      of 127.0.0.1, for the disk (10809)
  -v, --vnc PORT      of 127.0.0.1, for viewers (5900)
  -w, --writable      clients may write on the disk
  -q, --qemu PROGRAM  to start (qemu-system-x86_64)`

/** How long QEMU may take to end, in ms. */
const PATIENCE = 10_000

// No machine, no devices, no window, and a VNC server that listens nowhere. The
// monitor is the connection that QEMU inherits as its descriptor 3.
const QEMU_ARGUMENTS = [
  ...['-machine', 'none', '-nodefaults', '-display', 'none', '-vnc', 'none'],
  ...['-chardev', 'socket,id=monitor,fd=3'],
  ...['-mon', 'chardev=monitor,mode=control'],
]

const { values, positionals } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      nbd: { type: 'string', short: 'n', default: '10809' },
      vnc: { type: 'string', short: 'v', default: '5900' },
      writable: { type: 'boolean', short: 'w', default: false },
      qemu: { type: 'string', short: 'q', default: 'qemu-system-x86_64' },
    },
    allowPositionals: true,
  },
  [1, 1],
)
const [file = ''] = positionals
const { writable } = values

// What can fail comes first, before there is a QEMU that would have to be ended.
const nbdPort = numberOption(USAGE, '--nbd', values.nbd, PORTS)
const vncPort = numberOption(USAGE, '--vnc', values.vnc, PORTS)
const disk = orFail(openDisk)
const nbd = listenOn(nbdPort)
const screen = listenOn(vncPort)

const stop = new AbortController()
onStop(() => stop.abort())

const { conn, childFd } = pairForChild()
const qemu = spawn(values.qemu, QEMU_ARGUMENTS, {
  stdio: ['ignore', 'inherit', 'inherit', childFd],
  // In a process group of its own: Ctrl-C reaches this process alone, which
  // then asks QEMU to end.
  detached: true,
})
closeSync(childFd)
const exit = once(qemu, 'exit')
exit.then(() => stop.abort()).catch(() => {}) // told below

try {
  await started(qemu)
  const monitor = await Monitor.open(conn)
  print(`QEMU ${monitor.version} ready, pid ${qemu.pid}`)
  await giveDisk(monitor)
  print(`${file}, fd ${disk} here, is its disk`)
  await giveListeningSocket(monitor)
  print(`Disk served on 127.0.0.1 port ${nbdPort} (NBD)`)
  print(`Screen shown on 127.0.0.1 port ${vncPort} (VNC)`)
  let count = 0
  for await (const viewer of connectionsOn(screen, { signal: stop.signal })) {
    count++
    const outcome = giveConnection(monitor, viewer).then(
      () => `fd ${viewer} here, QEMU has the connection`,
      messageOf,
    )
    print(`viewer ${count}: ${await outcome}`)
    closeSync(viewer)
  }
  const { exitCode, signalCode } = qemu
  const how = signalCode ?? exitCode
  if (how !== null) throw new Error(`QEMU ended by itself: ${how}`)
  await monitor.execute('quit')
  await ended()
  print('QEMU ended')
} catch (error) {
  await ended('SIGTERM')
  fail(error)
}

// A set of descriptors has a path in QEMU, for whatever it would open: it looks
// for one of the set that was opened for what it wants to do.
async function giveDisk(monitor: Monitor): Promise<void> {
  const added = monitor.execute('add-fd', { 'fdset-id': 1 }, disk)
  closeSync(disk)
  await added
  await monitor.execute('blockdev-add', {
    driver: 'file',
    'node-name': 'disk',
    filename: '/dev/fdset/1',
    'read-only': !writable,
  })
}

// By name: getfd() keeps a descriptor until some other command takes it.
async function giveListeningSocket(monitor: Monitor): Promise<void> {
  const given = monitor.execute('getfd', { fdname: 'nbd' }, nbd)
  closeSync(nbd)
  await given
  await monitor.execute('nbd-server-start', {
    addr: { type: 'fd', data: { str: 'nbd' } },
  })
  await monitor.execute('block-export-add', {
    type: 'nbd',
    id: 'disk',
    'node-name': 'disk',
    writable,
  })
}

// skipauth, as this VNC server has no password: it serves every connection that
// it is given.
async function giveConnection(monitor: Monitor, fd: number): Promise<void> {
  await monitor.execute('getfd', { fdname: 'viewer' }, fd)
  await monitor.execute('add_client', {
    protocol: 'vnc',
    fdname: 'viewer',
    skipauth: true,
  })
}

async function started(child: ChildProcess): Promise<void> {
  try {
    await once(child, 'spawn')
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
    throw new Error(`Expected ${values.qemu}, got no such program`)
  }
}

// Ends QEMU if it has been started and does not end by itself.
async function ended(signal?: NodeJS.Signals): Promise<void> {
  if (qemu.pid === undefined) return
  if (signal) qemu.kill(signal)
  const late = setTimeout(() => qemu.kill('SIGKILL'), PATIENCE)
  await exit
  clearTimeout(late)
}

// O_NONBLOCK, as opening a FIFO would wait for its other end.
function openDisk(): number {
  const { O_RDONLY, O_RDWR, O_NONBLOCK } = constants
  const fd = openSync(file, (writable ? O_RDWR : O_RDONLY) | O_NONBLOCK)
  const { kind } = describeFd(fd)
  if (kind === 'file' || kind === 'block device') return fd
  throw new Error(`Expected a file or a block device, got a ${kind}: ${file}`)
}

function listenOn(port: number): number {
  return orFail(() => serviceSocket('tcp', { host: '127.0.0.1', port }))
}

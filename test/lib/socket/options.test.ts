// What sockets are asked, and told.

import { execFileSync } from 'node:child_process'
import { closeSync, openSync, writeSync } from 'node:fs'
import { type Test, t } from 'tap'

import { type Abi, host, selectAbi } from '../../../lib/layouts.ts'
import * as libc from '../../../lib/libc.ts'
import * as calls from '../../../lib/socket/calls.ts'
import { boundSocket, serviceSocket } from '../../../lib/socket/inet.ts'
import {
  checkFd,
  descriptorLimit,
  isHungUp,
  isInt,
  isListening,
  isMessageSocket,
  isOpen,
  isUnixSocket,
  peerCredentials,
  readCredentials,
  sendBufferSize,
  setOption,
  setOutOfBandInline,
  setPassCredentials,
  setReceiveTimeout,
  socketName,
  socketType,
  turnLingerOff,
  unixType,
  unreadBytes,
} from '../../../lib/socket/options.ts'
import { inetAddress } from '../../../lib/socket/sockaddr.ts'
import {
  newSocketpair,
  shutdownWriting,
  typeNumber,
} from '../../../lib/socket/unix.ts'
import { declaring } from '../../support/c.ts'
import { leakFree } from '../../support/descriptors.ts'

const isLinux = process.platform === 'linux'
const forLinux = isLinux ? false : 'there is no such option'
const { SOL_SOCKET } = host.constants

type Options = typeof import('../../../lib/socket/options.ts')
const path = '../../../lib/socket/options.ts'

/** The value of an option, as hexadecimal digits. */
function optionOf(fd: number, option: number, size: number): string {
  const { value, valueLength } = calls
  value.bytes.fill(0xee)
  valueLength.bytes.writeUInt32LE(size)
  const { address } = value
  const to = valueLength.address
  t.equal(calls.getsockopt(fd, SOL_SOCKET, option, address, to), 0)
  return value.bytes.toString('hex', 0, size)
}

leakFree('peerCredentials() tells who made a pair', async (t) => {
  const [one, other] = newSocketpair()
  t.match(peerCredentials(one), {
    pid: process.pid,
    uid: process.getuid?.(),
    gid: process.getgid?.(),
  })
  for (const fd of [one, other]) closeSync(fd)
  t.throws(() => peerCredentials(one), { code: 'EBADF', syscall: 'getsockopt' })
})

t.test('readCredentials() asks for the pid apart where it must', async (t) => {
  const asked: [number, number][] = []
  const ask = (option: number, size: number): Buffer => {
    asked.push([option, size])
    const value = Buffer.alloc(size)
    // struct xucred: cr_version, cr_uid, cr_ngroups, cr_groups[0]
    if (size === 76) for (const at of [4, 12]) value.writeUInt32LE(at, at)
    else value.writeInt32LE(4711)
    return value
  }
  const darwin = {
    ...{ level: 0, option: 1, size: 76, uid: 4, gid: 12 },
    pid: { option: 2 },
  }
  const credentials = readCredentials(darwin, ask)
  t.strictSame(credentials, { pid: 4711, uid: 4, gid: 12 })
  t.strictSame(asked, [
    [1, 76],
    [2, 4],
  ])
})

leakFree('unixType() tells Unix sockets from others', async (t) => {
  for (const type of ['stream', 'seqpacket', 'datagram'] as const) {
    const pair = newSocketpair({ type })
    t.equal(unixType(pair[0]), typeNumber(type))
    for (const fd of pair) closeSync(fd)
  }
  const tcp = boundSocket({ host: '127.0.0.1', port: 0 })
  t.throws(() => unixType(tcp), {
    code: 'EPROTOTYPE',
    syscall: 'getsockname',
    message: /expected a Unix socket \(family 1\), got family 2$/,
  })
  closeSync(tcp)
  t.throws(() => unixType(tcp), { code: 'EBADF', syscall: 'getsockopt' })
})

leakFree('refuseDescriptors() passes over a kernel without it', async (t) => {
  for (const [result, expected] of [
    [-92, undefined], // ENOPROTOOPT
    [-9, { code: 'EBADF', syscall: 'setsockopt' }],
  ] as const) {
    const { refuseDescriptors } = await t.mockImport<
      typeof import('../../../lib/socket/options.ts')
    >('../../../lib/socket/options.ts', {
      '../../../lib/socket/calls.ts': { ...calls, setsockopt: () => result },
    })
    if (expected) t.throws(() => refuseDescriptors(1), expected)
    else t.doesNotThrow(() => refuseDescriptors(1))
  }
})

t.test('no limit of descriptors is a large number of them', async (t) => {
  const { value } = calls
  // RLIM_INFINITY, in the rlim_cur and rlim_max of struct rlimit.
  const getrlimit = (): number => {
    value.bytes.fill(0xff, 0, 16)
    return 0
  }
  const { descriptorLimit } = await t.mockImport<
    typeof import('../../../lib/socket/options.ts')
  >('../../../lib/socket/options.ts', {
    '../../../lib/socket/calls.ts': calls,
    '../../../lib/libc.ts': { ...libc, ...declaring('getrlimit', getrlimit) },
  })
  t.equal(descriptorLimit(), 2 ** 32 - 1)
})

t.test('descriptorLimit() tells that getrlimit(2) has failed', async (t) => {
  const { descriptorLimit } = await t.mockImport<Options>(path, {
    '../../../lib/libc.ts': {
      ...libc,
      ...declaring('getrlimit', () => -14),
    },
  })
  t.throws(descriptorLimit, { code: 'EFAULT', syscall: 'getrlimit' })
})

/** lib/socket/options.ts on a platform with other layouts. */
function withHost(t: Test, abi: Partial<Abi>): Promise<Options> {
  return t.mockImport<Options>(path, {
    '../../../lib/layouts.ts': { host: { ...host, ...abi } },
    '../../../lib/socket/calls.ts': calls,
  })
}

leakFree('credentials are refused where there are none', async (t) => {
  const darwin = selectAbi('darwin', 'arm64', 'LE')
  const { setPassCredentials } = await withHost(t, darwin)
  const [one, other] = newSocketpair()
  t.throws(() => setPassCredentials(one), {
    message:
      'Expected Linux for passCredentials, got darwin: ' +
      'only Linux has SO_PASSCRED',
  })
  for (const fd of [one, other]) closeSync(fd)
})

leakFree('with 32 bits there is no timeout', async (t) => {
  const { setReceiveTimeout } = await withHost(t, { pointerSize: 4 })
  const [one, other] = newSocketpair()
  calls.value.bytes.fill(0xaa)
  setReceiveTimeout(one, 250_000)
  t.equal(calls.value.bytes.readUInt8(4), 0xaa, 'nothing is asked for')
  for (const fd of [one, other]) closeSync(fd)
})

t.test('a uid may have its highest bit set', async (t) => {
  // As of the users of a container, which are mapped to high numbers.
  const ids = { pid: 4711, uid: 2 ** 32 - 2, gid: 2 ** 31 + 5 }
  const ask = (_option: number, size: number): Buffer => {
    const value = Buffer.alloc(size)
    value.writeInt32LE(ids.pid)
    value.writeUInt32LE(ids.uid, uid)
    value.writeUInt32LE(ids.gid, gid)
    return value
  }
  const { uid, gid } = host.peercred
  const credentials = readCredentials(host.peercred, ask)
  t.match(credentials, { uid: ids.uid, gid: ids.gid })
})

leakFree('what kind of socket it is has one answer', async (t) => {
  const host = '127.0.0.1'
  const stream = newSocketpair()
  const seqpacket = newSocketpair({ type: 'seqpacket' })
  const datagram = newSocketpair({ type: 'datagram' })
  const tcp = boundSocket({ host, port: 0 })
  const listening = serviceSocket('tcp', { host, port: 0 })
  const udp = serviceSocket('udp', { host, port: 0 })
  const file = openSync('package.json', 'r')
  const messages = 'of messages, not of a stream of bytes'
  // Whether it is a Unix socket, has messages, listens; and its type.
  for (const [fd, isUnix, hasMessages, listens, type] of [
    [stream[0], true, false, false, 'stream'],
    [seqpacket[0], true, true, false, messages],
    [datagram[0], true, true, false, messages],
    [tcp, false, false, false, 'stream'],
    [listening, false, false, true, 'that listens'],
    [udp, false, true, false, messages],
    [file, false, false, false, 'ENOTSOCK'],
    [-1, false, false, false, 'EBADF'],
  ] as const) {
    t.equal(isUnixSocket(fd), isUnix)
    t.equal(isMessageSocket(fd), hasMessages)
    t.equal(isListening(fd), listens)
    if (!type.startsWith('E')) t.equal(socketType(fd), type)
    else t.throws(() => socketType(fd), { code: type, syscall: 'getsockopt' })
  }
  const all = [...stream, ...seqpacket, ...datagram, tcp, listening, udp, file]
  for (const fd of all) {
    t.equal(isOpen(fd), true)
    closeSync(fd)
    t.equal(isOpen(fd), false)
  }
})

t.test('isInt() is for what C gets as it is', async (t) => {
  for (const fd of [-1, 0, 7, 2 ** 31 - 1, -(2 ** 31)]) t.equal(isInt(fd), true)
  for (const fd of [1.5, Number.NaN, 2 ** 31, 2 ** 32 + 1]) {
    t.equal(isInt(fd), false)
    const message = `Expected a file descriptor, got ${fd}`
    t.throws(() => checkFd(fd), { name: 'RangeError', message })
    t.throws(() => unixType(fd), { name: 'RangeError', message })
  }
  t.equal(checkFd(7), 7)
})

leakFree('socketName() is a copy of the whole address', async (t) => {
  const [one, other] = [0, 0].map((port) => {
    return boundSocket({ host: '127.0.0.1', port })
  })
  // What was asked before had a shorter answer.
  t.equal(isListening(one ?? -1), false)
  calls.value.bytes.fill(0xff)
  const name = socketName(one ?? -1)
  const port = name.readUInt16BE(2)
  t.notSame(socketName(other ?? -1), name)
  t.strictSame(name, inetAddress('127.0.0.1', port))
  for (const fd of [one, other]) closeSync(fd ?? -1)
  t.throws(() => socketName(one ?? -1), {
    code: 'EBADF',
    syscall: 'getsockname',
  })
})

leakFree('isHungUp() tells that a peer sends nothing more', async (t) => {
  for (const end of [closeSync, shutdownWriting]) {
    const [one, other] = newSocketpair()
    writeSync(other, 'bytes')
    t.equal(isHungUp(one), !isLinux, 'bytes are no end')
    end(other)
    // No trace of an earlier call: poll(2) passes over what is negative.
    calls.value.bytes.fill(0xff)
    t.equal(isHungUp(one), true)
    closeSync(one)
    if (end !== closeSync) closeSync(other)
  }
})

leakFree('elsewhere a peer may always be gone', async (t) => {
  const [one, other] = newSocketpair()
  writeSync(other, 'bytes')
  const { restore } = t.intercept(process, 'platform', { value: 'darwin' })
  t.equal(isHungUp(one), true)
  t.equal(unreadBytes(one), 0, 'and nobody tells how much is unread')
  restore()
  for (const fd of [one, other]) closeSync(fd)
})

leakFree(
  'unreadBytes() counts what has come and was not read',
  async (t) => {
    const [one, other] = newSocketpair()
    t.equal(unreadBytes(one), 0)
    writeSync(other, 'x'.repeat(300))
    t.equal(unreadBytes(one), 300)
    for (const fd of [one, other]) closeSync(fd)
    t.equal(unreadBytes(one), 0, 'nor of what is not open')
  },
  forLinux,
)

leakFree(
  'setReceiveTimeout() sets a time, and none',
  async (t) => {
    const SO_RCVTIMEO = 20
    const [one, other] = newSocketpair()
    // struct timeval: seconds and µs, which the kernel rounds up to its clock.
    const none = '00'.repeat(16)
    for (const [timeout, seconds, least, most] of [
      [1, 0, 1, 10_000],
      [250_000, 0, 250_000, 260_000],
    ] as const) {
      // What an earlier call has left there is no part of the time.
      calls.value.bytes.fill(0xff)
      setReceiveTimeout(one, timeout)
      const set = Buffer.from(optionOf(one, SO_RCVTIMEO, 16), 'hex')
      t.equal(Number(set.readBigInt64LE(0)), seconds)
      const microseconds = Number(set.readBigInt64LE(8))
      t.ok(microseconds >= least && microseconds <= most, `${microseconds}`)
      setReceiveTimeout(one, 0)
      t.equal(optionOf(one, SO_RCVTIMEO, 16), none)
    }
    const { restore } = t.intercept(process, 'platform', { value: 'darwin' })
    setReceiveTimeout(one, 250_000)
    restore()
    t.equal(optionOf(one, SO_RCVTIMEO, 16), none, 'and is for Linux alone')
    for (const fd of [one, other]) closeSync(fd)
    t.doesNotThrow(() => setReceiveTimeout(one, 1))
  },
  forLinux,
)

leakFree('turnLingerOff() leaves no time to linger', async (t) => {
  const { SO_LINGER } = host.constants
  const fd = boundSocket({ host: '127.0.0.1', port: 0 })
  const { bytes, address } = calls.value
  bytes.writeInt32LE(1, 0)
  bytes.writeInt32LE(30, 4)
  t.equal(calls.setsockopt(fd, SOL_SOCKET, SO_LINGER, address, 8), 0)
  t.equal(optionOf(fd, SO_LINGER, 8), '010000001e000000')
  turnLingerOff(fd)
  t.equal(optionOf(fd, SO_LINGER, 4), '00000000', 'l_onoff')
  closeSync(fd)
  t.doesNotThrow(() => turnLingerOff(fd))
})

leakFree(
  'options that are on or off are turned on',
  async (t) => {
    const [SO_OOBINLINE, SO_PASSCRED] = [10, 16]
    const [one, other] = newSocketpair()
    const [off, on] = ['00000000', '01000000']
    t.equal(optionOf(one, SO_OOBINLINE, 4), off)
    t.equal(optionOf(one, SO_PASSCRED, 4), off)
    setPassCredentials(one)
    t.equal(optionOf(one, SO_PASSCRED, 4), on)
    const { restore } = t.intercept(process, 'platform', { value: 'darwin' })
    setOutOfBandInline(one)
    restore()
    t.equal(optionOf(one, SO_OOBINLINE, 4), off, 'on Linux alone')
    setOutOfBandInline(one)
    t.equal(optionOf(one, SO_OOBINLINE, 4), on)
    for (const fd of [one, other]) closeSync(fd)
    const failure = { code: 'EBADF', syscall: 'setsockopt' }
    t.throws(() => setPassCredentials(one), failure)
  },
  forLinux,
)

leakFree('sendBufferSize() tells what the kernel has set', async (t) => {
  const { SO_SNDBUF } = host.constants
  const [one, other] = newSocketpair()
  t.equal(setOption(one, SO_SNDBUF, 10_000), 0)
  // Linux doubles it, see socket(7).
  t.equal(sendBufferSize(one), isLinux ? 20_000 : 10_000)
  for (const fd of [one, other]) closeSync(fd)
  t.equal(setOption(one, SO_SNDBUF, 10_000), -9, 'EBADF')
})

t.test('descriptorLimit() is what a shell says', async (t) => {
  const limit = execFileSync('sh', ['-c', 'ulimit -n'], { encoding: 'utf8' })
  t.equal(descriptorLimit(), Number(limit))
  t.equal(descriptorLimit(), Number(limit), 'the second time, too')
})

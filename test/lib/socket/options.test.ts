// What sockets are asked, and told.

import { closeSync } from 'node:fs'
import { t } from 'tap'

import { host } from '../../../lib/layouts.ts'
import * as libc from '../../../lib/libc.ts'
import * as calls from '../../../lib/socket/calls.ts'
import { boundSocket } from '../../../lib/socket/inet.ts'
import {
  peerCredentials,
  readCredentials,
  unixType,
} from '../../../lib/socket/options.ts'
import { newSocketpair, typeNumber } from '../../../lib/socket/unix.ts'
import { declaring } from '../../support/c.ts'
import { leakFree } from '../../support/descriptors.ts'

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

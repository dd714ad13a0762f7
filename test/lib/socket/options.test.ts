// What sockets are asked, and told.

import { closeSync } from 'node:fs'
import { t } from 'tap'

import * as libc from '../../../lib/libc.ts'
import { boundSocket } from '../../../lib/socket/inet.ts'
import {
  checkUnixStream,
  peerCredentials,
  readCredentials,
} from '../../../lib/socket/options.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import { leakFree } from '../../support.ts'

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

leakFree('checkUnixStream() names the call that told', async (t) => {
  const tcp = boundSocket('127.0.0.1', 0)
  t.throws(() => checkUnixStream(tcp), {
    code: 'EPROTOTYPE',
    syscall: 'getsockname',
    message: /expected an AF_UNIX stream socket .* got family 2, type 1$/,
  })
  closeSync(tcp)
  t.throws(() => checkUnixStream(tcp), { code: 'EBADF', syscall: 'getsockopt' })
})

leakFree('checkUnixStream() refuses a Unix datagram socket', async (t) => {
  const { int, pointer } = { int: 'int', pointer: 'pointer' } as const
  const parameters = [int, int, int, pointer] as const
  const pair = libc.declare('socketpair', 'int', parameters)
  const { bytes, address } = libc.allocate(8)
  const [AF_UNIX, SOCK_DGRAM] = [1, 2]
  t.equal(pair(AF_UNIX, SOCK_DGRAM, 0, address), 0)
  const [one, other] = [bytes.readInt32LE(0), bytes.readInt32LE(4)]
  t.throws(() => checkUnixStream(one), {
    code: 'EPROTOTYPE',
    syscall: 'getsockopt',
    message: /got family 1, type 2$/,
  })
  for (const fd of [one, other]) closeSync(fd)
})

leakFree('refuseDescriptors() passes over a kernel without it', async (t) => {
  for (const [result, expected] of [
    [-92, undefined], // ENOPROTOOPT
    [-9, { code: 'EBADF', syscall: 'setsockopt' }],
  ] as const) {
    const { refuseDescriptors } = await t.mockImport<
      typeof import('../../../lib/socket/options.ts')
    >('../../../lib/socket/options.ts', {
      '../../../lib/libc.ts': {
        ...libc,
        declare: (name: string, ...rest: ['int', []]) =>
          name === 'setsockopt' ? () => result : libc.declare(name, ...rest),
      },
    })
    if (expected) t.throws(() => refuseDescriptors(1), expected)
    else t.doesNotThrow(() => refuseDescriptors(1))
  }
})

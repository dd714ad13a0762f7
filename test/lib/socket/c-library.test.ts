// What the C library here can do, found out by asking it; other C libraries are
// played by what stands in for its functions.

import { constants } from 'node:os'
import { type Test, t } from 'tap'

import { unixRights } from '../../../lib/cmsg.ts'
import * as layouts from '../../../lib/layouts.ts'
import * as libc from '../../../lib/libc.ts'
import { maxFdsPerMessage } from '../../../lib/socket/c-library.ts'
import { declaring } from '../../support/c.ts'

type CLibrary = typeof import('../../../lib/socket/c-library.ts')

const { host } = layouts

/** lib/socket/c-library.ts on another layout, with other functions. */
function elsewhere(
  t: Test,
  abi: Partial<layouts.Abi>,
  functions: Partial<typeof libc> = {},
): Promise<CLibrary> {
  return t.mockImport<CLibrary>('../../../lib/socket/c-library.ts', {
    '../../../lib/layouts.ts': { ...layouts, host: { ...host, ...abi } },
    '../../../lib/libc.ts': { ...libc, ...functions },
  })
}

t.test('maxFdsPerMessage() asks libc, within the layout', async (t) => {
  t.ok([252, host.maxFds].includes(maxFdsPerMessage()))
  const fewer = await elsewhere(t, { maxFds: 100 })
  t.equal(fewer.maxFdsPerMessage(), 100)
  const oldMusl = declaring('sendmsg', () => -constants.errno.ENOMEM)
  for (const maxFds of [253, 254]) {
    const { maxFdsPerMessage } = await elsewhere(t, { maxFds }, oldMusl)
    t.equal(maxFdsPerMessage(), 252, 'musl before 1.2.4')
  }
})

t.test('maxFdsPerMessage() asks with a true control message', async (t) => {
  // An emulator looks into it before it passes the call on (qemu-user).
  let memory: libc.Memory | undefined
  let control = ''
  const allocate = (size: number): libc.Memory => {
    memory = libc.allocate(size)
    return memory
  }
  const sendmsg = (): number => {
    const { msg_control, msg_controllen } = host.msghdr
    if (memory === undefined) return 0
    const { bytes, base } = memory
    const at = Number(bytes.readBigUInt64LE(msg_control)) - base
    const length = bytes.readUInt32LE(msg_controllen)
    control = bytes.toString('hex', at, at + length)
    return -constants.errno.EBADF
  }
  const functions = { ...declaring('sendmsg', sendmsg), allocate }
  const { maxFdsPerMessage } = await elsewhere(t, {}, functions)
  t.equal(maxFdsPerMessage(), host.maxFds)
  const expected = unixRights(...new Array<number>(host.maxFds).fill(0))
  t.equal(control, expected.toString('hex'))
})

t.test('hasBatchCalls: with glibc alone', async (t) => {
  const asked: string[] = []
  const library = (isGlibc: boolean) => ({
    hasFunction: (name: string): boolean => {
      asked.push(name)
      return isGlibc
    },
  })
  t.equal((await elsewhere(t, {}, library(true))).hasBatchCalls, true)
  t.equal((await elsewhere(t, {}, library(false))).hasBatchCalls, false)
  t.strictSame(asked, ['gnu_get_libc_version', 'gnu_get_libc_version'])
})

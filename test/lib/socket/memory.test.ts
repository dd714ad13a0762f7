// memfd() and pipe().

import {
  closeSync,
  fstatSync,
  ftruncateSync,
  readFileSync,
  readlinkSync,
  readSync,
  writeSync,
} from 'node:fs'

import { type Test, t as tap } from 'tap'

import { memfd, pipe } from '../../../lib/index.ts'
import * as libc from '../../../lib/libc.ts'
import * as calls from '../../../lib/socket/calls.ts'
import * as unix from '../../../lib/socket/unix.ts'
import { leakFree } from '../../support/descriptors.ts'

const skip = process.platform === 'linux' ? false : 'memfd_create is Linux'

function isCloseOnExec(fd: number): boolean {
  const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')
  return (
    (Number.parseInt(/flags:\s+(\d+)/.exec(info)?.[1] ?? '', 8) & 0o2000000) !==
    0
  )
}

leakFree(
  'memfd() gives memory of a size, under a name, and seals it',
  async (t) => {
    const fd = memfd('picture', {
      size: 4096,
      seal: ['shrink', 'grow', 'seal'],
    })
    t.equal(fstatSync(fd).size, 4096)
    t.match(readlinkSync(`/proc/self/fd/${fd}`), /^\/memfd:picture /)
    t.ok(isCloseOnExec(fd))
    t.equal(writeSync(fd, 'x', 100), 1)
    t.throws(() => ftruncateSync(fd, 10), { code: 'EPERM' })
    t.throws(() => ftruncateSync(fd, 10_000), { code: 'EPERM' })
    closeSync(fd)
    const other = memfd('')
    t.equal(fstatSync(other).size, 0)
    ftruncateSync(other, 10)
    closeSync(other)
  },
  skip,
)

leakFree(
  'memfd() refuses what makes no sense, and leaves nothing open',
  async (t) => {
    t.throws(() => memfd('x'.repeat(250)), { name: 'RangeError' })
    t.throws(() => memfd('a\0b'), { name: 'RangeError' })
    t.throws(() => memfd('x', { size: -1 }), { name: 'RangeError' })
    t.throws(() => memfd('x', { size: 1.5 }), { name: 'RangeError' })
    const seal = JSON.parse('["nothing"]')
    t.throws(() => memfd('x', { seal }), {
      name: 'RangeError',
      message: 'Expected seals of seal, shrink, grow, write, got nothing',
    })
    const longest = 'x'.repeat(249)
    const fd = memfd(longest)
    t.equal(readlinkSync(`/proc/self/fd/${fd}`), `/memfd:${longest} (deleted)`)
    closeSync(fd)
  },
  skip,
)

leakFree(
  'memfd() that cannot be sealed leaves nothing open',
  async (t) => {
    const { memfd } = await t.mockImport<
      typeof import('../../../lib/socket/memory.ts')
    >('../../../lib/socket/memory.ts', {
      '../../../lib/socket/calls.ts': { ...calls, fcntl: () => -1 },
    })
    const refusal = { code: 'EPERM', syscall: 'fcntl' }
    t.throws(() => memfd('x', { seal: ['write'] }), refusal)
  },
  skip,
)

leakFree('pipe() gives two ends', async (t) => {
  const { read, write } = pipe()
  if (!skip) t.ok(isCloseOnExec(read) && isCloseOnExec(write))
  writeSync(write, 'hello')
  const bytes = Buffer.alloc(10)
  t.equal(readSync(read, bytes), 5)
  closeSync(write)
  t.equal(readSync(read, bytes), 0, 'and an end')
  closeSync(read)
})

/**
 * lib/socket/memory.ts on `platform`, and the functions of C that it calls; they
 * do their work, or give `result`.
 */
async function memoryOn(t: Test, platform: string, result?: number) {
  const called: unknown[] = []
  type Declare = typeof libc.declareOptional
  const declareOptional: Declare = (name, returns, params) => {
    const call = libc.declareOptional(name, returns, params)
    return (...values) => {
      called.push([name, params.length])
      return result ?? call(...values)
    }
  }
  const setCloseOnExec = (fd: number): number => {
    called.push('setCloseOnExec')
    return unix.setCloseOnExec(fd)
  }
  const { restore } = t.intercept(process, 'platform', { value: platform })
  const memory = await t.mockImport<
    typeof import('../../../lib/socket/memory.ts')
  >('../../../lib/socket/memory.ts', {
    '../../../lib/libc.ts': { ...libc, declareOptional },
    '../../../lib/socket/calls.ts': calls,
    '../../../lib/socket/unix.ts': { ...unix, setCloseOnExec },
  })
  restore()
  return { ...memory, called }
}

for (const [platform, expected] of [
  ['linux', [['pipe2', 2]]],
  ['darwin', [['pipe', 1], 'setCloseOnExec', 'setCloseOnExec']],
] as const) {
  leakFree(
    `on ${platform} both ends of a pipe are close-on-exec`,
    async (t) => {
      const { pipe, called } = await memoryOn(t, platform)
      const { read, write } = pipe()
      t.strictSame(called, expected)
      writeSync(write, 'hello')
      t.equal(readSync(read, Buffer.alloc(10)), 5)
      for (const fd of [read, write]) {
        t.ok(isCloseOnExec(fd))
        closeSync(fd)
      }
    },
    skip,
  )
}

tap.test('a call that fails is named', async (t) => {
  const { memfd, pipe } = await memoryOn(t, process.platform, -24)
  t.throws(pipe, { code: 'EMFILE', syscall: 'pipe' })
  t.throws(() => memfd('x'), { code: 'EMFILE', syscall: 'memfd_create' })
})

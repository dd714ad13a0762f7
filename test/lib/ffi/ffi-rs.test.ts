// ffi-rs where it cannot be had, or not be kept. What it does is in
// libc.test.ts.

import * as fs from 'node:fs'
import { Module } from 'node:module'
import { constants } from 'node:os'
import { type Test, t } from 'tap'

type Engine = typeof import('../../../lib/ffi/ffi-rs.ts')
const path = '../../../lib/ffi/ffi-rs.ts'

/** As require() fails that createRequire() has made. */
function notFound(name: string): Error {
  const message = `Cannot find module '${name}'\nRequire stack:\n- a file`
  return Object.assign(new Error(message), { code: 'MODULE_NOT_FOUND' })
}

t.test('ffiRs() says what has to be installed', async (t) => {
  const errors = [
    notFound('ffi-rs'),
    notFound('@yuuang/ffi-rs-linux-x64-gnu'),
    new Error('Unsupported OS'),
  ]
  const messages = []
  for (const error of errors) {
    const createRequire = () => () => {
      throw error
    }
    const { ffiRs } = await t.mockImport<Engine>(path, {
      'node:module': { Module: { createRequire } },
    })
    t.throws(ffiRs)
    try {
      ffiRs()
    } catch (thrown) {
      messages.push((thrown as Error).message)
    }
  }
  const advice =
    'which has to be installed where the program runs, beside a bundle too'
  t.strictSame(messages, [
    `Cannot find module 'ffi-rs', ${advice}`,
    `Cannot find module '@yuuang/ffi-rs-linux-x64-gnu', ${advice}`,
    'Unsupported OS',
  ])
})

type Loaded = { funcName: string; paramsValue: unknown[] }

/**
 * What ffiRs() loads once more on `platform`, where /proc/self/maps has `maps`,
 * and require() the files `required`.
 */
async function keptOn(
  t: Test,
  platform: string,
  maps: string | undefined,
  required: readonly string[] = [],
): Promise<unknown[][]> {
  const loaded: Loaded[] = []
  const ffi = {
    DataType: { I32: 'int', I64: 'long', U32: 'uint', String: 'string' },
    open: () => {},
    load: (call: Loaded) => void loaded.push(call),
  }
  const cache = Object.fromEntries(required.map((file) => [file, {}]))
  const createRequire = () => Object.assign(() => ffi, { cache })
  const readFileSync = (): string => {
    if (maps === undefined) throw new Error('ENOENT')
    return maps
  }
  t.intercept(process, 'platform', { value: platform })
  const { ffiRs } = await t.mockImport<Engine>(path, {
    'node:fs': { ...fs, readFileSync },
    'node:module': { Module: { createRequire } },
  })
  t.equal(ffiRs().name, 'ffi-rs')
  t.ok(loaded.every(({ funcName }) => funcName === 'dlopen'))
  return loaded.map(({ paramsValue }) => paramsValue)
}

t.test('ffiRs() keeps each addon where it is', async (t) => {
  // dlopen(3): RTLD_LAZY, and on Linux RTLD_NOLOAD.
  const flags = constants.dlopen.RTLD_LAZY
  const maps = `7f01-7f02 r--p 00000000 08:01 1234      /a/one.node
7f02-7f03 r-xp 00001000 08:01 1234                       /a/one.node
7f03-7f04 r--p 00000000 08:01 5678                       /a b/two.node
7f04-7f05 rw-p 00000000 00:00 0
7f05-7f06 r--p 00000000 08:01 99                         /a/one.node.so
`
  t.strictSame(await keptOn(t, 'linux', maps), [
    ['/a/one.node', flags | 4],
    ['/a b/two.node', flags | 4],
  ])
  const required = ['/a/main.js', '/a/three.node']
  t.strictSame(await keptOn(t, 'darwin', undefined, required), [
    ['/a/three.node', flags],
  ])
})

t.test('ffiRs() works where nothing tells what is mapped', async (t) => {
  let asked = 0
  const readFileSync = (...args: Parameters<typeof fs.readFileSync>) => {
    if (args[0] !== '/proc/self/maps') return fs.readFileSync(...args)
    asked++
    throw new Error('ENOENT')
  }
  const { ffiRs } = await t.mockImport<Engine>(path, {
    'node:fs': { ...fs, readFileSync },
    'node:module': { Module },
  })
  const getpid = ffiRs().declare('getpid', 'int', [])
  t.equal(getpid(), process.pid)
  t.equal(asked, 1)
})

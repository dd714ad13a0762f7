// ffi-rs where it cannot be had, or not be kept. What it does is in
// libc.test.ts.

import * as fs from 'node:fs'
import { Module } from 'node:module'
import { t } from 'tap'

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

// node:ffi where it cannot be had. What it does is in libc.test.ts.

import { t } from 'tap'

t.test('openNodeFfi() says what node:ffi needs', async (t) => {
  const createRequire = () => () => {
    throw new Error('No such built-in module: node:ffi')
  }
  type Module = typeof import('../../../lib/ffi/node-ffi.ts')
  const path = '../../../lib/ffi/node-ffi.ts'
  const { openNodeFfi, nodeFfi } = await t.mockImport<Module>(path, {
    'node:module': { createRequire },
  })
  for (const open of [openNodeFfi, nodeFfi]) {
    t.throws(open, {
      message:
        'Expected node:ffi, which Node has from 26.10 on, unless started with ' +
        '--no-experimental-ffi, or with --permission and no --allow-ffi; got ' +
        `No such built-in module: node:ffi from Node ${process.version}`,
    })
  }
})

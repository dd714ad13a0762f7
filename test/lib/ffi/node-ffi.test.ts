// node:ffi where it cannot be had. What it does is in libc.test.ts.

import { t } from 'tap'

import { nodeFfi, openNodeFfi } from '../../../lib/ffi/node-ffi.ts'

t.test('openNodeFfi() says what node:ffi needs', async (t) => {
  // As with --no-experimental-ffi, and as before Node 20.16.
  const nothing = (): undefined => undefined
  for (const getBuiltinModule of [nothing, undefined]) {
    t.intercept(process, 'getBuiltinModule', { value: getBuiltinModule })
    for (const open of [openNodeFfi, nodeFfi]) {
      t.throws(open, {
        message:
          'Expected node:ffi, which Node has from 26.10 on, unless started ' +
          'with --no-experimental-ffi, or with --permission and no ' +
          '--allow-ffi; got no built-in module node:ffi from Node ' +
          process.version,
      })
    }
  }
})

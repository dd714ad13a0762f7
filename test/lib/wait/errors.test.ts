// Errors that are no system call's.

import { setTimeout } from 'node:timers/promises'
import { t } from 'tap'

import { abortError, codedError } from '../../../lib/wait/errors.ts'

t.test('an error has its code, and what else there is to know', async (t) => {
  const plain = codedError('ERR_SOCKET_CLOSED', 'the socket is closed')
  t.ok(plain instanceof Error)
  t.equal(plain.message, 'the socket is closed')
  t.strictSame({ ...plain }, { code: 'ERR_SOCKET_CLOSED' })

  const details = { fds: [7], data: 'x' }
  const detailed = codedError('ERR_TOO_MANY_FDS', 'too many', details)
  t.strictSame({ ...detailed }, { code: 'ERR_TOO_MANY_FDS', ...details })
})

t.test('an AbortError is as those of Node', async (t) => {
  const cause = new Error('enough')
  const error = abortError(AbortSignal.abort(cause))
  const aborted = setTimeout(0, 0, { signal: AbortSignal.abort() })
  const { message, name, code } = await aborted.catch((error) => error)
  t.match(error, { message, name, code, cause })
  t.equal(abortError(undefined).cause, undefined)
})

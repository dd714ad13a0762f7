// How long is waited between two tries.

import { t } from 'tap'

import { FIRST_DELAY, longerDelay } from '../../../lib/wait/retry.ts'

t.test('each delay is twice the last, up to a limit', async (t) => {
  const delays = [FIRST_DELAY]
  while (delays.length < 8) delays.push(longerDelay(delays.at(-1) ?? 0))
  t.strictSame(delays, [1, 2, 4, 8, 16, 32, 32, 32])
})

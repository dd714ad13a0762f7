// A few seconds of the fuzzer, other choices in each run. A failure says which.

import { t } from 'tap'

import { fuzz } from './fuzz.ts'

const ROUNDS = 100

t.test('all operations, interleaved', async (t) => {
  const seed = Date.now() % 2 ** 31
  t.comment(`seed ${seed}`)
  let played = 0
  await fuzz(seed, ROUNDS, () => played++)
  t.equal(played, ROUNDS)
})

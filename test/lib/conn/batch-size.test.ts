import { t } from 'tap'
import { Pace } from '../../../lib/conn/batch-size.ts'
import { MAX_BATCH } from '../../../lib/message.ts'

const TRUST = 16

t.test('next() is one at first, and doubles while all come', async (t) => {
  const pace = new Pace()
  const asked = []
  for (let i = 0; i < 8; i++) {
    const count = pace.next()
    asked.push(count)
    pace.came(count, count)
  }
  t.strictSame(asked, [1, 2, 4, 8, 16, 32, 64, 64])
  t.equal(MAX_BATCH, 64)
})

t.test('next() is what came last time, and two at least', async (t) => {
  const pace = new Pace()
  for (let i = 0; i < 5; i++) pace.came(pace.next(), pace.next())
  t.equal(pace.next(), 32)
  pace.came(32, 10)
  t.equal(pace.next(), 10)
  pace.came(10, 1)
  t.equal(pace.next(), 2)
})

t.test('next() waits for news after a call in vain', async (t) => {
  const pace = new Pace()
  pace.came(1, 0)
  t.equal(pace.next(), 0)
  pace.news()
  t.equal(pace.next(), 1, 'there is something')
  pace.came(1, 1)
  t.equal(pace.next(), 2, 'there may be more')
  pace.came(2, 0)
  for (let i = 0; i < TRUST; i++) t.equal(pace.next(), 0)
  t.equal(pace.next(), 2, 'tries all the same, after a time')
})

t.test('next() goes on waiting for news where that was right', async (t) => {
  const pace = new Pace()
  let waits = 0
  // A peer that answers what it is asked: nothing is there before the news.
  for (let round = 0; round < 10 * (TRUST + 1); round++) {
    const early = pace.next()
    if (early === 0) waits++
    else pace.came(early, 0)
    pace.news()
    pace.came(pace.next(), 1)
  }
  t.ok(waits >= 9 * TRUST, `${waits} waits without a call in vain`)
})

t.test('next() is one for a time where one came of two', async (t) => {
  const pace = new Pace()
  pace.came(1, 1)
  pace.came(2, 1)
  for (let i = 0; i < TRUST; i++) {
    t.equal(pace.next(), 1)
    pace.came(1, 1)
  }
  t.equal(pace.next(), 2, 'looks whether it is so still')
  pace.came(2, 2)
  t.equal(pace.next(), 4)
})

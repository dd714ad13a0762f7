import { setTimeout } from 'node:timers/promises'
import { t } from 'tap'

import { Vigil } from '../../../lib/wait/busy-poll.ts'

const SHORT = 0.1
const LONG = 0.3

// Whether the event loop is kept from sleep right now, before it goes round.
function awake(): boolean {
  return process.getActiveResourcesInfo().includes('Immediate')
}

// One wait of so many ms. Whether it was stayed awake for.
async function wait(vigil: Vigil, time: number): Promise<boolean> {
  const start = performance.now()
  vigil.begin(start)
  const wasAwake = awake()
  vigil.end(start + time)
  await setTimeout(2) // more than it can last
  return wasAwake
}

t.test(
  'begin() stays awake after a short wait, not after a long',
  async (t) => {
    const vigil = new Vigil()
    t.equal(await wait(vigil, LONG), false, 'the first')
    t.equal(await wait(vigil, SHORT), false, 'after a long one')
    t.equal(await wait(vigil, SHORT), true, 'after a short one')
    t.equal(await wait(vigil, SHORT), true)
  },
)

t.test('end() has failures followed by naps, twice as many each', async (t) => {
  const vigil = new Vigil()
  await wait(vigil, SHORT)
  for (const naps of [1, 2, 4, 8, 16, 32, 64, 64]) {
    t.equal(await wait(vigil, LONG), true, 'in vain')
    t.equal(await wait(vigil, SHORT), false, 'the last was long')
    for (let nap = 0; nap < naps; nap++) {
      t.equal(await wait(vigil, SHORT), false, `nap ${nap + 1} of ${naps}`)
    }
  }
})

t.test('end() makes failures cheaper with each success', async (t) => {
  const vigil = new Vigil()
  const naps = async (): Promise<number> => {
    await wait(vigil, LONG)
    await wait(vigil, SHORT)
    let count = 0
    while (!(await wait(vigil, SHORT))) count++
    return count
  }
  await wait(vigil, SHORT)
  t.equal(await naps(), 1)
  t.equal(await naps(), 1, 'one success since')
  t.equal(await wait(vigil, SHORT), true)
})

t.test('one vigil more is the same event loop kept awake', async (t) => {
  const [one, other] = [new Vigil(), new Vigil()]
  for (const vigil of [one, other]) await wait(vigil, SHORT)
  const now = performance.now()
  for (const vigil of [one, other]) vigil.begin(now)
  const immediates = process
    .getActiveResourcesInfo()
    .filter((name) => name === 'Immediate')
  t.equal(immediates.length, 1)
})

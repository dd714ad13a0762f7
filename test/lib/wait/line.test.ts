// Calls in line: their order, and what an abort takes out.

import { getEventListeners } from 'node:events'
import { t } from 'tap'

import { Line } from '../../../lib/wait/line.ts'

/** What became of a call: its result, or the name of its error. */
function outcome(call: Promise<unknown>): Promise<unknown> {
  return call.catch((error: Error) => error.name)
}

function countListeners(signal: AbortSignal): number {
  return getEventListeners(signal, 'abort').length
}

t.test('calls are settled in the order in which they joined', async (t) => {
  const line = new Line<string>()
  t.equal(line.isEmpty, true)
  t.equal(line.first, undefined)
  const order: string[] = []
  const joined = ['a', 'b', 'c', 'd'].map(async (call) => {
    const result = await outcome(line.join(call))
    order.push(`${call} ${result}`)
  })
  t.equal(line.isEmpty, false)
  for (const call of ['a', 'b', 'c']) {
    t.equal(line.first, call)
    if (call === 'b') line.rejectFirst(new RangeError())
    else line.resolveFirst(1)
  }
  t.equal(line.first, 'd')
  const late = line.join<string>('e')
  line.resolveFirst(2)
  line.resolveFirst('last')
  t.equal(line.isEmpty, true)
  await Promise.all(joined)
  t.strictSame(order, ['a 1', 'b RangeError', 'c 1', 'd 2'])
  t.equal(await late, 'last')
})

t.test('a call gets what it is settled with', async (t) => {
  const line = new Line<undefined>()
  const nothing = line.join<void>(undefined)
  const failed = line.join<void>(undefined)
  line.resolveFirst()
  t.equal(await nothing, undefined)
  const reason = new Error('the reason')
  line.rejectFirst(reason)
  await failed.catch((error: unknown) => t.equal(error, reason))
  t.equal(line.isEmpty, true)
})

t.test('to settle a call when there is none does nothing', async (t) => {
  const line = new Line<string>()
  line.resolveFirst('lost')
  line.rejectFirst(new Error('lost'))
  const call = line.join('a')
  line.resolveFirst('found')
  line.resolveFirst('lost')
  t.equal(await call, 'found')
})

t.test('firstOf() gives the oldest, which stay in line', async (t) => {
  const line = new Line<number>()
  t.strictSame(line.firstOf(3), [])
  const calls = [1, 2, 3, 4].map((call) => line.join(call))
  t.strictSame(line.firstOf(0), [])
  t.strictSame(line.firstOf(3), [1, 2, 3])
  t.strictSame(line.firstOf(9), [1, 2, 3, 4])
  t.equal(line.first, 1)
  while (!line.isEmpty) line.resolveFirst('served')
  t.strictSame(await Promise.all(calls), Array(4).fill('served'))
})

// Which of four are aborted, and who is left.
const aborts: readonly [string, readonly number[], readonly number[]][] = [
  ['the first', [0], [1, 2, 3]],
  ['one in the middle', [2], [0, 1, 3]],
  ['the last', [3], [0, 1, 2]],
  ['two that stand together', [1, 2], [0, 3]],
  ['all but one, from behind', [3, 2, 0], [1]],
  ['all of them', [1, 0, 3, 2], []],
]

for (const [who, aborted, left] of aborts) {
  t.test(`an abort takes ${who} out of the line`, async (t) => {
    const line = new Line<number>()
    const stops = [0, 1, 2, 3].map(() => new AbortController())
    const after: (number | undefined)[] = []
    const calls = stops.map(({ signal }, call) => {
      return outcome(line.join(call, signal, () => after.push(line.first)))
    })
    for (const index of aborted) stops[index]?.abort()
    t.strictSame(line.firstOf(9), left)
    t.equal(after.length, aborted.length, 'and onAbort is called each time')
    t.equal(after.at(-1), left[0], 'when the call is out of the line')

    // Who comes later stands behind those that are left.
    const late = outcome(line.join(4))
    t.strictSame(line.firstOf(9), [...left, 4])
    while (!line.isEmpty) line.resolveFirst(line.first)
    const outcomes = [0, 1, 2, 3].map((call) => {
      return aborted.includes(call) ? 'AbortError' : call
    })
    t.strictSame(await Promise.all(calls), outcomes)
    t.equal(await late, 4)
  })
}

t.test('an AbortError has the reason of the signal', async (t) => {
  const line = new Line<string>()
  const stop = new AbortController()
  const call = line.join('a', stop.signal)
  const cause = new Error('enough')
  stop.abort(cause)
  const expected = { name: 'AbortError', code: 'ABORT_ERR', cause }
  await t.rejects(call, expected)

  let calls = 0
  const never = line.join('b', stop.signal, () => calls++)
  t.equal(line.isEmpty, true, 'aborted before it joined')
  await t.rejects(never, expected)
  t.equal(calls, 0, 'nothing changed for the others')
})

t.test('one signal may be that of several calls', async (t) => {
  const line = new Line<string>()
  const stop = new AbortController()
  const calls = [
    outcome(line.join('a', stop.signal)),
    outcome(line.join('b')),
    outcome(line.join('c', stop.signal)),
  ]
  stop.abort()
  t.strictSame(line.firstOf(9), ['b'])
  line.resolveFirst('served')
  t.strictSame(await Promise.all(calls), ['AbortError', 'served', 'AbortError'])
})

t.test('a call that is settled has left its signal', async (t) => {
  const line = new Line<string>()
  const stop = new AbortController()
  const { signal } = stop
  const calls = ['a', 'b', 'c'].map((call) => outcome(line.join(call, signal)))
  t.equal(countListeners(signal), 3)
  line.resolveFirst('served')
  t.equal(countListeners(signal), 2)
  line.rejectFirst(new RangeError())
  t.equal(countListeners(signal), 1)
  stop.abort()
  t.equal(countListeners(signal), 0)
  const expected = ['served', 'RangeError', 'AbortError']
  t.strictSame(await Promise.all(calls), expected)
  t.equal(line.isEmpty, true)
})

t.test('onAbort may serve those behind', async (t) => {
  const line = new Line<string>()
  const stop = new AbortController()
  const served: unknown[] = []
  const serve = (): void => {
    while (!line.isEmpty) {
      served.push(line.first)
      line.resolveFirst('served')
    }
  }
  const first = outcome(line.join('a', stop.signal, serve))
  const second = line.join('b', stop.signal, serve)
  stop.abort()
  t.strictSame(served, ['b'])
  t.equal(await first, 'AbortError')
  t.equal(await second, 'served', 'which has its result, not the abort')
})

t.test('what is no signal leaves nothing in line', async (t) => {
  const line = new Line<string>()
  // The types are no hindrance to code in JavaScript.
  const refused = line.join('a', {} as AbortSignal)
  await t.rejects(refused, { name: 'TypeError' })
  t.equal(line.isEmpty, true)
})

const MANY = 200_000
const MANY_ABORTED = 20_000

t.test(`${MANY} calls join, and are settled`, async (t) => {
  const line = new Line<number>()
  let sum = 0
  for (let call = 0; call < MANY; call++) {
    line.join<number>(call).then((result) => {
      sum += result
    })
  }
  let served = 0
  for (; line.first === served; served++) line.resolveFirst(served)
  t.equal(served, MANY)
  t.equal(line.isEmpty, true)
  await new Promise(setImmediate)
  t.equal(sum, (MANY * (MANY - 1)) / 2)
})

t.test(`${MANY_ABORTED} calls are aborted, the last ones first`, async (t) => {
  const line = new Line<number>()
  const stops: AbortController[] = []
  let aborted = 0
  for (let call = 0; call < MANY_ABORTED; call++) {
    const stop = new AbortController()
    stops.push(stop)
    line.join(call, stop.signal).catch(() => aborted++)
  }
  for (const stop of stops.reverse()) stop.abort()
  t.equal(line.isEmpty, true)
  await new Promise(setImmediate)
  t.equal(aborted, MANY_ABORTED)
})

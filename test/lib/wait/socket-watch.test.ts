// What SocketWatch asks of the event loop. In the place of its EmptyRead is an
// object that notes what it is asked, and tells when the test says so. What every
// kind of watch does is in watch.test.ts.

import { type Test, t } from 'tap'

import * as options from '../../../lib/socket/options.ts'
import { READABLE, type Watch } from '../../../lib/wait/types.ts'

type Module = typeof import('../../../lib/wait/socket-watch.ts')

/** A watch of descriptor 0, and what stands in the place of its EmptyRead. */
async function watchOf(t: Test) {
  const calls: string[] = []
  const told: number[] = []
  class FakeRead {
    tellReadable: () => void
    fail: (reason: Error) => void
    constructor(
      _fd: number,
      onReadable: () => void,
      onFailure: (reason: Error) => void,
    ) {
      this.tellReadable = onReadable
      this.fail = onFailure
    }
    ref(): void {}
    unref(): void {}
    pause(): void {
      calls.push('pause')
    }
    resume(): void {
      calls.push('resume')
    }
    close(): void {}
  }
  let loop: FakeRead | undefined
  const { SocketWatch } = await t.mockImport<Module>(
    '../../../lib/wait/socket-watch.ts',
    {
      '../../../lib/socket/options.ts': {
        ...options,
        isMessageSocket: () => true,
      },
      '../../../lib/wait/empty-read.ts': {
        EmptyRead: FakeRead,
        emptyReadOf: (...args: ConstructorParameters<typeof FakeRead>) => {
          loop = new FakeRead(...args)
          return loop
        },
      },
    },
  )
  const watch: Watch = new SocketWatch(0, 'level', (events) =>
    told.push(events),
  )
  if (loop === undefined) throw new Error('Expected a watch of the event loop')
  return { watch, told, calls, loop }
}

t.test(
  'the event loop is paused when nobody waits, and resumed when somebody does',
  async (t) => {
    const { watch, told, calls, loop } = await watchOf(t)
    for (let round = 0; round < 2; round++) {
      watch.wait(READABLE)
      loop.tellReadable()
      watch.wait(READABLE)
      loop.tellReadable()
      t.strictSame(told.splice(0), [READABLE, READABLE])
      t.strictSame(calls.splice(0), [], 'waits again in time')
      loop.tellReadable()
      t.strictSame(told, [], 'nobody waits')
      t.strictSame(calls.splice(0), ['pause'])
      watch.wait(READABLE)
      watch.wait(READABLE)
      t.strictSame(calls.splice(0), ['resume'])
      loop.tellReadable()
      t.strictSame(told.splice(0), [READABLE])
    }
  },
)

t.test('where this Node cannot wait, whoever waits is told why', async (t) => {
  const { watch, told, loop } = await watchOf(t)
  t.equal(watch.failure, undefined)
  watch.wait(READABLE)
  const reason = new Error('of this Node')
  loop.fail(reason)
  t.strictSame(told, [READABLE])
  t.equal(watch.failure, reason)
  t.throws(() => watch.wait(READABLE), reason)
})

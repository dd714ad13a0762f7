// A share of libuv's pool, for calls that may wait in the kernel: for a file
// whose server does not answer, or for a terminal from which another reader has
// taken what was there. Whoever sent such a descriptor may hold a thread for
// ever, so calls of one kind never have more than a third of the threads, and
// one in three is left for all else.
// Read next: lib/stream/stream.ts.

import { beginPoolCall } from '../socket/pool-calls.ts'

/** UV_THREADPOOL_SIZE of libuv: 4 threads unless set. */
const THREADS = Number(process.env.UV_THREADPOOL_SIZE) || 4

/** A call: it begins something in the pool, and says when that is over. */
type Task = (over: () => void) => void

export class PoolShare {
  #free = Math.max(1, Math.floor(THREADS / 3))
  readonly #waiting: Task[] = []

  /** Calls `task` at once or, in order, when others are over. */
  run(task: Task): void {
    if (this.#free === 0) {
      this.#waiting.push(task)
      return
    }
    this.#free--
    const end = beginPoolCall()
    task(() => {
      end()
      this.#free++
      const next = this.#waiting.shift()
      if (next) this.run(next)
    })
  }
}

/** For files, and for what is first waited for until it is ready. */
export const shares = { file: new PoolShare(), ready: new PoolShare() }

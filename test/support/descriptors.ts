// The descriptor table of a process, before and after. Not a test itself.

import { closeSync, readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { type Test, t as tap } from 'tap'

import { waitWritable } from '../../lib/index.ts'
import { newSocketpair } from '../../lib/socket/unix.ts'
import { until } from './waiting.ts'

/**
 * The descriptors of a process, each as `number -> what it refers to`. Without
 * the one that reads the folder, and without the cache of tsx, which is written
 * while the script runs.
 */
export function openFds(pid: number | 'self' = 'self'): string[] {
  const folder = `/proc/${pid}/fd`
  const fds: string[] = []
  for (const fd of readdirSync(folder)) {
    try {
      const target = readlinkSync(join(folder, fd))
      if (!/\/fd$|\/tsx-\d+(\/|$)/.test(target)) fds.push(`${fd} -> ${target}`)
    } catch {
      // The folder's own descriptor is closed by now.
    }
  }
  return fds.sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10))
}

/** A test at whose end the descriptors are open that were open before. */
export function leakFree(
  name: string,
  body: (t: Test) => Promise<unknown>,
  skip: string | false = false,
): void {
  tap.test(name, { skip }, async (t) => {
    await epollInPlace()
    const before = openFds()
    await body(t)
    // Node closes files in its thread pool: what it has begun may take a while.
    const isBefore = (): boolean => openFds().join() === before.join()
    await until('the descriptors of before', isBefore, 20).catch(() => {})
    t.strictSame(openFds(), before, 'no descriptor leaked')
  })
}

// The one epoll instance of a thread is made when it is first needed, and stays.
async function epollInPlace(): Promise<void> {
  const [one, other] = newSocketpair()
  await waitWritable(one)
  closeSync(one)
  closeSync(other)
}

/**
 * The descriptors of another process, once they have stayed the same for a
 * while: at its start Node, or tsx, has some open for a moment.
 */
export async function settledFds(pid: number): Promise<string[]> {
  let before = openFds(pid)
  let same = 0
  await until('the descriptors of a process that has settled', () => {
    const fds = openFds(pid)
    same = fds.join() === before.join() ? same + 1 : 0
    before = fds
    return same === 50
  })
  return before
}

// What the tests of the examples share beyond ../support/. Not a test itself.

import { once } from 'node:events'
import { createServer } from 'node:net'
import type { Test } from 'tap'

import { openFds } from '../support/descriptors.ts'
import { plainEnv, run, script } from '../support/processes.ts'
import { until } from '../support/waiting.ts'

/**
 * Waits until a process has no descriptor open but those of `before`: it closes
 * its end of a connection some time after the test has closed the other one.
 * What is gone since is the business of Node and of what loads TypeScript.
 */
export async function noMoreFds(
  t: Test,
  { pid }: { readonly pid: number },
  before: readonly string[],
): Promise<void> {
  let more: string[] = []
  const isClosed = (): boolean => {
    more = openFds(pid).filter((fd) => !before.includes(fd))
    return more.length === 0
  }
  await until('closed', isClosed).catch(() => {})
  t.strictSame(more, [], 'no descriptor leaked')
}

// Below what the kernel chooses from for port 0 and for clients
// (ip_local_port_range), and elsewhere in each process: between the probe and
// the use of a port another test file that runs meanwhile must not get it.
let lastPort = 10_000 + (process.pid % 200) * 100

/** A port that nobody has at the moment. A new one each time. */
export async function freePort(): Promise<number> {
  for (;;) {
    const probe = createServer().listen(++lastPort, '127.0.0.1')
    const isFree = await once(probe, 'listening').then(
      () => true,
      () => false,
    )
    if (!isFree) continue
    probe.close()
    await once(probe, 'close')
    return lastPort
  }
}

/**
 * Expectations of scripts that end at once: of the exit code, and of what they
 * print, on stdout if the code is 0 and on stderr if not.
 */
export function expecting(t: Test) {
  return async (
    file: string,
    args: readonly string[],
    code: number,
    text: RegExp,
    env: NodeJS.ProcessEnv = plainEnv(),
  ): Promise<void> => {
    const result = await run(t, script(file, ...args), { env })
    t.equal(result.code, code, `${file} ${args.join(' ')}`)
    t.match(code === 0 ? result.stdout : result.stderr, text)
  }
}

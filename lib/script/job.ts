// Job control, as far as a program has to know of it that gives its terminal to
// somebody else to read: the kernel stops it no more when it is in the
// background, as it reads nothing itself. Open credentials(7), "Sessions and
// process groups", and tcgetpgrp(3) with it.

import { setTimeout as sleep } from 'node:timers/promises'
import { declare } from '../libc.ts'

// pid_t tcgetpgrp(int fd)
const tcgetpgrp = declare('tcgetpgrp', 'int', ['int'])
// pid_t getpgrp(void)
const getpgrp = declare('getpgrp', 'int', [])

/**
 * Resolves when this process may read its terminal, at once if stdin is none.
 * In the background (`&`, or `bg` after Ctrl-Z) it stops, as programs do that
 * try to read there; the shell tells, and `fg` lets it go on.
 *
 * @see tcgetpgrp(3), SIGTTIN in signal(7)
 */
export async function untilForeground(): Promise<void> {
  while (isInBackground()) {
    // To the job as a whole, where the kernel would send it.
    process.kill(0, 'SIGTTIN')
    // Not stopped if no shell could let it go on: then the terminal is polled.
    await sleep(100)
  }
}

// Whether the terminal is another process group's to read.
function isInBackground(): boolean {
  // -ENOTTY for what is no terminal, or does not control this process.
  const foreground = tcgetpgrp(0)
  return foreground >= 0 && foreground !== getpgrp()
}

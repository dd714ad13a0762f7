// Job control for a program that gives its terminal to another process to read.
// It reads nothing itself, so the kernel does not stop it in the background as
// it would stop a reader. Open credentials(7), "Sessions and process groups",
// and tcgetpgrp(3) with it.

import type { UnixConn } from '../index.ts'
import { declare, NULL, systemError } from '../libc.ts'
import { getpgrp, tcgetpgrp } from '../stream/terminal.ts'
import { fail } from './cli.ts'

// ssize_t read(int fd, void *buffer, size_t count)
const read = declare('read', 'size', ['int', 'pointer', 'pointer'])

/** How long the reader may take to let the terminal go, in ms. */
const PATIENCE = 1000

/**
 * Calls `lend`, which gives the terminal to another process, once this process
 * is in the foreground. At Ctrl-Z the terminal has to be given back first: the
 * function gets a signal that says so, and when it has ended this process
 * stops. After `fg` it is called again.
 */
export async function inForeground(
  lend: (suspended: AbortSignal) => Promise<void>,
): Promise<void> {
  for (;;) {
    waitForForeground()
    const suspension = new AbortController()
    const suspend = (): void => suspension.abort()
    process.once('SIGTSTP', suspend)
    await lend(suspension.signal)
    process.off('SIGTSTP', suspend)
    if (!suspension.signal.aborted) return
    process.kill(process.pid, 'SIGSTOP') // Until `fg`.
  }
}

/**
 * When `suspended` is aborted, ends the sending side of `conn`: at the end of
 * file its peer lets go of what it was lent, and hangs up. A peer that does not
 * answer, as it was stopped too, gets a second.
 */
export function endWhenSuspended(conn: UnixConn, suspended: AbortSignal): void {
  suspended.addEventListener('abort', () => {
    conn.end().catch(() => {}) // The peer may be gone already.
    setTimeout(() => conn.close(), PATIENCE).unref()
  })
}

// Returns when this process may read its terminal, at once if stdin is none. In
// the background (`&`, or `bg` after Ctrl-Z) it stops, as programs do that try
// to read there; the shell says so, and `fg` continues it. Exits 1 (EIO) if no
// shell is there that could do that. See SIGTTIN in signal(7).
function waitForForeground(): void {
  // -ENOTTY for what is no terminal, or does not control this process.
  const foreground = tcgetpgrp(0)
  if (foreground < 0 || foreground === getpgrp()) return
  // Of zero bytes, so that nothing is taken. The kernel checks the process
  // group and stops the process in one step, and does so again if it is
  // continued in the background: no `fg` can come in between.
  const result = read(0, NULL, NULL)
  if (result < 0) fail(systemError('read', result, 'the terminal'))
}

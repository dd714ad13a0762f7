// Job control for a program that gives its terminal to another process to read.
// It reads nothing itself, so the kernel does not stop it in the background as
// it would stop a reader. Open credentials(7), "Sessions and process groups",
// and tcgetpgrp(3) with it.

import { declare, NULL, systemError } from '../libc.ts'
import { fail } from './cli.ts'

// pid_t tcgetpgrp(int fd)
const tcgetpgrp = declare('tcgetpgrp', 'int', ['int'])
// pid_t getpgrp(void)
const getpgrp = declare('getpgrp', 'int', [])
// ssize_t read(int fd, void *buffer, size_t count)
const read = declare('read', 'size', ['int', 'pointer', 'pointer'])

/**
 * Returns when this process may read its terminal, at once if stdin is none.
 * In the background (`&`, or `bg` after Ctrl-Z) it stops, as programs do that
 * try to read there; the shell says so, and `fg` continues it. Exits 1 (EIO) if
 * no shell is there that could do that.
 *
 * @see tcgetpgrp(3), SIGTTIN in signal(7)
 */
export function waitForForeground(): void {
  // -ENOTTY for what is no terminal, or does not control this process.
  const foreground = tcgetpgrp(0)
  if (foreground < 0 || foreground === getpgrp()) return
  // Of zero bytes, so that nothing is taken. The kernel checks the process
  // group and stops the process in one step, and does so again if it is
  // continued in the background: no `fg` can come in between.
  const result = read(0, NULL, NULL)
  if (result < 0) fail(systemError('read', result, 'the terminal'))
}

// What is special about terminals: who may read one without being stopped, and
// how the master side of a pseudo-terminal ends. Open tcgetpgrp(3),
// tcgetsid(3) and pty(7) beside it.
// Read next: lib/stream/node-streams.ts.

import { declare } from '../libc.ts'
import { ioctl } from '../message.ts'
import { value } from '../socket/calls.ts'

// pid_t tcgetsid(int fd)
const tcgetsid = declare('tcgetsid', 'int', ['int'])
// pid_t tcgetpgrp(int fd)
export const tcgetpgrp = declare('tcgetpgrp', 'int', ['int'])
// pid_t getsid(pid_t pid)
const getsid = declare('getsid', 'int', ['int'])
// pid_t getpgrp(void)
export const getpgrp = declare('getpgrp', 'int', [])

const TIOCGPTN = 0x80045430 // <asm-generic/ioctls.h>: of a master, its number

/**
 * Whether a terminal is the master side of a pseudo-terminal, which says EIO
 * once the last slave is closed. Linux only.
 */
export function isMaster(fd: number): boolean {
  return ioctl(fd, TIOCGPTN, value.address) === 0
}

/**
 * Whether a read of this terminal would stop this process (SIGTTIN), because it
 * is its own terminal, and it runs in the background.
 */
export function isInBackground(fd: number): boolean {
  if (tcgetsid(fd) !== getsid(0) || isMaster(fd)) return false
  return tcgetpgrp(fd) !== getpgrp()
}

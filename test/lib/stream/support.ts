// What the tests of received descriptors share: another process that lends
// them, what the kernel tells of an open file description, and libuv's pool
// with all of its threads busy. Not a test itself.

import { execFileSync, spawnSync } from 'node:child_process'
import {
  closeSync,
  fstatSync,
  openSync,
  read,
  readFileSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'

import { UnixConn } from '../../../lib/index.ts'
import { newSocketpair } from '../../../lib/socket/unix.ts'
import * as watch from '../../../lib/wait/watch.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { Running, run } from '../../support/processes.ts'

export type Open = typeof import('../../../lib/stream/open.ts')

const OPEN = '../../../lib/stream/open.ts'

/** lib/stream/open.ts as it is on Linux, and as it is where there is no epoll. */
export const platforms: Record<
  'Linux' | 'elsewhere',
  (t: Test) => Promise<Open>
> = {
  Linux: () => import('../../../lib/stream/open.ts'),
  elsewhere: (t) =>
    t.mockImport<Open>(OPEN, {
      '../../../lib/wait/watch.ts': { ...watch, hasEpoll: false },
    }),
}

const LEND = `
import fcntl, os, pty, socket, struct, sys, termios, threading
def lend(*fds):
    socket.send_fds(socket.socket(fileno=os.dup(3)), [b'x'], fds)
`

/**
 * Runs Python, in which lend(fd, ...) sends descriptors to this process. They
 * are the caller's. Who goes on after that is ended with quit().
 */
export async function borrow(t: Test, source: string, ...args: string[]) {
  const [ours, theirs] = newSocketpair({ isBlocking: true })
  const lender = new Running(t, ['python3', '-c', LEND + source, ...args], {
    stdio: ['pipe', 'pipe', 'pipe', theirs],
  })
  closeSync(theirs)
  const conn = UnixConn.fromFd(ours)
  const message = await conn.recvFds()
  conn.close()
  if (message === null) {
    await lender.exit
    throw new Error(`Expected descriptors from Python, got ${lender.stderr}`)
  }
  const { fds } = message
  const quit = async (): Promise<void> => {
    lender.child.kill()
    await lender.exit
  }
  return { fds, lender, quit }
}

/** Both sides of a new pseudo-terminal. They are the caller's. */
export async function newTerminal(t: Test) {
  const { fds, lender } = await borrow(t, 'lend(*pty.openpty())')
  await lender.exit
  const [master = -1, slave = -1] = fds
  return { master, slave }
}

/** The mode of a terminal, as stty(1) prints it. */
export function modeOf(terminal: number): string {
  const stdio = [terminal, 'pipe', 'inherit'] as const
  return String(spawnSync('stty', ['-g'], { stdio: [...stdio] }).stdout)
}

/** A named FIFO that is opened for both, blocking: what cat(1) of one has. */
export function newFifo(t: Test): number {
  const path = join(temporaryFolder(t), 'fifo')
  execFileSync('mkfifo', [path])
  const fd = openSync(path, 'r+')
  rmSync(path)
  return fd
}

/** What proc_pid_fdinfo(5) tells of an open file description. */
function infoOf(fd: number, field: 'flags' | 'pos', radix: number): number {
  const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')
  const value = new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(info)?.[1]
  return Number.parseInt(value ?? '', radix)
}

/** Its status flags. */
export const flagsOf = (fd: number): number => infoOf(fd, 'flags', 8)
/** Its position, in bytes. */
export const positionOf = (fd: number): number => infoOf(fd, 'pos', 10)

/** Whether two numbers of this process refer to one open file description. */
export async function isSameDescription(t: Test, a: number, b: number) {
  // No C library has a function for kcmp(2): by its number.
  const source = `import ctypes, os, sys
SYS_kcmp = {'x86_64': 312, 'aarch64': 272}[os.uname().machine]
pid, a, b = map(int, sys.argv[1:])
print(ctypes.CDLL(None).syscall(SYS_kcmp, pid, pid, 0, a, b))`
  const numbers = [process.pid, a, b].map(String)
  const { stdout } = await run(t, ['python3', '-c', source, ...numbers])
  t.match(stdout, /^[0-3]\n$/, 'kcmp(2) may be called')
  return stdout === '0\n'
}

/** Whether a number of this process is free. */
export function isClosed(fd: number): boolean {
  try {
    fstatSync(fd)
    return false
  } catch {
    return true
  }
}

/**
 * Keeps all threads of libuv's pool busy, so that what is begun in it meanwhile
 * comes later: until what this returns is called.
 */
export function busyPool(t: Test): () => Promise<void> {
  const fd = newFifo(t)
  const size = Number(process.env.UV_THREADPOOL_SIZE ?? 4)
  const reads = Array.from({ length: size }, () => {
    return new Promise<void>((resolve) => {
      read(fd, Buffer.alloc(1), 0, 1, null, () => resolve())
    })
  })
  return async () => {
    writeSync(fd, Buffer.alloc(size))
    await Promise.all(reads)
    closeSync(fd)
  }
}

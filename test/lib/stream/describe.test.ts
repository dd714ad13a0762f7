// What a descriptor is, and how little is done to find out.

import * as fs from 'node:fs'
import {
  constants,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
} from 'node:fs'
import { constants as os } from 'node:os'
import { join } from 'node:path'
import { t } from 'tap'

import { describeFd } from '../../../lib/index.ts'
import * as layouts from '../../../lib/layouts.ts'
import * as libc from '../../../lib/libc.ts'
import { closeFd, newSocketpair } from '../../../lib/socket/unix.ts'
import { missingFuse, startFuse } from '../../fuse.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing, missingCall } from '../../support/missing.ts'
import { pipe } from '../../support/pipes.ts'
import { Running, run, script } from '../../support/processes.ts'
import { borrow, flagsOf, newTerminal, positionOf } from './support.ts'

type Describe = typeof import('../../../lib/socket/describe.ts')

const DESCRIBE = '../../../lib/socket/describe.ts'
const O_PATH = 0o10000000

/** The path of a block device, if the machine has one. */
const blockDevice = readdirSync('/dev')
  .map((name) => join('/dev', name))
  .find((path) => statSync(path, { throwIfNoEntry: false })?.isBlockDevice())

/** What describeFd() says, in two words; closes the descriptor. */
function described(fd: number, describe = describeFd): string {
  const { kind, access } = describe(fd)
  closeFd(fd)
  return `${kind}, ${access}`
}

leakFree('describeFd() names the kind and the access', async (t) => {
  const folder = temporaryFolder(t)
  const file = join(folder, 'file')
  fs.writeFileSync(file, '')
  const { r, w } = pipe()
  const [one, other] = newSocketpair()
  for (const [fd, expected] of [
    [openSync(file, 'r'), 'file, read'],
    [openSync(file, 'a'), 'file, write'],
    [openSync(file, 'r+'), 'file, read-write'],
    [openSync(folder, 'r'), 'directory, read'],
    [openSync('/dev/null', 'r'), 'character device, read'],
    [openSync('/dev/full', 'w'), 'character device, write'],
    [openSync('/dev/zero', 'r+'), 'character device, read-write'],
    [r, 'pipe, read'],
    [w, 'pipe, write'],
    [one, 'socket, read-write'],
    [other, 'socket, read-write'],
  ] as const) {
    t.equal(described(fd), expected)
  }
})

leakFree(
  'describeFd() names both sides of a terminal',
  async (t) => {
    const { master, slave } = await newTerminal(t)
    t.equal(described(slave), 'terminal, read-write')
    t.equal(described(master), 'terminal, read-write')
  },
  missing('python3'),
)

leakFree(
  'describeFd() names what has no bytes to stream',
  async (t) => {
    const source = `
import ctypes, select, signal
libc = ctypes.CDLL(None)
mask = (ctypes.c_ulong * 16)(1 << signal.SIGUSR1 - 1)
lend(libc.eventfd(0, 0), select.epoll().fileno(), os.pidfd_open(os.getpid()),
     libc.timerfd_create(1, 0), libc.signalfd(-1, mask, 0), libc.inotify_init())
`
    const { fds, lender } = await borrow(t, source)
    await lender.exit
    t.equal(fds.length, 6, lender.stderr)
    for (const fd of fds) t.match(described(fd), /^other, /)
  },
  missing('python3'),
)

leakFree('describeFd() tells what was opened with O_PATH', async (t) => {
  const folder = temporaryFolder(t)
  const link = join(folder, 'link')
  fs.symlinkSync('nowhere', link)
  for (const [path, flags, kind] of [
    ['package.json', O_PATH, 'file'],
    [folder, O_PATH, 'directory'],
    ['/dev/null', O_PATH, 'character device'],
    // A path is no terminal: nothing has been opened.
    ['/dev/ptmx', O_PATH, 'character device'],
    [link, O_PATH | constants.O_NOFOLLOW, 'other'],
  ] as const) {
    t.equal(described(openSync(path, flags)), `${kind}, none`, path)
  }
})

leakFree(
  'describeFd() names a block device',
  async (t) => {
    const fd = openSync(blockDevice ?? '', O_PATH)
    t.equal(described(fd), 'block device, none')
  },
  blockDevice === undefined && 'there is no block device in /dev',
)

leakFree('describeFd() changes nothing', async (t) => {
  const fd = openSync('package.json', 'r')
  fs.readSync(fd, Buffer.alloc(5))
  const flags = flagsOf(fd)
  t.strictSame(describeFd(fd), { kind: 'file', access: 'read' })
  t.equal(positionOf(fd), 5)
  t.equal(flagsOf(fd), flags)
  closeFd(fd)
})

t.test('describeFd() tells that a number is not open', async (t) => {
  const fd = openSync('package.json', 'r')
  closeFd(fd)
  // The last is AT_FDCWD: the folder of this process.
  for (const number of [fd, 99999, -1, -100]) {
    t.throws(() => describeFd(number), {
      code: 'EBADF',
      errno: -9,
      syscall: 'fcntl',
      message: 'fcntl EBADF',
    })
  }
})

t.test('describeFd() takes integers only', async (t) => {
  for (const fd of [1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 32]) {
    const message = `Expected a file descriptor, got ${fd}`
    t.throws(() => describeFd(fd), { name: 'RangeError', message })
  }
})

t.test(
  'describeFd() asks the kernel alone, not who serves a file',
  { skip: missing('strace') || missingCall('statx') },
  async (t) => {
    const log = join(temporaryFolder(t), 'log')
    // Calls that fail show in the log where the one in question begins and ends.
    const source = `
      import { closeSync } from 'node:fs'
      import { describeFd } from './lib/index.ts'
      const mark = () => { try { closeSync(99999) } catch {} }
      mark()
      describeFd(3)
      mark()`
    const fd = openSync('package.json', 'r')
    const { code, stderr } = await run(
      t,
      [
        ...['strace', '-f', '-q', '-o', log],
        ...script('--input-type=module', '-e'),
        source,
      ],
      { stdio: ['ignore', 'pipe', 'pipe', fd] },
    )
    closeFd(fd)
    t.equal(code, 0, stderr)
    const [, calls = ''] = readFileSync(log, 'utf8').split('close(99999')
    // By any thread, to the descriptor.
    const asked = calls.match(/\w+\(3, .*/g) ?? []
    t.match(asked, [
      /^fcntl\(3, F_GETFL/,
      /^statx\(3, "", AT_STATX_DONT_SYNC\|AT_EMPTY_PATH, STATX_TYPE, /,
    ])
    t.equal(asked.length, 2)
  },
)

t.test(
  'describeFd() does not wait for a file system that does not answer',
  { skip: missingFuse() || missingCall('statx') },
  async (t) => {
    const { folder } = await startFuse(t)
    const fd = openSync(join(folder, 'hanging-getattr'), 'r')
    const source = `
      import { describeFd } from './lib/index.ts'
      console.log(JSON.stringify(describeFd(3)))`
    const child = new Running(
      t,
      [...script('--input-type=module', '-e'), source],
      { stdio: ['ignore', 'pipe', 'pipe', fd] },
    )
    closeFd(fd)
    await child.printed(/^{"kind":"file","access":"read"}$/m, 20)
    t.equal((await child.exit).code, 0)
  },
)

/** lib/socket/describe.ts where statx(2) gives `result`. */
function withStatx(t: Parameters<typeof newTerminal>[0], result: number) {
  return t.mockImport<Describe>(DESCRIBE, {
    '../../../lib/layouts.ts': layouts,
    '../../../lib/libc.ts': { ...libc, declareOptional: () => () => result },
  })
}

leakFree('describeFd() works where there is no statx', async (t) => {
  // ENOSYS of the kernel, EPERM of a filter that does not know it.
  const { ENOSYS, EPERM } = os.errno
  for (const errno of [ENOSYS, EPERM]) {
    const { describeFd } = await withStatx(t, -errno)
    t.equal(described(openSync('/', 'r'), describeFd), 'directory, read')
  }
})

leakFree('describeFd() tells that statx(2) has failed', async (t) => {
  const { describeFd } = await withStatx(t, -5) // EIO
  const fd = openSync('package.json', 'r')
  t.throws(() => describeFd(fd), { code: 'EIO', syscall: 'statx' })
  closeFd(fd)
})

leakFree('describeFd() asks for nothing of Linux elsewhere', async (t) => {
  t.intercept(process, 'platform', { value: 'darwin' })
  // What is O_PATH here may be anything there.
  const { describeFd } = await withStatx(t, -5)
  t.equal(described(openSync('/', O_PATH), describeFd), 'directory, read')
})

// faults.ts itself: that it finds what it is there for, on one small program,
// and says what it needs. All programs and all errors are `make faults`.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { t } from 'tap'

import { faultsFor, randomFrom } from './faults/choose.ts'
import { isForLibuv, ownCalls } from './faults/trace.ts'
import { crashOf } from './faults/verdict.ts'
import { temporaryFolder } from './support/folder.ts'
import { missing } from './support/missing.ts'
import { plainEnv, run, script } from './support/processes.ts'

const FAULTS = 'test/faults.ts'

// strace attaches to a process that is not its child: ptrace(2), ptrace_scope.
function mustNotTrace(): string | false {
  const yama = '/proc/sys/kernel/yama/ptrace_scope'
  const restricted = existsSync(yama) && readFileSync(yama, 'utf8') !== '0\n'
  const isRoot = process.getuid?.() === 0
  if (restricted && !isRoot) return 'ptrace_scope lets only root trace'
  const { status, stderr } = spawnSync('strace', ['-o', '/dev/null', 'true'])
  return status === 0 ? false : `strace may not trace: ${stderr}`
}

t.test(
  'an example survives a sample of the errors of sendmsg',
  { skip: missing('strace') || mustNotTrace() },
  async (t) => {
    const sample = ['--call', 'sendmsg', '--minutes', '0.05', '--seed', '1']
    const args = ['--only', '/stdout/client', ...sample]
    const { code, stdout } = await run(t, script(FAULTS, ...args))
    t.equal(code, 0, stdout)
    t.match(stdout, /client\.ts \| sendmsg \(.*, of \d\) \| E[A-Z]+.* \| \w/)
    t.match(stdout, /^\d+ faults in \d programs, seed 1: 0 defects$/m)
  },
)

t.test('without strace it says so, and exits 2', async (t) => {
  const folder = join(temporaryFolder(t), 'bin')
  mkdirSync(folder)
  symlinkSync('/bin/sleep', join(folder, 'sleep'))
  const env = plainEnv({ PATH: folder })
  const { code, stderr } = await run(t, script(FAULTS), { env })
  t.strictSame(
    { code, stderr },
    {
      code: 2,
      stderr: 'faults.ts: Expected strace(1), which is not installed\n',
    },
  )
})

t.test('mistakes on the command line are told', async (t) => {
  for (const [args, text] of [
    [['--only', 'nothing'], /Expected a program that is there, got nothing/],
    [['--jobs', '0'], /Expected --jobs from 1 to 1000, got "0"/],
    [['--seed', 'x'], /Expected --seed as a number, got "x"/],
    [['--minutes', 'x'], /Expected --minutes as a number, got x/],
  ] as const) {
    const { code, stderr } = await run(t, script(FAULTS, ...args))
    t.equal(code, 2)
    t.match(stderr, text)
  }
})

t.test('crashOf() tells a crash from an end that was explained', async (t) => {
  const fine = { code: 0, signal: null, hung: false, stdout: '', stderr: '' }
  const stack = 'Error: x\n    at serve (/a/server.ts:1:2)\n'
  const fault = { call: 'accept4', errno: 'ENOMEM', when: 1 }
  const server = (code: number, stderr: string, signal: 'SIGABRT' | null) => ({
    stderr,
    end: { code, signal },
  })
  t.equal(crashOf(fine, undefined, fault), undefined)
  t.match(
    crashOf({ ...fine, stderr: stack }, undefined, fault),
    /^CRASH of the/,
  )
  t.match(crashOf({ ...fine, hung: true }, undefined, fault), /^HANG/)
  t.match(crashOf({ ...fine, held: true }, undefined, fault), /^LEAK/)
  t.match(crashOf(fine, server(1, stack, null), fault), /^CRASH/)
  t.match(crashOf(fine, server(1, '', 'SIGABRT'), fault), /^CRASH SIGABRT/)
  t.match(crashOf(fine, server(0, '', null), fault), /^CRASH, exit 0 without/)
  const told = server(1, 'server.ts: accept ENOMEM\n', null)
  t.match(crashOf(fine, told, fault), /^ENDED, with every client: server\.ts/)
  t.equal(crashOf(fine, told, { ...fault, errno: 'EBADF' }), undefined)
  const ofNode = server(1, 'Assertion failed: uv_fs_close()', 'SIGABRT')
  t.match(crashOf(fine, ofNode, fault), /^CRASH/)
  t.equal(crashOf(fine, ofNode, { ...fault, call: 'close' }), undefined)
})

t.test(
  "libuv's own calls, and those before the script, are left out",
  async (t) => {
    const lines = [
      'socket(AF_UNIX, SOCK_STREAM, 0) = 17',
      'connect(17, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1',
      'socket(AF_UNIX, SOCK_STREAM, 0) = 17',
      'epoll_ctl(14, EPOLL_CTL_ADD, 17, {}) = 0',
      'epoll_ctl(20, EPOLL_CTL_ADD, 17, {}) = 0',
      'epoll_pwait(14, [], 1024, -1, NULL, 8) = 1',
    ]
    t.ok(isForLibuv(lines[3] ?? '', lines))
    t.notOk(isForLibuv(lines[4] ?? '', lines))
    const own = ownCalls(lines)
    t.strictSame(
      [...own],
      [
        ['socket', [2]],
        ['epoll_ctl', [2]],
      ],
    )
  },
)

t.test('faultsFor() takes the same with the same seed', async (t) => {
  const calls = new Map([['dup', [4, 5, 6, 7]]])
  const faults = faultsFor(calls, randomFrom(3))
  t.strictSame(faultsFor(calls, randomFrom(3)), faults)
  for (const errno of ['EBADF', 'EMFILE']) {
    const whens = faults.filter((fault) => fault.errno === errno)
    for (const when of [4, 6]) t.ok(whens.some((fault) => fault.when === when))
  }
  t.strictSame(faultsFor(calls, randomFrom(3), 'socket'), [])
})

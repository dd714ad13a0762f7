// The file system of peers/fuse.py, by plain tools and without our library:
// which calls hang or fail in it, what ends them, and that nothing stays
// mounted.

import { readFileSync } from 'node:fs'
import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { t } from 'tap'

import { endFuse, fuseCommand, missingFuse, startFuse } from './fuse.ts'
import { temporaryFolder } from './support/folder.ts'
import { Running, run } from './support/processes.ts'

const options = { skip: missingFuse() }

/** What hangs in each file, in Python, where `fd` is open for reading. */
const HANGING = [
  ['hanging-read', 'os.read(fd, 1)'],
  ['hanging-getattr', 'os.fstat(fd)'],
  ['hanging-getattr', 'os.lseek(fd, 0, os.SEEK_END)'],
  ['hanging-flush', 'os.close(fd)'],
  ['hanging-ioctl', 'os.isatty(fd)'],
  ['hanging-poll', 'select.select([fd], [], [])'],
  ['hanging-poll', 'select.epoll().register(fd, select.EPOLLIN)'],
] as const

/**
 * A command that opens a file and calls something in it. It prints `returned`,
 * or the error's name. SIGUSR1 does not kill it.
 */
function python(path: string, call: string): string[] {
  const source = `
import errno, os, select, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: None)
fd = os.open(sys.argv[1], os.O_RDONLY)
try:
    ${call}
    print('returned')
except OSError as error:
    print(errno.errorcode[error.errno])`
  return ['python3', '-c', source, path]
}

/** A command of the shell whose standard input is a file. */
function withInput(path: string, command: string): string[] {
  return ['sh', '-c', `exec <"$1"; exec ${command}`, 'sh', path]
}

/** A line of what the server prints. */
function line(text: string): RegExp {
  return new RegExp(`^${text}$`, 'm')
}

function isMounted(folder: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${folder} `)
}

t.test('a folder of files, of which ok reads as usual', options, async (t) => {
  const { folder } = await startFuse(t)
  const names = ['ok', 'failing-flush', ...HANGING.map(([name]) => name)]
  t.strictSame((await readdir(folder)).sort(), [...new Set(names)].sort())
  t.match(await run(t, ['cat', join(folder, 'ok')]), {
    code: 0,
    stdout: 'line 1\nline 2\n',
  })
  t.match(await run(t, ['cat', join(folder, 'other')]), {
    code: 1,
    stderr: /No such file or directory/,
  })
})

for (const [name, call] of HANGING) {
  const title = `${call} hangs in ${name}, until a signal kills who calls it`
  t.test(title, options, async (t) => {
    const { folder, server } = await startFuse(t)
    const caller = new Running(t, python(join(folder, name), call))
    await server.printed(line(name))
    caller.child.kill('SIGTERM')
    t.strictSame(await caller.exit, { code: null, signal: 'SIGTERM' })
    t.equal(caller.stdout, '')

    const other = await run(t, python(join(folder, 'ok'), call))
    t.equal(other.stdout, 'returned\n', 'but not in ok')
  })
}

t.test('stat(1) hangs, unless it may use what is known', options, async (t) => {
  const { folder, server } = await startFuse(t)
  const path = join(folder, 'hanging-getattr')
  // AT_STATX_DONT_SYNC
  const cached = 'stat -L -c %s --cached=always /proc/self/fd/0'
  t.match(await run(t, withInput(path, cached)), { code: 0, stdout: '14\n' })
  t.equal(server.stdout, 'ready\n', 'the server was not asked')

  const asking = new Running(t, withInput(path, 'stat -L /proc/self/fd/0'))
  await server.printed(line('hanging-getattr'))
  t.equal(asking.stdout, '')
})

t.test('close(2) gives EIO in failing-flush', options, async (t) => {
  const { folder } = await startFuse(t)
  const path = join(folder, 'failing-flush')
  const { stdout } = await run(t, python(path, 'os.close(fd)'))
  t.equal(stdout, 'EIO\n')
})

t.test('a signal that does not kill ends no call', options, async (t) => {
  const { folder, server } = await startFuse(t)
  const path = join(folder, 'hanging-getattr')
  const caller = new Running(t, python(path, 'os.fstat(fd)'))
  await server.printed(line('hanging-getattr'))
  caller.child.kill('SIGUSR1')
  await endFuse(server)
  await caller.exit
  t.equal(caller.stdout, 'ECONNABORTED\n', 'the end of the server does')
})

t.test('the end also ends what hangs in a thread pool', options, async (t) => {
  const { folder, server } = await startFuse(t)
  const file = await open(join(folder, 'hanging-getattr'))
  const stat = t.rejects(file.stat(), { code: 'ECONNABORTED' })
  await server.printed(line('hanging-getattr'))
  t.ok(isMounted(folder))
  await endFuse(server)
  await stat
  t.notOk(isMounted(folder))
  // The descriptor is closed all the same.
  await t.rejects(file.close(), { code: 'ENOTCONN' })
})

t.test('a signal unmounts it as well', options, async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    const { folder, server } = await startFuse(t)
    t.ok(isMounted(folder))
    server.child.kill(signal)
    t.strictSame(await server.exit, { code: 0, signal: null }, signal)
    t.notOk(isMounted(folder))
  }
})

t.test(
  'nothing stays of a killed process that was in close(2)',
  options,
  async (t) => {
    const folder = temporaryFolder(t)
    const source = `
      import { spawn } from 'node:child_process'
      import { open } from 'node:fs/promises'
      const [path, file, ...args] = process.argv.slice(1)
      const stdio = ['pipe', 'pipe', 'inherit']
      const server = spawn(file, args, { stdio })
      server.stdout.pipe(process.stdout)
      server.stdout.once('data', async () => {
        const file = await open(path)
        await file.close()
      })`
    const starter = new Running(t, [
      ...[process.execPath, '--input-type=module', '-e', source],
      ...[join(folder, 'hanging-flush'), ...fuseCommand(folder)],
    ])
    await starter.printed(line('hanging-flush'))
    t.ok(isMounted(folder))
    starter.child.kill('SIGKILL')
    // The server has the same standard error, for whose end this waits too.
    t.strictSame(await starter.exit, { code: null, signal: 'SIGKILL' })
    t.notOk(isMounted(folder))
  },
)

t.test('--hand-over passes /dev/fuse, still unread', options, async (t) => {
  const folder = temporaryFolder(t)
  const source = `
import os, socket, struct, subprocess, sys
ours, theirs = socket.socketpair()
number = theirs.fileno()
server = subprocess.Popen([*sys.argv[1:], '--hand-over', str(number)],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          pass_fds=[number])
theirs.close()
data, [fd], _, _ = socket.recv_fds(ours, 2, 1)
print(data, os.readlink(f'/proc/self/fd/{fd}'))
length, opcode = struct.unpack_from('=II', os.read(fd, 8192))
print('opcode', opcode)
print('then', ours.recv(1), server.stdout.readline(), flush=True)
input()
server.communicate()
print('exit', server.returncode)`
  const command = ['python3', '-c', source, ...fuseCommand(folder)]
  const receiver = new Running(t, command)
  await receiver.printed(line("then b'' b'ready\\\\n'"))
  t.ok(isMounted(folder))
  receiver.child.stdin?.end('\n')
  t.strictSame(await receiver.exit, { code: 0, signal: null })
  t.notOk(isMounted(folder), 'though the receiver has the device open')
  t.strictSame(receiver.stdout.split('\n'), [
    "b'\\x00' /dev/fuse",
    'opcode 26',
    "then b'' b'ready\\n'",
    'exit 0',
    '',
  ])
})

t.test('fuse.py says what is wrong', options, async (t) => {
  t.match(await run(t, fuseCommand(join(temporaryFolder(t), 'none'))), {
    code: 1,
    stderr: 'mount ENOENT: No such file or directory\n',
  })
  // Node makes Unix sockets for standard input, output and error.
  const stdio = ['ignore', 'pipe', 'pipe'] as const
  const notSocket = [...fuseCommand(temporaryFolder(t)), '--hand-over', '0']
  t.match(await run(t, notSocket, { stdio: [...stdio] }), {
    code: 2,
    stderr: /Expected the number of a Unix socket, got 0\n/,
  })
})

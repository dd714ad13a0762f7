// Listening at a path: whose file it is, with which mode, and who gets it.

import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  existsSync,
  lstatSync,
  readFileSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { connect as dial, listen } from '../../../lib/index.ts'
import * as libc from '../../../lib/libc.ts'
import * as unix from '../../../lib/socket/unix.ts'
import { listenAt, SocketFile } from '../../../lib/wait/listen-at.ts'
import { declaring } from '../../support/c.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing } from '../../support/missing.ts'
import { Running, run, script } from '../../support/processes.ts'
import { missingNobody } from '../../support/users.ts'
import { runInWorker } from '../../support/worker.ts'

const { EADDRINUSE, ENOMEM } = constants.errno

/** The file of a socket that has called bind(2) and not listen(2). */
function boundAt(path: string): number {
  const fd = unix.newSocket()
  unix.bindTo(fd, path)
  return fd
}

/** listenAt(), with what `modules` has in the place of those modules. */
async function listenAtWith(t: Test, modules: Record<string, unknown>) {
  const path = '../../../lib/wait/listen-at.ts'
  type Module = typeof import('../../../lib/wait/listen-at.ts')
  return (await t.mockImport<Module>(path, modules)).listenAt
}

/** The same, with other functions in the place of some of unix.ts. */
function listenAtBy(t: Test, changed: Partial<typeof unix>) {
  const modules = { '../../../lib/socket/unix.ts': { ...unix, ...changed } }
  return listenAtWith(t, modules)
}

leakFree('the mode is right whatever the umask is, which stays', async (t) => {
  const folder = temporaryFolder(t)
  const before = process.umask(0o027)
  t.teardown(() => process.umask(before))
  for (const mode of [0o600, 0o666, 0o660, 0o777, 0o000]) {
    const path = join(folder, mode.toString(8))
    const { fd } = await listenAt(path, 'stream', { mode })
    t.equal(statSync(path).mode & 0o777, mode, mode.toString(8))
    t.equal(process.umask(), 0o027)
    closeSync(fd)
  }
})

// A file system may give the number of a removed file to the next one.
leakFree('a file that got the number of a removed one stays', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const { fd, file } = await listenAt(path, 'stream')
  const stats = lstatSync(path)
  const removed = Object.create(stats, {
    birthtimeMs: { value: stats.birthtimeMs - 1 },
  })
  const former = new SocketFile(path, removed)
  t.notOk(former.isHere())
  t.equal(former.remove(), undefined)
  t.ok(existsSync(path), 'it is not the one that was removed')
  const another = Object.create(stats, { ino: { value: stats.ino + 1 } })
  t.notOk(new SocketFile(path, another).isHere(), 'made in the same moment')
  t.equal(file?.remove(), undefined)
  t.notOk(existsSync(path))
  t.notOk(file?.isHere())
  t.equal(file?.remove(), undefined, 'a second time')
  closeSync(fd)
})

leakFree('options that make no sense are refused', async (t) => {
  const path = join(temporaryFolder(t), 's')
  for (const options of [
    { mode: -1 },
    { mode: 0o1000 },
    { mode: Number.NaN },
    { backlog: 1.5 },
    { backlog: -1 },
  ]) {
    const [[name, value] = []] = Object.entries(options)
    await t.rejects(listenAt(path, 'stream', options), {
      name: 'RangeError',
      message: new RegExp(`^Expected ${name} as an integer .*, got ${value}$`),
    })
  }
  t.notOk(existsSync(path))
})

leakFree('refuseFds: the sender of a descriptor gets EPERM', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const listener = await listen(path, { refuseFds: true })
  t.teardown(() => listener.close())
  const client = await dial(path)
  t.teardown(() => client.close())
  const conn = await listener.accept()
  if (!knowsPassRights()) t.comment('this kernel has no SO_PASSRIGHTS')
  else await t.rejects(client.sendFds('x', [0]), { code: 'EPERM' })
  await client.sendmsg('y')
  t.equal(String((await conn?.recvmsg())?.data), 'y', 'bytes go through')
  for (const each of [client, conn, listener]) each?.close()
})

function knowsPassRights(): boolean {
  const source =
    'import socket; socket.socket(socket.AF_UNIX).getsockopt(1, 83)'
  return spawnSync('python3', ['-c', source]).status === 0
}

t.test('listen() works in a worker thread, without a warning', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const body = `
    for (const mode of [0o600, 0o666]) {
      const listener = await lib.listen(argv[0], { mode })
      await lib.listen(argv[0]).catch(({ code }) => console.log(code))
      listener.close()
    }`
  const { stdout, stderr } = await runInWorker(t, body, path)
  t.equal(stdout, 'EADDRINUSE\nEADDRINUSE\n0\n', stderr)
})

for (const call of ['bind', 'listen'] as const) {
  leakFree(
    `a link put at the path after ${call}(2) is not followed`,
    async (t) => {
      const folder = temporaryFolder(t)
      const path = join(folder, 's')
      const victim = join(folder, 'victim')
      writeFileSync(victim, 'secret')
      chmodSync(victim, 0o600)
      const swap = (result: number): number => {
        unlinkSync(path)
        symlinkSync(victim, path)
        return result
      }
      const listenAt = await listenAtWith(t, {
        '../../../lib/socket/unix.ts': {
          ...unix,
          bindTo: (...args: Parameters<typeof unix.bindTo>) => {
            const result = unix.bindTo(...args)
            return call === 'bind' ? swap(result) : result
          },
          listenOn: (...args: Parameters<typeof unix.listenOn>) => {
            const result = unix.listenOn(...args)
            return call === 'listen' ? swap(result) : result
          },
        },
      })
      await t.rejects(listenAt(path, 'stream', { mode: 0o666 }), {
        message: `listen EADDRINUSE ${path}: replaced by another`,
      })
      t.equal(statSync(victim).mode & 0o777, 0o600, 'the victim is as it was')
      t.ok(lstatSync(path).isSymbolicLink(), 'the link is left alone')
    },
  )
}

t.test(
  'a server changes no mode by path',
  { skip: missing('strace') },
  async (t) => {
    const folder = temporaryFolder(t)
    const log = join(folder, 'log')
    const source = `
      import { listen } from './lib/index.ts'
      for (const mode of [0o600, 0o666])
        (await listen(process.argv[1], { mode })).close()`
    const { code } = await run(t, [
      ...['strace', '-f', '-q', '-o', log, '-e', 'trace=chmod,fchmodat,fchmod'],
      ...script('--input-type=module', '-e'),
      source,
      join(folder, 's'),
    ])
    t.equal(code, 0)
    const calls = readFileSync(log, 'utf8')
    t.match(calls, /fchmod\(\d+, 0600\)/)
    t.notMatch(calls, /chmod(at)?\([^)]*"/)
  },
)

leakFree(
  'a server between bind(2) and listen(2) is not stale',
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const source = `
import os, socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
print('bound', flush=True)
input()
s.listen()
print('listens', flush=True)
input()
`
    const python = new Running(t, ['python3', '-c', source, path])
    await python.printed(/bound/)
    // The pause between two looks ends when the server listens.
    const pauses: number[] = []
    const sleep = async (delay: number): Promise<void> => {
      pauses.push(delay)
      python.child.stdin?.write('\n')
      await python.printed(/listens/)
    }
    const listenAt = await listenAtWith(t, {
      'node:timers/promises': { setTimeout: sleep },
    })
    const refused = { code: 'EADDRINUSE', pid: python.pid }
    await t.rejects(listenAt(path, 'stream'), refused)
    t.strictSame(pauses, [200], 'it looked, and looked again')
    const client = await dial(path)
    t.teardown(() => client.close())
    t.equal(client.peerCredentials().pid, python.pid, 'everyone reaches it')
    client.close()
    python.child.stdin?.end('\n')
    await python.exit
  },
  missing('python3'),
)

leakFree('a socket that goes on refusing is replaced', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const stale = boundAt(path)
  const { fd } = await listenAt(path, 'stream')
  const client = await dial(path)
  t.teardown(() => client.close())
  t.equal(client.peerCredentials().pid, process.pid)
  client.close()
  for (const each of [stale, fd]) unix.closeFd(each)
})

leakFree('a path where files come and go is given up', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const bound = [boundAt(path)]
  // After each look there is the file of another server, every time.
  const connectTo = (fd: number, path: string): number => {
    const result = unix.connectTo(fd, path)
    unlinkSync(path)
    bound.push(boundAt(path))
    return result
  }
  const listenAt = await listenAtBy(t, { connectTo })
  await t.rejects(listenAt(path, 'stream'), {
    code: 'EADDRINUSE',
    syscall: 'bind',
    message: /it changes all the time/,
  })
  t.equal(bound.length, 6, 'five looks')
  t.ok(lstatSync(path).isSocket(), 'nothing was removed')
  for (const fd of bound) unix.closeFd(fd)
})

leakFree('a folder that is not there: bind(2) says so', async (t) => {
  const path = join(temporaryFolder(t), 'none', 's')
  const expected = {
    code: 'ENOENT',
    syscall: 'bind',
    message: new RegExp(path),
  }
  await t.rejects(listenAt(path, 'stream'), expected)
})

leakFree(
  'a socket file that goes meanwhile does not stop a server',
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    let binds = 0
    const beforeLook = await listenAtBy(t, {
      bindTo: (fd, path) =>
        binds++ === 0 ? -EADDRINUSE : unix.bindTo(fd, path),
    })
    closeSync((await beforeLook(path, 'stream')).fd)
    const withinLook = await listenAtBy(t, {
      connectTo: (fd, path) => {
        unlinkSync(path)
        return unix.connectTo(fd, path)
      },
    })
    closeSync((await withinLook(path, 'stream')).fd)
    t.ok(lstatSync(path).isSocket())
  },
)

leakFree('a listen(2) that fails leaves no file', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const listenAt = await listenAtBy(t, { listenOn: () => -ENOMEM })
  for (const place of [path, `\0fd-test-${process.pid}`]) {
    await t.rejects(listenAt(place, 'stream'), {
      code: 'ENOMEM',
      syscall: 'listen',
    })
  }
  t.notOk(existsSync(path))
})

leakFree(
  'a socket file that is gone once it is made counts as replaced',
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const bindTo = (fd: number, path: string): number => {
      const result = unix.bindTo(fd, path)
      unlinkSync(path)
      return result
    }
    const listenAt = await listenAtBy(t, { bindTo })
    await t.rejects(listenAt(path, 'stream'), {
      code: 'EADDRINUSE',
      message: /replaced by another/,
    })
    const failing = await listenAtBy(t, { bindTo, listenOn: () => -ENOMEM })
    await t.rejects(failing(path, 'stream'), { code: 'ENOMEM' })
  },
)

leakFree('bind(2) may fail for an abstract name', async (t) => {
  const listenAt = await listenAtBy(t, { bindTo: () => -ENOMEM })
  const expected = { code: 'ENOMEM', syscall: 'bind' }
  await t.rejects(listenAt(`\0fd-test-${process.pid}`, 'stream'), expected)
})

leakFree(
  'whoever holds the lock of the folder only delays a server',
  async (t) => {
    const folder = temporaryFolder(t)
    const holder = new Running(t, [
      'flock',
      folder,
      'sh',
      '-c',
      'echo held; cat',
    ])
    await holder.printed(/held/)
    unix.closeFd((await listenAt(join(folder, 'a'), 'stream')).fd)
    const waiting = listenAt(join(folder, 'b'), 'stream')
    holder.child.stdin?.end()
    unix.closeFd((await waiting).fd)
    await holder.exit
    t.ok(existsSync(join(folder, 'b')))
  },
  missing('flock'),
)

leakFree('a folder that cannot be locked is no obstacle', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const listenAt = await listenAtWith(t, {
    '../../../lib/libc.ts': { ...libc, ...declaring('flock', () => -9) },
  })
  const { fd } = await listenAt(path, 'stream')
  t.ok(lstatSync(path).isSocket())
  unix.closeFd(fd)
})

// Root may read every folder.
const isRoot = process.getuid?.() === 0
t.test(
  'a folder that may not be read is no obstacle',
  { skip: isRoot && (missing('setpriv') || missingNobody()) },
  async (t) => {
    const folder = temporaryFolder(t)
    chmodSync(folder, 0o333)
    const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups']
    const { stdout, stderr } = await run(t, [
      ...(isRoot ? ['setpriv', ...nobody] : []),
      ...script('--input-type=module', '-e'),
      `import { listen } from './lib/index.ts'
       const listener = await listen(process.argv[1])
       console.log('listens')
       listener.close()`,
      join(folder, 's'),
    ])
    t.equal(stdout, 'listens\n', stderr)
    chmodSync(folder, 0o700)
  },
)

leakFree('a file is removed though the folder was changed', async (t) => {
  const folder = temporaryFolder(t)
  const before = process.cwd()
  process.chdir(folder)
  t.teardown(() => process.chdir(before))
  const listener = await listen('s')
  process.chdir('/')
  listener.close()
  t.notOk(existsSync(join(folder, 's')))
})

t.test(
  'close() closes everything though the file has to stay',
  { skip: process.getuid?.() === 0 ? false : 'only root can become another' },
  async (t) => {
    const folder = temporaryFolder(t)
    const path = join(folder, 's')
    // As a server does that gives its privileges up once it listens.
    const { code, stdout, stderr } = await run(t, [
      ...script('--input-type=module', '-e'),
      `import { connect, listen } from './lib/index.ts'
       const listener = await listen(process.argv[1], {
         onWarning: ({ code, message }) => console.log(code, message),
       })
       const serving = listener.serve(async (conn) => {
         console.log(await conn.recvmsg())
       })
       const client = await connect(process.argv[1])
       process.setuid(65534)
       setImmediate(() => listener.close())
       console.log(await client.recvmsg())
       await serving
       console.log('served')
       await connect(process.argv[1]).catch(({ code }) => console.log(code))
       client.close()`,
      path,
    ])
    t.equal(code, 0, stderr)
    t.match(stdout, 'EACCES EACCES: permission denied')
    t.match(stdout, path, 'the warning names the file')
    t.match(stdout, 'served')
    t.equal(stdout.match(/^null$/gm)?.length, 2, 'both ends have ended')
    t.ok(existsSync(path), 'the warning is true')
  },
)

leakFree('a socket of datagrams has its path once it is bound', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const name = `\0${path}`
  const paths = process.platform === 'linux' ? [path, name] : [path]
  for (const path of paths) {
    const { fd, file } = await listenAt(path, 'datagram')
    t.equal(file?.path, path === name ? undefined : path)
    const sender = unix.newSocket('datagram')
    t.equal(unix.connectTo(sender, path), 0)
    // Who has it the kernel does not tell.
    const error = await listenAt(path, 'datagram').catch((error) => error)
    t.match(error, { code: 'EADDRINUSE', syscall: 'bind', pid: undefined })
    t.match(error.message, 'a server is listening there')
    for (const each of [fd, sender]) closeSync(each)
    file?.remove()
  }
})

leakFree('a server of another type at the path is named as such', async (t) => {
  const path = join(temporaryFolder(t), 's')
  const { fd, file } = await listenAt(path, 'stream')
  await t.rejects(listenAt(path, 'datagram'), {
    code: 'EPROTOTYPE',
    syscall: 'connect',
    message:
      `connect EPROTOTYPE ${path}: ` +
      'a socket of another type than datagram is there',
  })
  t.ok(file?.isHere(), 'which keeps its file')
  closeSync(fd)
})

// Peers that do not use this library.

import { spawn } from 'node:child_process'
import {
  closeSync,
  fstatSync,
  openSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'

import { connect, listen, UnixConn } from '../../../lib/index.ts'
import { duplicate, newSocketpair } from '../../../lib/socket/unix.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing } from '../../support/missing.ts'
import { Running } from '../../support/processes.ts'

const noPython = missing('python3')

leakFree(
  'Python recv_fds gets what sendFds() sends',
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const listener = await listen(path)
    const source = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
data, fds, flags, _ = socket.recv_fds(s, 100, 10)
print(data.decode(), len(fds), flags & ~0x40000000, os.fstat(fds[0]).st_ino, os.fstat(fds[1]).st_ino)
`
    const python = new Running(t, ['python3', '-c', source, path])
    const files = ['package.json', 'LICENSE'].map((name) => openSync(name, 'r'))
    for await (const conn of listener) {
      t.equal(conn.peerCredentials().pid, python.pid)
      await conn.sendFds('two files', files)
      await python.exit
      const inodes = files.map((fd) => fstatSync(fd).ino).join(' ')
      t.equal(python.stdout, `two files 2 0 ${inodes}\n`, python.stderr)
      conn.close()
      listener.close()
    }
    for (const fd of files) closeSync(fd)
  },
  noPython,
)

leakFree(
  'recvFds() gets what Python send_fds sends',
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const source = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
print('listening', flush=True)
c, _ = s.accept()
f = os.open(sys.argv[2], os.O_RDONLY)
os.lseek(f, 4, 0)
socket.send_fds(c, [b'gath', b'ered'], [f, f, 0])
os.close(f)
c.close()
`
    const file = join(temporaryFolder(t), 'file')
    writeFileSync(file, '0123456789')
    const python = new Running(t, ['python3', '-c', source, path, file])
    await python.printed(/listening/)
    const conn = await connect(path)
    const { data, fds } = (await conn.recvFds()) ?? { fds: [] }
    t.equal(data?.toString(), 'gathered')
    t.equal(fds.length, 3)
    t.equal(
      readFileSync(fds[0] ?? -1, 'utf8'),
      '456789',
      'at the offset of Python',
    )
    t.equal(await conn.recvFds(), null)
    for (const fd of fds) closeSync(fd)
    conn.close()
    await python.exit
  },
  noPython,
)

leakFree(
  'recvFds() finds the rights behind credentials',
  async (t) => {
    // SO_PASSCRED is set at our end, by Python, which shares the socket.
    const [ours, theirs] = newSocketpair()
    const source = `
import socket, struct, os
SO_PASSCRED = 16
receiver = socket.socket(fileno=3)
receiver.setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 1)
sender = socket.socket(fileno=4)
rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('i', 0))
sender.sendmsg([b'with rights'], [rights])
sender.sendmsg([b'without'])
`
    const python = new Running(t, ['python3', '-c', source], {
      stdio: ['ignore', 'inherit', 'inherit', ours, theirs],
    })
    await python.exit
    const conn = UnixConn.fromFd(ours)
    const { data, fds } = (await conn.recvFds()) ?? { fds: [] }
    t.equal(data?.toString(), 'with rights')
    t.equal(fds.length, 1)
    for (const fd of fds) closeSync(fd)
    const plain = await conn.recvmsg()
    t.equal(plain?.data.toString(), 'without')
    t.ok((plain?.control.length ?? 0) > 0, 'credentials came')
    closeSync(theirs)
    t.equal(
      await conn.recvFds(),
      null,
      'credentials beside it, and still the end',
    )
    conn.close()
  },
  process.platform === 'linux' ? noPython : 'SO_PASSCRED is of Linux',
)

leakFree(
  'recvFds() closes a pidfd, and does not count it',
  async (t) => {
    const [ours, theirs] = newSocketpair()
    const source = `
import socket, struct, sys
SO_PASSPIDFD = 76
receiver = socket.socket(fileno=3)
try:
  receiver.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
except OSError:
  sys.exit(3)
socket.socket(fileno=4).sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('i', 0))])
input()
`
    const python = new Running(t, ['python3', '-c', source], {
      stdio: ['pipe', 'inherit', 'inherit', ours, theirs],
    })
    const conn = UnixConn.fromFd(ours)
    const received = conn.recvFds({ maxFds: 1 })
    const message = await Promise.race([received, python.exit])
    if (message && 'fds' in message) {
      t.equal(message.fds.length, 1, 'the rights, without the pidfd')
      for (const fd of message.fds) closeSync(fd)
    } else {
      t.comment('this kernel has no SO_PASSPIDFD')
    }
    python.child.stdin?.end('\n')
    await python.exit
    closeSync(theirs)
    conn.close()
  },
  process.platform === 'linux' ? noPython : 'SO_PASSPIDFD is of Linux',
)

leakFree(
  "a child's extra stdio pipe carries descriptors",
  async (t) => {
    const source = `
import os, socket
s = socket.socket(fileno=3)
data, fds, _, _ = socket.recv_fds(s, 100, 1)
socket.send_fds(s, [data.upper()], [fds[0]])
`
    const child = spawn('python3', ['-c', source], {
      stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
    })
    // Node's own socket on that pipe reads from its birth, whether paused or
    // not, and would take what is meant for the connection.
    const extra = child.stdio[3] as Socket
    type Handle = { fd: number; readStop(): void }
    const { _handle: handle } = extra as { _handle?: Handle }
    handle?.readStop()
    const fd = handle?.fd ?? -1
    const conn = UnixConn.fromFd(duplicate(fd))
    const file = openSync('package.json', 'r')
    await conn.sendFds('there and back', [file])
    const { data, fds } = (await conn.recvFds()) ?? { fds: [] }
    t.equal(data?.toString(), 'THERE AND BACK')
    t.equal(fstatSync(fds[0] ?? -1).ino, fstatSync(file).ino)
    for (const each of [file, ...fds]) closeSync(each)
    conn.close()
    extra.destroy()
    await new Promise((resolve) => child.once('close', resolve))
  },
  noPython,
)

// NODE_DEBUG=fdpass: what is printed of the calls, and that nothing is without.

import { join } from 'node:path'
import { t } from 'tap'

import { temporaryFolder } from '../../support/folder.ts'
import { plainEnv, run, script } from '../../support/processes.ts'

const SOURCE = `
  import { closeSync } from 'node:fs'
  import { socketpair } from './lib/index.ts'
  const [one, other] = socketpair()
  const waiting = other.recvFds()
  await one.sendFds('hello', [0, 1])
  for (const fd of (await waiting).fds) closeSync(fd)
  await one.sendmsg('x'.repeat(20_000))
  await one.sendFds('bad', [99]).catch(() => {})
  one.close()
  other.close()
  process.exit()`

const command = [...script('--input-type=module', '-e'), SOURCE]

t.test('NODE_DEBUG=fdpass prints each call as strace does', async (t) => {
  const env = plainEnv({ NODE_DEBUG: 'fdpass' })
  const { code, stdout, stderr } = await run(t, command, { env })
  t.equal(code, 0)
  t.equal(stdout, '')
  const calls = stderr.replace(/^FDPASS \d+: /gm, '')
  for (const call of [
    /^socketpair\(AF_UNIX, SOCK_STREAM\|SOCK_CLOEXEC\|SOCK_NONBLOCK, 0\) = 0$/m,
    /^recvmsg\(\d+, …, MSG_DONTWAIT\|MSG_CMSG_CLOEXEC\) = -1 EAGAIN$/m,
    /^epoll_ctl\(\d+, EPOLL_CTL_ADD, \d+, \{EPOLLIN\|EPOLLRDHUP\|EPOLLET\}\) = 0$/m,
    /^sendmsg\(\d+, \{data: "hello", control: \[SCM_RIGHTS \[0, 1\]\]\}, MSG_DONTWAIT\|MSG_NOSIGNAL\) = 5$/m,
    /^recvmsg\(\d+, \{data: "hello", control: \[SCM_RIGHTS \[\d+, \d+\]\]\}, \S+\) = 5$/m,
    /^sendmsg\(\d+, \{data: "x{32}"\.\.\. \(20000 bytes\), control: \[\]\}, \S+\) = 20000$/m,
    /^sendmsg\(\d+, \{data: "bad", control: \[SCM_RIGHTS \[99\]\]\}, \S+\) = -1 EBADF$/m,
    /^close\(\d+\) = 0$/m,
  ]) {
    if (process.platform === 'linux' || !call.source.includes('epoll')) {
      t.match(calls, call)
    }
  }
  // What a call returns is an error only where C returns -1.
  t.notMatch(calls, /Unknown system error/)
})

t.test('without it nothing is printed', async (t) => {
  const env = plainEnv({ NODE_DEBUG: '' })
  t.match(await run(t, command, { env }), { code: 0, stdout: '', stderr: '' })
})

const MORE = `
  import { closeSync } from 'node:fs'
  import {
    connect, listen, pipe, socketpair, UnixDatagram, waitReadable, waitWritable,
  } from './lib/index.ts'
  const path = process.argv[1]
  const packets = { type: 'seqpacket', passCredentials: true }
  const [one, other] = socketpair(packets)
  for (const length of [32, 33]) {
    await one.sendFds('x'.repeat(length), [0])
    closeSync((await other.recvFds()).fds[0])
  }
  await one.sendmsg('bytes')
  await other.recvmsg()
  for (const each of UnixDatagram.pair()) each.close()
  const { read, write } = pipe()
  await waitWritable(write)
  closeSync(write)
  await waitReadable(read)
  const listener = await listen(path)
  const client = await connect(path)
  const conn = await listener.accept()
  for (const each of [one, other, client, conn, listener]) each.close()
  process.exit()`

t.test(
  'each kind of argument is shown in words, where there are any',
  { skip: process.platform === 'linux' ? false : 'these calls are of Linux' },
  async (t) => {
    const path = join(temporaryFolder(t), 's')
    const env = plainEnv({ NODE_DEBUG: 'fdpass', FDPASS_FFI: 'ffi-rs' })
    const command = [...script('--input-type=module', '-e'), MORE, path]
    const { code, stderr } = await run(t, command, { env })
    t.equal(code, 0, stderr)
    const calls = stderr
      .replace(/^FDPASS \d+: /gm, '')
      // Which numbers they have is left open.
      .replace(/(?<=\()\d+(?=,|\))|(?<=CTL_..., )\d+|(?<=\[)\d+(?=\])/g, 'N')
    const x = 'x'.repeat(32)
    for (const call of [
      'socketpair(AF_UNIX, SOCK_SEQPACKET|SOCK_CLOEXEC|SOCK_NONBLOCK, 0) = 0',
      'socketpair(AF_UNIX, SOCK_DGRAM|SOCK_CLOEXEC|SOCK_NONBLOCK, 0) = 0',
      'socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, 0) = ',
      'setsockopt(N, 1, 16, …, 4) = 0',
      `sendmsg(N, {data: "${x}", control: [SCM_RIGHTS [N]]}, MSG_DONTWAIT|MSG_NOSIGNAL) = 32`,
      `recvmsg(N, {data: "${x}", control: [level 1, type 2, 12 bytes; SCM_RIGHTS [N]]}, MSG_DONTWAIT|MSG_CMSG_CLOEXEC) = 32`,
      `sendmsg(N, {data: "${x}"... (33 bytes), control: [SCM_RIGHTS [N]]}, MSG_DONTWAIT|MSG_NOSIGNAL) = 33`,
      'sendmsg(N, {data: "bytes", control: []}, MSG_DONTWAIT|MSG_NOSIGNAL) = 5',
      'recvmsg(N, {data: "bytes", control: [level 1, type 2, 12 bytes]}, MSG_DONTWAIT|MSG_CMSG_CLOEXEC) = 5',
      'epoll_ctl(N, EPOLL_CTL_ADD, N, {EPOLLOUT|EPOLLONESHOT}) = 0',
      'epoll_ctl(N, EPOLL_CTL_ADD, N, {EPOLLIN|EPOLLONESHOT}) = 0',
      'epoll_ctl(N, EPOLL_CTL_DEL, N, {0}) = 0',
      'accept4(N, NULL, NULL, 526336) = ',
      'close(N) = 0',
    ]) {
      t.ok(calls.includes(call), call)
    }
  },
)

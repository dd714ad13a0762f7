// NODE_DEBUG=fdpass: what is printed of the calls, and that nothing is without.

import { t } from 'tap'

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
})

t.test('without it nothing is printed', async (t) => {
  const env = plainEnv({ NODE_DEBUG: '' })
  t.match(await run(t, command, { env }), { code: 0, stdout: '', stderr: '' })
})

// What is received, checked before it is delivered.

import { closeSync } from 'node:fs'
import { constants } from 'node:os'
import { t } from 'tap'

import { buildRights, cmsgSpace } from '../../../lib/cmsg.ts'
import {
  checkReceived,
  takeMessage,
  whyNotSent,
} from '../../../lib/conn/checks.ts'
import { socketpair } from '../../../lib/index.ts'
import { host } from '../../../lib/layouts.ts'
import { allocate, check, declare } from '../../../lib/libc.ts'
import { type Received, sendNow } from '../../../lib/message.ts'
import { initMsghdr, readMsghdr, setParts } from '../../../lib/msghdr.ts'
import { closeFd, duplicate, newSocketpair } from '../../../lib/socket/unix.ts'
import { leakFree } from '../../support/descriptors.ts'

// ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
const recvmsg = declare('recvmsg', 'size', ['int', 'pointer', 'int'])

const [IOVEC, DATA, CONTROL] = [64, 128, 192]
const ROOM = cmsgSpace(4)
const memory = allocate(CONTROL + 64)
initMsghdr(memory.bytes, 0, memory.base + IOVEC, host)

// With a control buffer for one descriptor, as other programs have it.
function receiveOne(fd: number): Received {
  const data = memory.base + DATA
  const control = memory.base + CONTROL
  const parts = { data, dataLength: 1, control, controlLength: ROOM }
  setParts(memory.bytes, 0, IOVEC, parts, host)
  const flags = host.constants.MSG_CMSG_CLOEXEC
  check('recvmsg', recvmsg(fd, memory.address, flags))
  const header = readMsghdr(memory.bytes, 0, host)
  const end = CONTROL + header.controlLength
  return {
    data: Buffer.from(memory.bytes.subarray(DATA, DATA + 1)),
    control: Buffer.from(memory.bytes.subarray(CONTROL, end)),
    flags: header.flags & host.constants.MSG_CTRUNC,
  }
}

const skip =
  (process.platform !== 'linux' || ROOM !== 24) &&
  'CMSG_SPACE(4) is 24 on 64-bit Linux'

for (const [name, take] of [
  ['checkReceived()', checkReceived],
  ['takeMessage()', takeMessage],
] as const) {
  leakFree(
    `room for one is room for two, which are counted: ${name}`,
    async (t) => {
      const [near, far] = newSocketpair()
      sendNow(near, {
        data: Buffer.from('x'),
        control: buildRights([0, 0], host),
      })
      const message = receiveOne(far)
      t.equal(message.flags, 0, 'MSG_CTRUNC is not set')
      t.equal(message.control.length, 24)
      const tooMany = {
        code: 'ERR_TOO_MANY_FDS',
        message: /at most 1 .* got 2/,
      }
      t.throws(() => take(message, 1), tooMany, 'and both are closed')
      for (const fd of [near, far]) closeFd(fd)
    },
    skip,
  )
}

t.test('what fits is delivered', { skip }, async (t) => {
  const control = buildRights([5, 6], host)
  const message = { data: Buffer.from('x'), control, flags: 0 }
  t.strictSame(takeMessage(message, 2).fds, [5, 6])
})

leakFree('takeMessage() closes all it cannot make sense of', async (t) => {
  const control = buildRights([duplicate(0), 0], host)
  control.writeInt32LE(-1, control.length - 4)
  const message = { data: Buffer.from('x'), control, flags: 0 }
  t.throws(() => takeMessage(message, 9), { message: /got -1 in slot 1/ })
})

leakFree('takeMessage() passes over a pidfd never made', async (t) => {
  const pidfd = buildRights([0], host)
  pidfd.writeInt32LE(host.constants.SCM_PIDFD, host.cmsghdr.cmsg_type)
  pidfd.writeInt32LE(-3, host.cmsghdr.cmsg_data) // -ESRCH
  const fd = duplicate(0)
  const control = Buffer.concat([buildRights([fd], host), pidfd])
  const message = { data: Buffer.from('x'), control, flags: 0 }
  t.strictSame(takeMessage(message, 9).fds, [fd])
  closeSync(fd)
})

t.test('whyNotSent() names what is to blame', async (t) => {
  const { EBADF, EINVAL, EMSGSIZE, EPIPE } = constants.errno
  const [near, far] = newSocketpair()
  t.teardown(() => {
    for (const fd of [near, far]) closeFd(fd)
  })
  const data = Buffer.from('x')
  const control = buildRights([0, 99_999], host)
  const plain = { data, control: Buffer.alloc(0) }
  t.equal(whyNotSent(EBADF, near, { data, control }), 'descriptor 99999')
  t.equal(whyNotSent(EBADF, near, plain), '', 'the socket itself')
  const open = { data, control: buildRights([0], host) }
  t.equal(whyNotSent(EBADF, near, open), '', 'open again')
  t.equal(whyNotSent(EINVAL, near, { data, control }), '', 'none that is known')
  t.equal(whyNotSent(EPIPE, near, { data, control }), '')
  t.match(
    whyNotSent(EMSGSIZE, near, plain),
    /^1 bytes, of at most \d+ \(SO_SND/,
  )
})

// int io_uring_setup(unsigned entries, struct io_uring_params *params), which
// is no function of the C library: syscall(2) with its number.
const syscall = declare('syscall', 'int', ['int', 'uint', 'pointer'])
const IO_URING_SETUP = 425 // on every architecture

t.test('a descriptor of io_uring is told from the others', async (t) => {
  const params = allocate(120)
  const ring =
    process.platform === 'linux'
      ? syscall(IO_URING_SETUP, 1, params.address)
      : -1
  if (ring < 0) {
    t.pass('told', { skip: 'there is no io_uring here' })
    return
  }
  const [a, b] = socketpair()
  await t.rejects(a.sendFds('x', [0, ring]), {
    code: 'EINVAL',
    message: `sendmsg EINVAL descriptor ${ring}: an io_uring cannot be passed`,
  })
  for (const conn of [a, b]) conn.close()
  closeFd(ring)
})

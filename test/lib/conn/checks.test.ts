// What is received, checked before it is delivered.

import { closeSync } from 'node:fs'
import { constants } from 'node:os'
import { t } from 'tap'

import { buildRights, cmsgSpace, unixCredentials } from '../../../lib/cmsg.ts'
import {
  checkReceived,
  isEnd,
  prepare,
  prepareRights,
  takeMessage,
  whyNotSent,
} from '../../../lib/conn/checks.ts'
import { socketpair } from '../../../lib/index.ts'
import { host } from '../../../lib/layouts.ts'
import { allocate, check, declare } from '../../../lib/libc.ts'
import { CONTROL_ROOM, type Received, sendNow } from '../../../lib/message.ts'
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

const NOTHING = Buffer.alloc(0)

t.test('what is no data and no control is refused by name', async (t) => {
  for (const [data, control, message] of [
    [42, undefined, 'Expected data as string or Uint8Array, got 42'],
    [new ArrayBuffer(4), undefined, /^Expected data as string or Uint8Array/],
    ['x', [0], 'Expected control as Uint8Array, got 0'],
    ['x', 'rights', 'Expected control as Uint8Array, got rights'],
  ] as const) {
    // As JavaScript calls it.
    const call = () => Reflect.apply(prepare, undefined, [data, control])
    t.throws(call, { name: 'TypeError', message })
  }
  const detached = new Uint8Array(8)
  structuredClone(detached, { transfer: [detached.buffer] })
  t.throws(() => prepare(detached), { name: 'TypeError' })
  t.equal(prepare(new Uint8Array(0)).data.length, 0, 'an empty one is data')
})

t.test('control fits the control buffer of a receiver, exactly', async (t) => {
  const filled = (length: number): Buffer => {
    const control = Buffer.alloc(length)
    control.writeUInt32LE(length, host.cmsghdr.cmsg_len)
    return control
  }
  const largest = filled(CONTROL_ROOM)
  t.strictSame(prepare('x', largest).control, largest)
  t.throws(() => prepare('x', filled(CONTROL_ROOM + 1)), {
    name: 'RangeError',
    message: /at most \d+ bytes, got \d+ bytes/,
  })
})

t.test('descriptors need a byte, unless told otherwise', async (t) => {
  const rights = buildRights([0], host)
  const refusal = { name: 'RangeError', message: /at least one byte/ }
  t.throws(() => prepare('', rights), refusal)
  t.throws(() => prepareRights('', [0]), refusal)
  t.strictSame(prepare('', rights, false).control, rights)
  t.strictSame(prepareRights('', [0], false).control, rights)
})

t.test('rights to nothing are nothing', async (t) => {
  t.equal(prepare('x', buildRights([], host)).control.length, 0)
  t.equal(prepareRights('x', []).control.length, 0)
  t.equal(prepareRights('', []).control.length, 0)
})

const noCredentials =
  host.credentials === undefined && 'only Linux has SCM_CREDENTIALS'

t.test(
  'credentials go beside rights, or alone',
  { skip: noCredentials },
  async (t) => {
    const who = unixCredentials({ pid: process.pid, uid: 0, gid: 0 })
    t.strictSame(prepare('x', who).control, who)
    t.strictSame(prepare('', who).control, who, 'they need no byte')
    for (const rights of [buildRights([], host), buildRights([0], host)]) {
      const both = Buffer.concat([rights, who])
      t.strictSame(prepare('x', both).control, both)
    }
  },
)

t.test('a message that was cut says how long it was, if known', async (t) => {
  const data = Buffer.from('123')
  const cut = { data, control: NOTHING, flags: host.constants.MSG_TRUNC }
  const known = { ...cut, length: 8 } // As Linux tells it, of datagrams.
  for (const [message, whole] of [
    [cut, 'a longer one'],
    [known, 'one of 8'],
  ] as const) {
    t.throws(() => checkReceived(message, 9), {
      code: 'ERR_MESSAGE_TRUNCATED',
      message: `Expected a message of at most 3 bytes, got ${whole}`,
      data,
    })
  }
})

t.test('the end of a stream has no bytes and no descriptors', async (t) => {
  const control = buildRights([0], host)
  const flags = 0
  const received = [
    { data: NOTHING, control: NOTHING, flags },
    { data: NOTHING, control, flags }, // as recent FreeBSD brings it
    { data: Buffer.from('x'), control: NOTHING, flags },
  ]
  const ends = received.map((message) => isEnd(message, true, -1))
  t.strictSame(ends, [true, false, false])
})

leakFree(
  'a pidfd that nobody asked for is closed, and not counted',
  async (t) => {
    const pidfds = buildRights([duplicate(0), duplicate(0)], host)
    pidfds.writeInt32LE(host.constants.SCM_PIDFD, host.cmsghdr.cmsg_type)
    const fd = duplicate(0)
    const control = Buffer.concat([pidfds, buildRights([fd], host)])
    const message = { data: Buffer.from('x'), control, flags: 0 }
    t.strictSame(takeMessage(message, 1).fds, [fd])
    closeSync(fd)
  },
)

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
  const message = { data: NOTHING, control: buildRights([ring], host) }
  t.equal(whyNotSent(constants.errno.EPIPE, a.fd, message), '', 'another error')
  for (const conn of [a, b]) conn.close()
  closeFd(ring)
})

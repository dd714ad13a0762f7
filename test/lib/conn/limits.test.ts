// Where the system says no: too many descriptors, no free numbers, full
// buffers; and the rules of other platforms, selected by their layouts.

import { closeSync, fstatSync } from 'node:fs'
import { constants } from 'node:os'
import { t } from 'tap'
import { buildRights } from '../../../lib/cmsg.ts'
import { checkReceived } from '../../../lib/conn/checks.ts'
import { limitsOf } from '../../../lib/conn/limits.ts'
import { socketpair, unixRights } from '../../../lib/index.ts'
import * as layouts from '../../../lib/layouts.ts'
import { maxFdsPerMessage } from '../../../lib/socket/c-library.ts'
import { duplicate } from '../../../lib/socket/unix.ts'
import { leakFree } from '../../support/descriptors.ts'
import { missing } from '../../support/missing.ts'
import { pipe } from '../../support/pipes.ts'
import { plainEnv, run, script } from '../../support/processes.ts'
import { asNewUser, missingNobody } from '../../support/users.ts'
import { turns } from '../../support/waiting.ts'

const { abis, host } = layouts

leakFree('sendFds() carries as many as the system allows', async (t) => {
  const [a, b] = socketpair()
  const most = maxFdsPerMessage()
  for (const count of [252, most]) {
    await a.sendFds('x', Array(count).fill(0))
    const { fds = [] } = (await b.recvFds()) ?? {}
    t.equal(fds.length, count)
    for (const fd of fds) closeSync(fd)
  }
  for (const conn of [a, b]) conn.close()
})

leakFree('sendFds() names the limit that is exceeded', async (t) => {
  const [a, b] = socketpair()
  for (const count of [maxFdsPerMessage() + 1, 300]) {
    const sending = a.sendFds('x', Array(count).fill(0))
    const message = `Expected at most ${maxFdsPerMessage()} descriptors in a message, got ${count}`
    await t.rejects(sending, { name: 'RangeError', message })
  }
  const half = Array(127).fill(0)
  const two = Buffer.concat([unixRights(...half), unixRights(...half)])
  await t.rejects(a.sendmsg('x', two), /got 254/, 'all together count')
  await a.sendmsg('done')
  t.equal((await b.recvmsg())?.data.toString(), 'done', 'nothing was sent')
  for (const conn of [a, b]) conn.close()
})

leakFree('a full socket: the retry still carries the descriptor', async (t) => {
  const [a, b] = socketpair()
  const { r, w } = pipe()
  const sends: Promise<void>[] = []
  for (let i = 0; i < 2000; i++) sends.push(a.sendFds(`${i % 10}`, [w]))
  sends.push(a.sendmsg('end'))
  let settled = 0
  for (const send of sends) send.then(() => settled++)
  // The sender finds the socket full, and waits.
  await turns()
  const fitted = settled
  await turns()
  t.ok(fitted > 0 && fitted < 2000, `${fitted} of 2001 fitted`)
  t.equal(settled, fitted, 'no more before the peer reads')
  let text = ''
  let count = 0
  while (!text.endsWith('end')) {
    const message = await b.recvFds()
    text += message?.data
    for (const fd of message?.fds ?? []) {
      if (fstatSync(fd).ino === fstatSync(w).ino) count++
      closeSync(fd)
    }
  }
  await Promise.all(sends)
  t.equal(count, 2000)
  t.equal(text, `${'0123456789'.repeat(200)}end`, 'in order')
  for (const fd of [r, w]) closeSync(fd)
  for (const conn of [a, b]) conn.close()
})

leakFree(
  '8 MiB with a descriptor in one call: it comes once, first',
  async (t) => {
    const [a, b] = socketpair()
    const data = Buffer.alloc(8 * 1024 * 1024, 'abcdefg')
    const sending = a.sendFds(data, [0])
    const chunks: Buffer[] = []
    const counts: number[] = []
    let size = 0
    while (size < data.length) {
      const message = await b.recvFds()
      if (message === null) break
      chunks.push(message.data)
      counts.push(message.fds.length)
      size += message.data.length
      for (const fd of message.fds) closeSync(fd)
    }
    await sending
    t.ok(Buffer.concat(chunks).equals(data))
    t.equal(counts[0], 1)
    t.equal(
      counts.reduce((sum, count) => sum + count),
      1,
    )
    for (const conn of [a, b]) conn.close()
  },
)

leakFree('a message longer than one call sends whole', async (t) => {
  const [a, b] = socketpair()
  const sends = [a.sendmsg(Buffer.alloc(5 * 1024 * 1024, 1)), a.sendmsg('end')]
  let size = 0
  let last: Buffer = Buffer.alloc(0)
  while (size < 5 * 1024 * 1024 + 3) {
    last = (await b.recvmsg({ maxBytes: 2 ** 30 }))?.data ?? last
    size += last.length
  }
  await Promise.all(sends)
  t.match(last.toString(), /end$/)
  for (const conn of [a, b]) conn.close()
})

// What a child that runs into its limits reports, one line for each step.
const noRoom = `
import { closeSync, openSync } from 'node:fs'
import { socketpair } from './lib/index.ts'
const [a, b] = socketpair()
await a.sendFds('five', [0, 0, 0, 0, 0])
await a.sendFds('one', [0])
const filler = []
for (;;) { try { filler.push(openSync('/dev/null')) } catch (error) { console.log(error.code); break } }
for (const fd of filler.splice(0, 2)) closeSync(fd)
const report = async () => {
  try {
    const { data, fds } = await b.recvFds()
    for (const fd of fds) closeSync(fd)
    console.log('got', String(data), fds.length)
  } catch (error) {
    console.log(error.code, String(error.data), error.message)
  }
}
await report()
for (const fd of filler.splice(0, 2)) closeSync(fd)
await report()
a.close()
b.close()
`
const inline = (source: string): string[] => [
  ...script('--input-type=module', '-e'),
  source,
]

t.test(
  'no free numbers: a clear error, then all is well again',
  { skip: missing('prlimit') },
  async (t) => {
    const command = ['prlimit', '--nofile=200:200', ...inline(noRoom)]
    const env = plainEnv()
    const { stdout, stderr } = await run(t, command, { env })
    const [full, lost, after] = stdout.split('\n')
    t.equal(full, 'EMFILE', stderr)
    t.match(
      lost,
      /^ERR_FDS_TRUNCATED five Expected whole ancillary data, got it truncated \(MSG_CTRUNC\): closed the 2 descriptors that came; is the limit of open descriptors \(200, RLIMIT_NOFILE\) reached\?$/,
    )
    t.equal(after, 'got one 1')
  },
)

const inFlight = `
import { closeSync } from 'node:fs'
import { socketpair } from './lib/index.ts'
const [a, b] = socketpair()
let sent = 0
try {
  for (; sent < 100; sent++) await a.sendFds('x', Array(10).fill(0))
} catch (error) {
  console.log(error.code, error.message)
}
await a.sendmsg('plain')
console.log('sent', sent > 0 && sent < 100)
const first = await b.recvFds()
console.log('received', first.fds.length)
for (const fd of first.fds) closeSync(fd)
for (let i = 0; i < sent; i++) {
  const message = await b.recvFds()
  for (const fd of message.fds) closeSync(fd)
  if (String(message.data).endsWith('plain')) console.log('plain came')
}
await a.sendFds('y', [0])
console.log('works again')
a.close()
b.close()
`
t.test(
  'too many on their way: ETOOMANYREFS, and the connection works on',
  { skip: missing('setpriv', 'prlimit') || missingNobody() },
  async (t) => {
    const { stdout, stderr } = await run(t, [
      ...asNewUser(),
      'prlimit',
      '--nofile=128:128',
      ...inline(inFlight),
    ])
    t.equal(
      stdout,
      'ETOOMANYREFS sendmsg ETOOMANYREFS\nsent true\nreceived 10\nplain came\nworks again\n',
      stderr,
    )
  },
)

t.test('mustWait() knows when a send is to be tried again', async (t) => {
  const { EAGAIN, ENOBUFS, EMSGSIZE, EPIPE } = constants.errno
  type Sender = typeof import('../../../lib/conn/sender.ts')
  for (const [platform, arch] of [
    ['linux', 'x64'],
    ['darwin', 'arm64'],
  ] as const) {
    const elsewhere = layouts.selectAbi(platform, arch, 'LE')
    const { mustWait } = await t.mockImport<Sender>(
      '../../../lib/conn/sender.ts',
      // sender.ts is given the table of the other platform.
      { '../../../lib/layouts.ts': { ...layouts, host: elsewhere } },
    )
    t.equal(mustWait(EAGAIN, true), true)
    t.equal(mustWait(EAGAIN, false), true)
    t.equal(mustWait(ENOBUFS, false), true)
    t.equal(mustWait(EPIPE, true), false)
    t.equal(mustWait(EMSGSIZE, false), false)
    t.equal(mustWait(EMSGSIZE, true), platform === 'darwin', 'xnu: not now')
  }
})

leakFree('checkReceived() closes what came without the rest', async (t) => {
  const message = {
    data: Buffer.from('bytes'),
    control: buildRights([duplicate(0), duplicate(0)], host),
    flags: 0,
  }
  checkReceived(message, 2)
  const cut = { ...message, flags: host.constants.MSG_CTRUNC }
  t.throws(() => checkReceived(cut, 9), {
    code: 'ERR_FDS_TRUNCATED',
    data: message.data,
    message: /^Expected whole ancillary data, .* closed the 2 descriptors/,
  })
})

t.test('every layout says how a peer is asked about', async (t) => {
  for (const [name, { peercred }] of Object.entries(abis)) {
    const { size, uid, gid, pid } = peercred
    const last = 'offset' in pid ? pid.offset : uid
    t.ok(Math.max(uid, gid, last) + 4 <= size, name)
  }
})

t.test('limits are those of the call, else the usual ones', async (t) => {
  const usual = { maxBytes: 100, maxFds: Number.POSITIVE_INFINITY }
  t.strictSame(limitsOf({}, 100), { ...usual, signal: undefined })
  const { signal } = new AbortController()
  const own = { maxBytes: 1, maxFds: 0, signal }
  t.strictSame(limitsOf(own, 100), own)
  for (const [options, message] of [
    [{ maxBytes: 0 }, 'Expected maxBytes as an integer from 1, got 0'],
    [{ maxBytes: 1.5 }, 'Expected maxBytes as an integer from 1, got 1.5'],
    [{ maxFds: -1 }, 'Expected maxFds as an integer from 0, got -1'],
    [{ maxFds: Number.NaN }, 'Expected maxFds as an integer from 0, got NaN'],
  ] as const) {
    t.throws(() => limitsOf(options, 100), { name: 'RangeError', message })
  }
})

t.test('a signal is what behaves like one', async (t) => {
  // Of a polyfill, or of another realm.
  const polyfill = Object.create(EventTarget.prototype, {
    aborted: { value: false },
  })
  t.equal(limitsOf({ signal: polyfill }, 100).signal, polyfill)
  for (const signal of [null, 'abort', 5, {}, new AbortController()]) {
    // As JavaScript calls it.
    const call = () => Reflect.apply(limitsOf, undefined, [{ signal }, 100])
    t.throws(call, {
      name: 'TypeError',
      message: `Expected signal as AbortSignal, got ${String(signal)}`,
    })
  }
})

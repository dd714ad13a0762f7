// Control messages as bytes: every layout, every length, hostile ones too.

import { t } from 'tap'
import {
  align,
  buildRights,
  cmsgLen,
  cmsgSpace,
  descriptorsFor,
  descriptorsIn,
  isRights,
  lenFor,
  parseControlMessages,
  parseFor,
  parseRightsFor,
  parseUnixCredentials,
  parseUnixRights,
  SCM_RIGHTS,
  SOL_SOCKET,
  spaceFor,
  takeApart,
  unixCredentials,
  unixRights,
} from '../../lib/cmsg.ts'
import { type Abi, abis, host, selectAbi } from '../../lib/layouts.ts'

const linux = selectAbi('linux', 'x64', 'LE')
const layouts = [...new Set(Object.values(abis))]

/** A control message of any type, for any layout. */
function item(abi: Abi, level: number, type: number, data: Buffer): Buffer {
  const bytes = Buffer.alloc(spaceFor(data.length, abi))
  bytes.writeUInt32LE(lenFor(data.length, abi), abi.cmsghdr.cmsg_len)
  bytes.writeInt32LE(level, abi.cmsghdr.cmsg_level)
  bytes.writeInt32LE(type, abi.cmsghdr.cmsg_type)
  data.copy(bytes, abi.cmsghdr.cmsg_data)
  return bytes
}

// CMSG_LEN and CMSG_SPACE of 0, 1, 4, 8, 12, 16, 20, 1012 and 1016 bytes, as C
// programs compiled for the targets print them.
const golden: Record<string, { len: number[]; space: number[] }> = {
  'linux 64-bit': {
    len: [16, 17, 20, 24, 28, 32, 36, 1028, 1032],
    space: [16, 24, 24, 24, 32, 32, 40, 1032, 1032],
  },
  'linux 32-bit': {
    len: [12, 13, 16, 20, 24, 28, 32, 1024, 1028],
    space: [12, 16, 16, 20, 24, 28, 32, 1024, 1028],
  },
  darwin: {
    len: [12, 13, 16, 20, 24, 28, 32, 1024, 1028],
    space: [12, 16, 16, 20, 24, 28, 32, 1024, 1028],
  },
  'freebsd 64-bit': {
    len: [16, 17, 20, 24, 28, 32, 36, 1028, 1032],
    space: [16, 24, 24, 24, 32, 32, 40, 1032, 1032],
  },
}

t.test('cmsgLen(), cmsgSpace() agree with C in every layout', async (t) => {
  const lengths = [0, 1, 4, 8, 12, 16, 20, 1012, 1016]
  for (const abi of layouts) {
    const { len, space } = golden[abi.name] ?? {}
    t.strictSame(
      lengths.map((n) => lenFor(n, abi)),
      len,
      `${abi.name} LEN`,
    )
    t.strictSame(
      lengths.map((n) => spaceFor(n, abi)),
      space,
      `${abi.name} SPACE`,
    )
  }
})

t.test('cmsgLen(), cmsgSpace() obey the laws of the macros', async (t) => {
  for (const abi of layouts) {
    const broken: number[] = []
    for (let n = 0; n <= 256; n++) {
      const lawful =
        lenFor(n, abi) - lenFor(0, abi) === n &&
        spaceFor(n, abi) >= lenFor(n, abi) &&
        spaceFor(n + 1, abi) >= spaceFor(n, abi) &&
        spaceFor(n, abi) % abi.cmsgAlignment === 0 &&
        align(n, abi) - n < abi.cmsgAlignment
      if (!lawful) broken.push(n)
    }
    t.strictSame(broken, [], abi.name)
    t.ok(spaceFor(8, abi) < 2 * spaceFor(4, abi), 'two in one are smaller')
  }
})

t.test('cmsgLen(), cmsgSpace() refuse bad sizes', async (t) => {
  const bad = [-1, 2 ** 31 - 1, Number.MAX_SAFE_INTEGER, 1.5, Number.NaN]
  for (const n of bad) {
    for (const macro of [cmsgLen, cmsgSpace]) {
      t.throws(() => macro(n), { name: 'RangeError' }, `${macro.name}(${n})`)
    }
  }
})

t.test('the longest payload is one whose space has 31 bits', async (t) => {
  for (const abi of layouts) {
    const longest = 2 ** 31 - 1 - abi.cmsghdr.cmsg_data - abi.cmsgAlignment
    t.ok(spaceFor(longest, abi) < 2 ** 31, abi.name)
    t.throws(() => spaceFor(longest + 1, abi), { name: 'RangeError' })
  }
})

t.test('unixRights() builds the bytes of every layout', async (t) => {
  const built: Record<string, string> = {
    'linux 64-bit': `1c00000000000000010000000100000005000000060000000700000000000000`,
    'linux 32-bit': `180000000100000001000000050000000600000007000000`,
    darwin: `18000000ffff000001000000050000000600000007000000`,
    'freebsd 64-bit': `1c000000ffff0000010000000000000005000000060000000700000000000000`,
  }
  for (const abi of layouts) {
    const bytes = buildRights([5, 6, 7], abi)
    t.equal(bytes.toString('hex'), built[abi.name], abi.name)
  }
  t.strictSame(unixRights(5, 6, 7), buildRights([5, 6, 7], host))
})

t.test('unixRights() needs no padding on darwin', async (t) => {
  const darwin = selectAbi('darwin', 'arm64', 'LE')
  for (let n = 1; n <= 254; n++) {
    // xnu: cmsg_len has to equal msg_controllen (bsd/kern/uipc_usrreq.c).
    const bytes = buildRights(Array(n).fill(1), darwin)
    if (bytes.readUInt32LE(0) !== bytes.length) t.fail(`${n} descriptors`)
  }
  t.equal(buildRights([1], darwin).length, 16)
})

t.test('unixRights() pads odd counts with zeros', async (t) => {
  for (const count of [1, 3, 99, 253]) {
    const bytes = buildRights(Array(count).fill(-1 >>> 1), linux)
    t.equal(bytes.readUInt32LE(0), 16 + 4 * count)
    t.equal(bytes.length, 16 + 4 * (count + 1))
    t.equal(bytes.readUInt32LE(bytes.length - 4), 0, 'padding')
  }
})

t.test('unixRights() refuses what is no descriptor', async (t) => {
  for (const fd of [-1, 1.5, Number.NaN, 2 ** 31, Number.POSITIVE_INFINITY]) {
    const message = `Expected a file descriptor, got ${fd}`
    t.throws(() => unixRights(0, fd), { name: 'RangeError', message })
  }
  for (const fds of ['["3"]', '[null]', '[[]]']) {
    t.throws(() => unixRights(...JSON.parse(fds)), { name: 'RangeError' }, fds)
  }
})

t.test('parseUnixRights() gives back what unixRights() took', async (t) => {
  const cases = [
    [[42]],
    [[1, 2]],
    [[3, 4, 5]],
    [[]],
    [[1, 2], [3, 4, 5], [], [7]],
  ]
  for (const abi of layouts) {
    for (const items of [...cases, [[0, 1, 2147483647]]]) {
      const control = Buffer.concat(items.map((fds) => buildRights(fds, abi)))
      const parse = (bytes: Buffer): number[][] =>
        parseFor(bytes, abi).map((m) => parseRightsFor(m, abi))
      t.strictSame(parse(control), items, abi.name)
      const last = items.at(-1) ?? []
      const padding =
        spaceFor(last.length * 4, abi) - lenFor(last.length * 4, abi)
      const cut = control.subarray(0, control.length - padding)
      t.strictSame(parse(cut), items, 'without the last padding')
    }
  }
})

t.test('parseControlMessages() works on a view into a buffer', async (t) => {
  const bytes = Buffer.concat([
    Buffer.alloc(3, 9),
    unixRights(8),
    Buffer.alloc(5),
  ])
  const view = new Uint8Array(bytes.buffer, bytes.byteOffset + 3, cmsgSpace(4))
  const [message, ...others] = parseControlMessages(view)
  t.strictSame(others, [])
  t.strictSame(message && parseUnixRights(message), [8])
})

t.test('parseFor() refuses lengths that are not true', async (t) => {
  for (const abi of layouts) {
    const { cmsg_data, cmsg_len } = abi.cmsghdr
    for (const length of [0, 8, cmsg_data - 1, 40, 2 ** 31, 2 ** 32 - 1]) {
      const control = buildRights([3, 4], abi)
      control.writeUInt32LE(length, cmsg_len)
      t.throws(
        () => parseFor(control, abi),
        { message: new RegExp(`Expected a cmsg_len of .* got ${length}$`) },
        `${abi.name} ${length}`,
      )
    }
  }
})

t.test('parseControlMessages() passes over a scrap at the end', async (t) => {
  for (const abi of layouts) {
    for (let scrap = 0; scrap < abi.cmsghdr.cmsg_data; scrap++) {
      const control = Buffer.concat([
        buildRights([5], abi),
        Buffer.alloc(scrap),
      ])
      const count = parseFor(control, abi).length
      if (count !== 1) t.fail(`${abi.name}, ${scrap} bytes`)
    }
    t.strictSame(parseFor(Buffer.alloc(0), abi), [])
  }
})

t.test('parseUnixRights() refuses any other control message', async (t) => {
  for (const abi of layouts) {
    const { SOL_SOCKET, SCM_RIGHTS } = abi.constants
    for (const [level, type] of [
      [SOL_SOCKET, 2],
      [SOL_SOCKET, 3],
      [41, SCM_RIGHTS],
    ] as const) {
      const control = item(abi, level, type, Buffer.alloc(12))
      const [message] = parseFor(control, abi)
      t.ok(message && !isRights(message, abi))
      t.throws(
        () => message && parseRightsFor(message, abi),
        { message: /Expected an SCM_RIGHTS control message, got level/ },
        abi.name,
      )
    }
  }
})

t.test('parseUnixRights() ignores part of a descriptor', async (t) => {
  const control = item(linux, 1, 1, Buffer.from('05000000060000', 'hex'))
  const [message] = parseFor(control, linux)
  t.strictSame(message && parseRightsFor(message, linux), [5])
})

t.test('parseUnixRights() refuses a slot that was denied', async (t) => {
  const control = item(linux, 1, 1, Buffer.from('05000000ffffffff', 'hex'))
  const [message] = parseFor(control, linux)
  t.throws(() => message && parseRightsFor(message, linux), /slot 1/)
  t.strictSame(descriptorsFor(control, linux), [5])
})

t.test(
  'descriptorsIn() finds rights behind credentials, and pidfds',
  async (t) => {
    const credentials = item(linux, 1, 2, Buffer.alloc(12, 7))
    const pidfd = item(linux, 1, 4, Buffer.from('09000000', 'hex'))
    const control = Buffer.concat([
      credentials,
      buildRights([3, 4], linux),
      pidfd,
    ])
    t.strictSame(descriptorsFor(control, linux), [3, 4, 9])
    const darwin = selectAbi('darwin', 'x64', 'LE')
    const other = item(darwin, 0xffff, 0, Buffer.from('09000000', 'hex'))
    t.strictSame(descriptorsFor(other, darwin), [], 'no SCM_PIDFD there')
  },
)

t.test(
  'descriptorsIn() takes what is there of a message cut short',
  async (t) => {
    // darwin leaves the length that the message had before it was cut.
    const darwin = selectAbi('darwin', 'arm64', 'LE')
    const control = buildRights([3, 4, 5, 6], darwin).subarray(0, 20)
    t.strictSame(descriptorsFor(control, darwin), [3, 4])
    t.throws(() => parseFor(control, darwin), /Expected a cmsg_len/)
  },
)

t.test('hostile control buffers do no harm', async (t) => {
  // A seeded generator: the same 200,000 on every run (xorshift32).
  let state = 0x9e3779b9
  const random = (below: number): number => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
  const wild = [0, 1, 8, 11, 12, 15, 16, 17, 20, 24, 2 ** 31, 2 ** 32 - 1]
  // Behind the control buffer lies a number that must never be taken for a
  // descriptor that came.
  const OUTSIDE = 0x5e5e5e5e
  const memory = Buffer.alloc(160, 0x5e)
  let parsed = 0
  let refused = 0
  let found = 0
  let invented = 0
  for (let round = 0; round < 200_000; round++) {
    const abi = layouts[round % layouts.length] ?? linux
    const { cmsg_len, cmsg_level, cmsg_type, cmsg_data } = abi.cmsghdr
    const size = random(96)
    memory.fill(0x5e, size)
    for (let at = 0; at < size; at++) memory[at] = random(16)
    for (
      let at = 0;
      at + cmsg_data <= size;
      at += abi.cmsgAlignment * (2 + random(3))
    ) {
      const length = random(2) ? (wild[random(wild.length)] ?? 0) : random(64)
      memory.writeUInt32LE(length, at + cmsg_len)
      memory.writeUInt32LE(
        random(4) ? abi.constants.SOL_SOCKET : 0,
        at + cmsg_level,
      )
      memory.writeUInt32LE(random(4), at + cmsg_type)
    }
    const control = memory.subarray(0, size)
    const fds = descriptorsFor(control, abi)
    found += fds.length
    if (fds.length * 4 > size || fds.includes(OUTSIDE)) invented++
    try {
      for (const message of parseFor(control, abi)) {
        if (message.data.length > size) invented++
        if (!isRights(message, abi)) continue
        for (const fd of parseRightsFor(message, abi))
          if (fd === OUTSIDE) invented++
      }
      parsed++
    } catch (error) {
      if (!(error instanceof Error && error.message.startsWith('Expected')))
        throw error
      refused++
    }
  }
  t.equal(invented, 0, 'no descriptor was invented')
  t.ok(
    parsed > 1000 && refused > 1000 && found > 1000,
    `${parsed} parsed, ${refused} refused, ${found} descriptors`,
  )
})

t.test('the public functions take no second parameter', async (t) => {
  // As map() and flatMap() give one: the index.
  t.strictSame([4, 8].map(cmsgSpace), [cmsgSpace(4), cmsgSpace(8)])
  t.strictSame([4, 8].map(cmsgLen), [cmsgLen(4), cmsgLen(8)])
  const control = Buffer.concat([unixRights(3), unixRights(4, 5)])
  const [messages = []] = [control].map(parseControlMessages)
  t.strictSame(messages.flatMap(parseUnixRights), [3, 4, 5])
  for (const { level, type } of messages) {
    t.strictSame({ level, type }, { level: SOL_SOCKET, type: SCM_RIGHTS })
  }
})

t.test(
  'unixCredentials() and parseUnixCredentials() are mirror images',
  { skip: host.credentials ? false : 'only Linux has SCM_CREDENTIALS' },
  async (t) => {
    // A uid has 32 bits, of which none is a sign.
    const credentials = { pid: 4711, uid: 2 ** 32 - 2, gid: 2 ** 31 + 5 }
    const control = unixCredentials(credentials)
    const [message] = parseControlMessages(control)
    t.ok(message && !isRights(message, host))
    t.strictSame(message && parseUnixCredentials(message), credentials)
    t.throws(() => message && parseUnixRights(message), /SCM_RIGHTS/)
    const [rights] = parseControlMessages(unixRights(1, 2, 3))
    t.throws(() => rights && parseUnixCredentials(rights), /SCM_CREDENTIALS/)
    const other = message && { ...message, level: 0 }
    t.throws(() => other && parseUnixCredentials(other), /SCM_CREDENTIALS/)
  },
)

t.test(
  'unixCredentials() takes what a kernel has, and no other',
  { skip: host.credentials ? false : 'only Linux has SCM_CREDENTIALS' },
  async (t) => {
    const least = { pid: 0, uid: 0, gid: 0 }
    const most = { pid: 2 ** 31 - 1, uid: 2 ** 32 - 1, gid: 2 ** 32 - 1 }
    for (const each of [least, most]) {
      const [message] = parseControlMessages(unixCredentials(each))
      t.strictSame(message && parseUnixCredentials(message), each)
    }
    for (const [bad, message] of [
      [{ pid: -1 }, 'Expected pid from 0 to 2147483647, got -1'],
      [{ pid: 2 ** 31 }, 'Expected pid from 0 to 2147483647, got 2147483648'],
      [{ uid: 2 ** 32 }, 'Expected uid from 0 to 4294967295, got 4294967296'],
      [{ gid: 1.5 }, 'Expected gid from 0 to 4294967295, got 1.5'],
    ] as const) {
      const wrong = () => unixCredentials({ ...least, ...bad })
      t.throws(wrong, { name: 'RangeError', message })
    }
  },
)

t.test('credentials are refused where a system has none', async (t) => {
  const darwin = selectAbi('darwin', 'arm64', 'LE')
  const { unixCredentials } = await t.mockImport<
    typeof import('../../lib/cmsg.ts')
  >('../../lib/cmsg.ts', { '../../lib/layouts.ts': { host: darwin } })
  t.throws(() => unixCredentials({ pid: 1, uid: 1, gid: 1 }), {
    message: 'Expected Linux, got darwin: only Linux has SCM_CREDENTIALS',
  })
})

t.test('takeApart() sorts what came by its kind', async (t) => {
  const ids = Buffer.from('010000000200000003000000', 'hex')
  const control = Buffer.concat([
    item(linux, 1, 2, ids),
    item(linux, 1, 2, Buffer.alloc(12)),
    item(linux, 1, 1, Buffer.from('0000000003000000', 'hex')),
    item(linux, 1, 4, Buffer.from('09000000', 'hex')),
    // Of another level, where the same numbers mean something else.
    item(linux, 0, 1, Buffer.from('05000000', 'hex')),
    item(linux, 41, 2, Buffer.alloc(12, 7)),
  ])
  const credentials = { pid: 1, uid: 2, gid: 3 }
  const carried = { rights: [0, 3], others: [9], credentials }
  t.strictSame(takeApart(control, linux), carried)
  t.strictSame(takeApart(new Uint8Array(control), linux), carried)
  t.strictSame(descriptorsIn(unixRights(0, 7)), [0, 7])

  const nothing = { rights: [], others: [], credentials: undefined }
  t.strictSame(takeApart(Buffer.alloc(0), linux), nothing)
  const short = item(linux, 1, 2, Buffer.alloc(8))
  t.strictSame(takeApart(short, linux), nothing, 'too short to be struct ucred')
  const denied = item(linux, 1, 1, Buffer.from('05000000ffffffff', 'hex'))
  t.throws(() => takeApart(denied, linux), /got -1 in slot 1/)
  t.throws(() => takeApart(control.subarray(0, 20), linux), /a cmsg_len of 16/)
})

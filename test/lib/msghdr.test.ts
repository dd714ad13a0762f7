// The bytes of msghdr and iovec in every layout. The golden bytes come from C
// programs for these targets that were compiled (and, for Linux, run).

import { t } from 'tap'
import { abis, selectAbi } from '../../lib/layouts.ts'
import {
  initMsghdr,
  readMsghdr,
  setIovec,
  setName,
  setParts,
} from '../../lib/msghdr.ts'

const IOV = 0x12345678
const parts = {
  data: 0x11223344,
  dataLength: 100,
  control: 0x55667788,
  controlLength: 24,
}

const zeros = (bytes: number): string => '00'.repeat(bytes)
const lp64Iovec = `44332211${zeros(4)}64${zeros(7)}`
const linux64 = {
  msghdr: `${zeros(16)}78563412${zeros(4)}01${zeros(7)}88776655${zeros(4)}18${zeros(7)}${zeros(8)}`,
  iovec: lp64Iovec,
}
const bsd = {
  msghdr: `${zeros(16)}78563412${zeros(4)}01${zeros(7)}88776655${zeros(4)}18${zeros(3)}${zeros(4)}`,
  iovec: lp64Iovec,
}
const golden: Record<string, { msghdr: string; iovec: string }> = {
  'linux-x64': linux64,
  'linux-arm64': linux64,
  'linux-arm': {
    msghdr: `${zeros(8)}78563412010000008877665518000000${zeros(4)}`,
    iovec: '4433221164000000',
  },
  'darwin-x64': bsd,
  'darwin-arm64': bsd,
  'freebsd-x64': bsd,
  'freebsd-arm64': bsd,
}

t.test(
  'initMsghdr(), setParts() build the bytes of every layout',
  async (t) => {
    t.strictSame(Object.keys(golden), Object.keys(abis), 'all are covered')
    for (const [name, abi] of Object.entries(abis)) {
      const memory = Buffer.alloc(128)
      initMsghdr(memory, 0, IOV, abi)
      setParts(memory, 0, 96, parts, abi)
      const { size } = abi.msghdr
      t.equal(memory.toString('hex', 0, size), golden[name]?.msghdr, name)
      const iovec = memory.toString('hex', 96, 96 + abi.iovec.size)
      t.equal(iovec, golden[name]?.iovec, `${name} iovec`)
      // As recvmsg leaves it: what is used again must be as new.
      memory.writeUInt32LE(0, abi.msghdr.msg_controllen)
      memory.writeUInt32LE(99, 96 + abi.iovec.iov_len)
      setParts(memory, 0, 96, parts, abi)
      t.equal(memory.toString('hex', 0, size), golden[name]?.msghdr, 'again')
      t.equal(memory.toString('hex', 96, 96 + abi.iovec.size), iovec, 'again')
    }
  },
)

t.test('setParts() writes no control pointer without control', async (t) => {
  for (const [name, abi] of Object.entries(abis)) {
    const memory = Buffer.alloc(128)
    setParts(memory, 0, 96, parts, abi)
    setParts(memory, 0, 96, { ...parts, controlLength: 0 }, abi)
    const { msg_control } = abi.msghdr
    t.equal(memory.readUInt32LE(msg_control), 0, name)
  }
})

t.test('setParts() takes addresses of 48 bits', async (t) => {
  const abi = selectAbi('linux', 'x64', 'LE')
  const memory = Buffer.alloc(128)
  setParts(memory, 0, 96, { ...parts, data: 0x7fff_1234_5678 }, abi)
  t.equal(memory.readBigUInt64LE(96), 0x7fff_1234_5678n)
})

t.test('readMsghdr() reads what recvmsg wrote, in every layout', async (t) => {
  for (const [name, abi] of Object.entries(abis)) {
    const memory = Buffer.alloc(128)
    memory.writeUInt32LE(10, abi.msghdr.msg_namelen)
    memory.writeUInt32LE(32, abi.msghdr.msg_controllen)
    memory.writeUInt32LE(0x40000008, abi.msghdr.msg_flags)
    const read = readMsghdr(memory, 0, abi)
    const expected = { nameLength: 10, controlLength: 32, flags: 0x40000008 }
    t.strictSame(read, expected, name)
  }
})

t.test('setName() points to an address, or to none', async (t) => {
  for (const [name, abi] of Object.entries(abis)) {
    const memory = Buffer.alloc(128)
    initMsghdr(memory, 0, IOV, abi)
    setParts(memory, 0, 96, parts, abi)
    const { size, msg_name, msg_namelen } = abi.msghdr
    const without = memory.toString('hex', 0, size)
    setName(memory, 0, 0x1a2b3c4d, 110, abi)
    t.equal(memory.readUInt32LE(msg_name), 0x1a2b3c4d, name)
    t.equal(memory.readUInt32LE(msg_namelen), 110, name)
    setName(memory, 0, 0x1a2b3c4d, 0, abi)
    t.equal(memory.toString('hex', 0, size), without, `${name}, none`)
  }
})

t.test('setIovec() points to data in every layout, again too', async (t) => {
  for (const [name, abi] of Object.entries(abis)) {
    const memory = Buffer.alloc(64, 0xff)
    const { size } = abi.iovec
    // Lengths have 32 bits here: the rest of a wider one is zero from the start.
    memory.fill(0, 16, 16 + size)
    setIovec(memory, 16, 0x7fff_ffff, 65_536, abi)
    setIovec(memory, 16, parts.data, parts.dataLength, abi)
    t.equal(memory.toString('hex', 16, 16 + size), golden[name]?.iovec, name)
    const around = Buffer.concat([
      memory.subarray(0, 16),
      memory.subarray(16 + size),
    ])
    t.ok(around.equals(Buffer.alloc(64 - size, 0xff)), `${name}: no more`)
  }
})

t.test('setIovec() takes addresses of 48 bits', async (t) => {
  const abi = selectAbi('linux', 'x64', 'LE')
  const memory = Buffer.alloc(16)
  setIovec(memory, 0, 0x7fff_1234_5678, 1, abi)
  t.equal(memory.readBigUInt64LE(abi.iovec.iov_base), 0x7fff_1234_5678n)
})

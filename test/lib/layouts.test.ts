// The layouts: chosen for each platform, and, on this one, compared with what
// a C program that was compiled here prints. `make test-headers` does that for
// the others.

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { t } from 'tap'
import { buildRights } from '../../lib/cmsg.ts'
import { refuseOtherRuntimes } from '../../lib/ffi/runtime.ts'
import { abis, host, selectAbi } from '../../lib/layouts.ts'
import { initMsghdr, setParts } from '../../lib/msghdr.ts'
import { claimsOf, compare, valuesIn, youngOn } from '../claims.ts'
import { compileC } from '../support/c.ts'
import { temporaryFolder } from '../support/folder.ts'
import { missing } from '../support/missing.ts'

t.test('selectAbi() gives each known platform its layout', async (t) => {
  for (const [name, abi] of Object.entries(abis)) {
    const [platform = '', arch = ''] = name.split('-')
    t.equal(selectAbi(platform, arch, 'LE'), abi, name)
  }
  t.equal(host, selectAbi(process.platform, process.arch, 'LE'))
})

// What C headers say of them: make test-headers.
t.test('each platform has a value for everything', async (t) => {
  const counts = Object.keys(abis).map((name) => {
    const values = [...claimsOf(name).values()]
    t.ok(values.every(Number.isInteger), name)
    return `${name} ${values.length}`
  })
  t.strictSame(counts, [
    'linux-x64 881',
    'linux-arm64 881',
    'linux-arm 880',
    'darwin-x64 854',
    'darwin-arm64 854',
    'freebsd-x64 854',
    'freebsd-arm64 854',
  ])
})

t.test('what is in no header: names, limits and errors', async (t) => {
  // SCM_MAX_FD and MAX_FDS of the kernels; abstract names are Linux's alone;
  // darwin says EMSGSIZE where the others wait.
  const said = Object.entries(abis).map(([name, abi]) => {
    const { hasAbstractNames } = abi.sockaddr_un
    return [name, abi.name, abi.maxFds, hasAbstractNames, abi.emsgsizeMeansFull]
  })
  t.strictSame(said, [
    ['linux-x64', 'linux 64-bit', 253, true, false],
    ['linux-arm64', 'linux 64-bit', 253, true, false],
    ['linux-arm', 'linux 32-bit', 253, true, false],
    ['darwin-x64', 'darwin', 254, false, true],
    ['darwin-arm64', 'darwin', 254, false, true],
    ['freebsd-x64', 'freebsd 64-bit', 254, false, false],
    ['freebsd-arm64', 'freebsd 64-bit', 254, false, false],
  ])
})

t.test('selectAbi() refuses what it does not know', async (t) => {
  const unknown = /Expected one of linux-x64, .* got /
  t.throws(() => selectAbi('linux', 's390x', 'LE'), unknown)
  t.throws(() => selectAbi('linux', 'x64', 'BE'), unknown, 'byte order')
  t.throws(() => selectAbi('sunos', 'x64', 'LE'), unknown)
  t.throws(() => selectAbi('win32', 'x64', 'LE'), /Windows has no SCM_RIGHTS/)
})

t.test('refuseOtherRuntimes() lets Node pass, and no other', async (t) => {
  refuseOtherRuntimes(process.versions)
  const refused = (versions: Record<string, string>) => {
    return () => refuseOtherRuntimes({ ...process.versions, ...versions })
  }
  const why = 'it cannot wait for a socket without reading from it'
  t.throws(refused({ bun: '1.4.5' }), {
    message: `Expected Node, got Bun 1.4.5: ${why}`,
  })
  t.throws(refused({ deno: '2.9.6' }), {
    message: `Expected Node, got Deno 2.9.6: ${why}`,
  })
})

const skip = missing('cc')
const name = `${process.platform}-${process.arch}`

t.test(
  'host agrees with the C headers of this machine',
  { skip },
  async (t) => {
    const program = compileC(temporaryFolder(t), 'test/peers/abi.c')
    const printed = execFileSync(program)
    const headers = valuesIn(printed)
    const claims = claimsOf(name)
    const young = youngOn(process.platform)
    const { lacking, differences } = compare(claims, headers, young)
    for (const [value, ours] of claims) {
      if (lacking.includes(value)) t.comment(`these headers have no ${value}`)
      else t.equal(ours, headers.get(value), value)
    }
    t.strictSame(differences, [], 'nor has the C program any other')

    const hex = (name: string) => {
      return new RegExp(`^${name} ([0-9a-f]+)$`, 'm').exec(`${printed}`)?.[1]
    }
    t.equal(buildRights([5, 6, 7], host).toString('hex'), hex('rights'))
    const memory = Buffer.alloc(host.msghdr.size + host.iovec.size)
    const parts = {
      data: 0x11223344,
      dataLength: 100,
      control: 0x55667788,
      controlLength: 24,
    }
    initMsghdr(memory, 0, 0x12345678, host)
    setParts(memory, 0, host.msghdr.size, parts, host)
    t.equal(memory.toString('hex', 0, host.msghdr.size), hex('msghdr'))
    t.equal(memory.toString('hex', host.msghdr.size), hex('iovec'))
  },
)

t.test(
  'valuesIn() finds in an object file what the program would print',
  { skip },
  async (t) => {
    const folder = temporaryFolder(t)
    const object = join(folder, 'abi.o')
    execFileSync('cc', ['-c', '-o', object, 'test/peers/abi.c'])
    const printed = execFileSync(compileC(folder, 'test/peers/abi.c'))
    t.strictSame(valuesIn(readFileSync(object)), valuesIn(printed))
    t.equal(valuesIn(printed).get('sockaddr_in.size'), 16)
  },
)

t.test('compare() names each value that differs', async (t) => {
  const claims = claimsOf('darwin-arm64')
  const all = [...claims.keys()]
  const found = compare(claims, claims)
  t.strictSame(found, { same: all, lacking: [], differences: [] })

  const named = [...claims].flatMap(([name, value]) => {
    return compare(claims, new Map(claims).set(name, value + 1)).differences
  })
  const each = [...claims].map(([name, value]) => {
    return `${name}: Expected ${value + 1}, got ${value}`
  })
  t.strictSame(named, each)
  const { differences } = compare(new Map([['a', 1]]), new Map([['b', 2]]))
  t.strictSame(differences, [
    'a: Expected nothing, got 1',
    'b: Expected 2, got nothing',
  ])
})

t.test('compare() lets headers lack a constant, if told so', async (t) => {
  const claims = claimsOf('linux-x64')
  const headers = new Map(claims).set('SCM_PIDFD', 0)
  const { lacking, differences } = compare(claims, headers, youngOn('linux'))
  t.strictSame([lacking, differences], [['SCM_PIDFD'], []])

  const lacks = 'SCM_PIDFD: Expected 0, got 4'
  const elsewhere = compare(claims, headers, youngOn('darwin'))
  t.strictSame(elsewhere.differences, [lacks])
  const wrong = compare(claims, headers.set('SCM_PIDFD', 5), youngOn('linux'))
  t.strictSame(wrong.differences, ['SCM_PIDFD: Expected 5, got 4'])
})

t.test('claimsOf() refuses a platform that is not known', async (t) => {
  t.throws(
    () => claimsOf('linux-s390x'),
    /Expected a platform, got linux-s390x/,
  )
})

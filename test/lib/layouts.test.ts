// The layouts: chosen for each platform, and, on this one, compared with what
// a C program that was compiled here prints.

import { execFileSync } from 'node:child_process'
import { t } from 'tap'
import { buildRights, cmsgAlign, cmsgLen, cmsgSpace } from '../../lib/cmsg.ts'
import {
  abis,
  host,
  refuseOtherRuntimes,
  selectAbi,
} from '../../lib/layouts.ts'
import { initMsghdr, setParts } from '../../lib/msghdr.ts'
import { compileC, missing, temporaryFolder } from '../support.ts'

t.test('selectAbi() gives each known platform its layout', async (t) => {
  for (const [name, abi] of Object.entries(abis)) {
    const [platform = '', arch = ''] = name.split('-')
    t.equal(selectAbi(platform, arch, 'LE'), abi, name)
  }
  t.equal(host, selectAbi(process.platform, process.arch, 'LE'))
})

t.test('selectAbi() refuses what it does not know', async (t) => {
  const unknown = /Expected one of linux-x64, .* got /
  t.throws(() => selectAbi('linux', 's390x', 'LE'), unknown)
  t.throws(() => selectAbi('linux', 'x64', 'BE'), unknown, 'byte order')
  t.throws(() => selectAbi('sunos', 'x64', 'LE'), unknown)
  t.throws(() => selectAbi('win32', 'x64', 'LE'), /Windows has no SCM_RIGHTS/)
})

const skip =
  process.platform !== 'linux' ? 'the C program knows Linux' : missing('cc')

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

t.test(
  'host agrees with the C headers of this machine',
  { skip },
  async (t) => {
    const program = compileC(temporaryFolder(t), 'test/peers/abi.c')
    const c = new Map<string, string>()
    for (const line of execFileSync(program, { encoding: 'utf8' }).split(
      '\n',
    )) {
      const [name = '', value = ''] = line.split(' ')
      if (name) c.set(name, value)
    }
    const same = (name: string, ours: number | string): void => {
      t.equal(String(ours), c.get(name), name)
      c.delete(name)
    }

    same('pointerSize', host.pointerSize)
    for (const struct of ['msghdr', 'mmsghdr', 'iovec', 'cmsghdr'] as const) {
      for (const [field, value] of Object.entries(host[struct])) {
        same(`${struct}.${field}`, value)
      }
    }
    same('sockaddr_un.sun_path', host.sockaddr_un.sun_path)
    same('sockaddr_un.sun_path_size', host.sockaddr_un.sun_path_size)
    const { level, option, size, uid, gid, pid } = host.peercred
    t.equal(String(level), c.get('SOL_SOCKET'))
    same('SO_PEERCRED', option)
    same('ucred.size', size)
    same('ucred.uid', uid)
    same('ucred.gid', gid)
    same('ucred.pid', 'offset' in pid ? pid.offset : 'none')
    for (const [name, value] of Object.entries(host.constants))
      same(name, value)
    same('O_ACCMODE', 3)
    same('SHUT_WR', 1)

    for (let n = 0; n <= 256; n++) {
      same(`cmsgAlign(${n})`, cmsgAlign(n))
      same(`cmsgLen(${n})`, cmsgLen(n))
      same(`cmsgSpace(${n})`, cmsgSpace(n))
    }

    same('rights', buildRights([5, 6, 7]).toString('hex'))
    const memory = Buffer.alloc(host.mmsghdr.size + host.iovec.size)
    const parts = {
      data: 0x11223344,
      dataLength: 100,
      control: 0x55667788,
      controlLength: 24,
    }
    initMsghdr(memory, 0, 0x12345678, host)
    setParts(memory, 0, host.mmsghdr.size, parts, host)
    same('msghdr', memory.toString('hex', 0, host.msghdr.size))
    same('iovec', memory.toString('hex', host.mmsghdr.size))
    t.strictSame([...c.keys()], [], 'every value of the C program was compared')
  },
)

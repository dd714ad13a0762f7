// Addresses as bytes, in the layout of each platform.

import { spawnSync } from 'node:child_process'
import { constants } from 'node:os'
import { t } from 'tap'

import { host, selectAbi } from '../../../lib/layouts.ts'
import {
  inetAddress,
  isAbstract,
  parseUnixAddress,
  unixAddress,
} from '../../../lib/socket/sockaddr.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { missing } from '../../support/missing.ts'
import { run } from '../../support/processes.ts'

t.test('unixAddress() builds sockaddr_un in every layout', async (t) => {
  const linux = selectAbi('linux', 'x64', 'LE')
  const darwin = selectAbi('darwin', 'arm64', 'LE')
  t.equal(unixAddress('/s', linux).toString('hex'), '01002f7300')
  t.equal(unixAddress('/s', darwin).toString('hex'), '05012f7300')
  t.equal(unixAddress('\0s', linux).toString('hex'), '01000073')
  t.throws(() => unixAddress('\0s', darwin), /only Linux has abstract names/)
  t.throws(() => unixAddress('x'.repeat(104), darwin), /at most 103 bytes, got/)
  for (const path of ['', '/s\0', 's\0/s']) {
    t.throws(() => unixAddress(path, linux), {
      name: 'TypeError',
      message: `Expected a socket path, got ${JSON.stringify(path)}`,
    })
  }
  t.ok(isAbstract('\0s'))
  t.notOk(isAbstract('/s'))
})

t.test('a name of every length that fits comes back as it was', async (t) => {
  for (const platform of ['linux', 'darwin', 'freebsd'] as const) {
    const abi = selectAbi(platform, 'x64', 'LE')
    const { sun_path_size, hasAbstractNames } = abi.sockaddr_un
    // A path ends with a zero byte, for which there has to be room.
    const longest = `/${'x'.repeat(sun_path_size - 2)}`
    for (const path of ['s', '/tmp/ä', longest]) {
      const address = unixAddress(path, abi)
      t.equal(parseUnixAddress(address, abi), path)
      // As the kernel gives it, for one that was made without the zero byte.
      t.equal(parseUnixAddress(address.subarray(0, -1), abi), path)
      const filled = Buffer.concat([address, Buffer.from('left')])
      t.equal(parseUnixAddress(filled, abi), path, 'as far as the zero byte')
    }
    t.throws(() => unixAddress(`${longest}x`, abi), {
      code: 'ENAMETOOLONG',
      errno: -constants.errno.ENAMETOOLONG,
      message: /^Expected a socket path of at most \d+ bytes, got \d+: \/x+$/,
    })
    t.equal(parseUnixAddress(Buffer.alloc(2), abi), '', 'it has no name')
    const name = `\0${'n'.repeat(sun_path_size - 1)}`
    if (hasAbstractNames) {
      for (const each of [name, '\0a\0b']) {
        t.equal(parseUnixAddress(unixAddress(each, abi), abi), each)
      }
      const tooLong = { code: 'ENAMETOOLONG' }
      t.throws(() => unixAddress(`${name}n`, abi), tooLong)
    } else {
      // What macOS gives for a socket that was never bound.
      t.equal(parseUnixAddress(Buffer.alloc(16), abi), '')
    }
  }
})

t.test('inetAddress() takes addresses in digits, and ports', async (t) => {
  for (const address of ['', 'localhost', '1.2.3', '::g', 'fe80::1%lo']) {
    t.throws(() => inetAddress(address, 1), {
      name: 'RangeError',
      message: `Expected an IP address in digits, got ${address}`,
    })
  }
  for (const port of [-1, 65_536, 1.5, Number.NaN]) {
    t.throws(() => inetAddress('127.0.0.1', port), {
      name: 'RangeError',
      message: `Expected a port from 0 to 65535, got ${port}`,
    })
  }
  for (const port of [0, 65_535]) {
    t.equal(inetAddress('::1', port).readUInt16BE(2), port)
  }
})

// These bytes are what Python's struct and the headers of each system say.
t.test('inetAddress() writes each platform its own', async (t) => {
  const hex = (address: string, platform: string): string => {
    const abi = selectAbi(platform, 'x64', 'LE')
    return inetAddress(address, 8192, abi).toString('hex')
  }
  const port = '2000'
  const one = `${'00'.repeat(15)}01`

  t.equal(hex('127.0.0.1', 'linux'), `0200${port}7f000001${'00'.repeat(8)}`)
  t.equal(hex('127.0.0.1', 'darwin'), `1002${port}7f000001${'00'.repeat(8)}`)
  t.equal(hex('::1', 'linux'), `0a00${port}00000000${one}00000000`)
  t.equal(hex('::1', 'darwin'), `1c1e${port}00000000${one}00000000`)
  t.equal(hex('::1', 'freebsd'), `1c1c${port}00000000${one}00000000`)
  t.match(hex('::ffff:1.2.3.4', 'linux'), /0000ffff0102030400000000$/)
})

t.test(
  'inetAddress() reads IPv6 as inet_pton(3) does',
  { skip: missing('python3') },
  async (t) => {
    const addresses = [
      ...['::', '::1', '1::', 'fe80::1', '2001:db8::ff00:42:8329'],
      ...['1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7::', '::2:3:4:5:6:7:8'],
      ...['::ffff:192.0.2.128', '64:ff9b::192.0.2.33', '1:2:3:4:5:6:1.2.3.4'],
    ]
    const source =
      'import socket, sys\n' +
      'for a in sys.argv[1:]: print(socket.inet_pton(socket.AF_INET6, a).hex())'
    const { stdout } = spawnSync('python3', ['-c', source, ...addresses], {
      encoding: 'utf8',
    })
    const ours = addresses.map((address) => {
      return inetAddress(address, 1).subarray(8, 24).toString('hex')
    })
    t.strictSame(ours, stdout.trim().split('\n'))
  },
)

t.test(
  'the offsets are those of the C headers',
  {
    skip: missing('cc'),
  },
  async (t) => {
    const source = `
    #include <netinet/in.h>
    #include <stddef.h>
    #include <stdio.h>
    #include <sys/socket.h>
    #define SHOW(type, field) printf(" %zu", offsetof(struct type, field))
    int main(void) {
      printf("%d %d %d", AF_INET, AF_INET6, SO_REUSEADDR);
      SHOW(sockaddr_in, sin_port); SHOW(sockaddr_in, sin_addr);
      SHOW(sockaddr_in6, sin6_port); SHOW(sockaddr_in6, sin6_addr);
      printf(" %zu %zu", sizeof(struct sockaddr_in),
             sizeof(struct sockaddr_in6));
      return 0;
    }`
    const compile = 'cc -x c - -o "$0" && "$0"'
    const program = `${temporaryFolder(t)}/offsets`
    const { stdout } = await run(t, ['sh', '-c', compile, program], {
      input: source,
    })
    const { AF_INET6, SO_REUSEADDR } = host.constants
    t.equal(stdout, `2 ${AF_INET6} ${SO_REUSEADDR} 2 4 2 8 16 28`)
  },
)

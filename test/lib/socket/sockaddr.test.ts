// Addresses as bytes, in the layout of each platform.

import { spawnSync } from 'node:child_process'
import { t } from 'tap'

import { host, selectAbi } from '../../../lib/layouts.ts'
import {
  inetAddress,
  isAbstract,
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

// inet.ts: sockets that are bound and no more, and the bytes of their names.

import { once } from 'node:events'
import { closeSync, fstatSync, readFileSync } from 'node:fs'
import { type AddressInfo, createServer, Socket } from 'node:net'
import { t } from 'tap'

import { boundSocket, inetAbi, sockaddr } from '../../../lib/socket/inet.ts'
import { missing, openFds, run, temporaryFolder } from '../../support.ts'

for (const { address, any } of [
  { address: '127.0.0.1', any: '0.0.0.0' },
  { address: '::1', any: '::' },
]) {
  t.test(`boundSocket() on ${any} keeps its port in a connect`, async (t) => {
    const server = createServer().listen(0, address)
    t.teardown(() => server.close())
    const accepted = once(server, 'connection')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo

    const bound = boundSocket(any, 0)
    t.ok(fstatSync(bound).isSocket())
    const options = { fd: bound, manualStart: true }
    const client = new Socket(options).connect(port, address)
    t.teardown(() => client.destroy())
    await once(client, 'connect')
    const [peer] = (await accepted) as [Socket]
    t.teardown(() => peer.destroy())
    t.equal(peer.remotePort, client.localPort)
    t.equal(peer.remoteAddress, address)

    // With SO_REUSEADDR on both, and nobody listening, a port can be shared.
    const again = boundSocket(any, client.localPort ?? 0)
    closeSync(again)
  })
}

t.test(
  'boundSocket() binds the address and port that it is told',
  async (t) => {
    const probe = createServer().listen(0, '127.0.0.1')
    await once(probe, 'listening')
    const { port } = probe.address() as AddressInfo
    const before = openFds()

    t.throws(() => boundSocket('127.0.0.1', port), {
      code: 'EADDRINUSE',
      syscall: 'bind',
      message: `bind EADDRINUSE 127.0.0.1 port ${port}`,
    })
    t.throws(() => boundSocket('192.0.2.1', 0), { code: 'EADDRNOTAVAIL' })
    t.same(openFds(), before, 'a failure leaves no descriptor behind')

    probe.close()
    await once(probe, 'close')
    const fd = boundSocket('127.0.0.1', port)
    const server = createServer().listen({ fd })
    t.teardown(() => server.close())
    await once(server, 'listening')
    t.match(server.address(), { address: '127.0.0.1', port })
  },
)

t.test(
  'boundSocket() makes a close-on-exec descriptor',
  {
    skip: process.platform !== 'linux' && 'there is no /proc/self/fdinfo',
  },
  async (t) => {
    const fd = boundSocket('127.0.0.1', 0)
    t.teardown(() => closeSync(fd))
    const flags = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')
    t.match(flags, /flags:\s+02000002\n/, 'O_CLOEXEC, blocking')
  },
)

t.test('boundSocket() refuses what is no address and no port', async (t) => {
  const before = openFds()
  for (const address of ['', 'localhost', '1.2.3', '::g', 'fe80::1%lo']) {
    t.throws(() => boundSocket(address, 0), {
      name: 'RangeError',
      message: `Expected an IP address in digits, got ${address}`,
    })
  }
  for (const port of [-1, 65536, 1.5, Number.NaN]) {
    t.throws(() => boundSocket('::1', port), RangeError)
  }
  t.same(openFds(), before)
})

// These bytes are what Python's struct and the headers of each system say.
t.test('sockaddr() writes each platform its own', async (t) => {
  const hex = (address: string, platform: string): string =>
    sockaddr(address, 8192, inetAbi(platform)).toString('hex')
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
    const { AF_INET6, SO_REUSEADDR } = inetAbi(process.platform)
    t.equal(stdout, `2 ${AF_INET6} ${SO_REUSEADDR} 2 4 2 8 16 28`)
  },
)

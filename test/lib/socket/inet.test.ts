// Sockets of TCP and UDP that are bound, or take clients already.

import { spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { closeSync, fstatSync, readFileSync } from 'node:fs'
import {
  type AddressInfo,
  connect,
  createServer,
  type Server,
  Socket,
} from 'node:net'
import { t } from 'tap'

import * as calls from '../../../lib/socket/calls.ts'
import { boundSocket, serviceSocket } from '../../../lib/socket/inet.ts'
import { inetAddress } from '../../../lib/socket/sockaddr.ts'
import * as unix from '../../../lib/socket/unix.ts'
import { leakFree, openFds } from '../../support/descriptors.ts'
import { missing } from '../../support/missing.ts'

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

    const bound = boundSocket({ host: any, port: 0 })
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
    const again = boundSocket({ host: any, port: client.localPort ?? 0 })
    closeSync(again)
  })
}

t.test('ports have 16 bits', async (t) => {
  const host = '127.0.0.1'
  for (const port of [-1, 65536, 1.5, Number.NaN]) {
    const error = { name: 'RangeError', message: /Expected a port from 0 to/ }
    t.throws(() => boundSocket({ host, port }), error, `${port}`)
    t.throws(() => serviceSocket('udp', { host, port }), error)
  }
  const highest = inetAddress(host, 65535)
  t.equal(highest.readUInt16BE(2), 65535)
})

leakFree('many clients may wait before the first is accepted', async (t) => {
  const host = '127.0.0.1'
  const fd = serviceSocket('tcp', { host, port: 0 })
  const options = { fd: unix.duplicate(fd), manualStart: true }
  const named = new Socket(options)
  const port = named.localPort ?? 0
  const clients = Array.from({ length: 20 }, () => connect(port, host))
  await Promise.all(clients.map((client) => once(client, 'connect')))
  t.ok(clients.every(({ pending }) => !pending))
  const all = [named, ...clients]
  for (const each of all) each.destroy()
  await Promise.all(all.map((each) => once(each, 'close')))
  closeSync(fd)
})

async function listening(): Promise<{ probe: Server; port: number }> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  return { probe, port: (probe.address() as AddressInfo).port }
}

// Whoever gives a port up may find that another process has taken it.
async function bindFreedPort(tries = 5): Promise<{ fd: number; port: number }> {
  const { probe, port } = await listening()
  probe.close()
  await once(probe, 'close')
  try {
    return { fd: boundSocket({ host: '127.0.0.1', port: port }), port }
  } catch (error) {
    if (tries === 1) throw error
    return bindFreedPort(tries - 1)
  }
}

t.test(
  'boundSocket() binds the address and port that it is told',
  async (t) => {
    const { probe, port } = await listening()
    const before = openFds()

    t.throws(() => boundSocket({ host: '127.0.0.1', port: port }), {
      code: 'EADDRINUSE',
      syscall: 'bind',
      message: `bind EADDRINUSE 127.0.0.1 port ${port}`,
    })
    t.throws(() => boundSocket({ host: '192.0.2.1', port: 0 }), {
      code: 'EADDRNOTAVAIL',
    })
    t.same(openFds(), before, 'a failure leaves no descriptor behind')

    probe.close()
    await once(probe, 'close')
    const bound = await bindFreedPort()
    const server = createServer().listen({ fd: bound.fd })
    t.teardown(() => server.close())
    await once(server, 'listening')
    const { port: expected } = bound
    t.match(server.address(), { address: '127.0.0.1', port: expected })
  },
)

t.test(
  'boundSocket() makes a close-on-exec descriptor',
  {
    skip: process.platform !== 'linux' && 'there is no /proc/self/fdinfo',
  },
  async (t) => {
    const fd = boundSocket({ host: '127.0.0.1', port: 0 })
    t.teardown(() => closeSync(fd))
    const flags = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')
    t.match(flags, /flags:\s+02000002\n/, 'O_CLOEXEC, blocking')
  },
)

t.test('boundSocket() refuses what is no address and no port', async (t) => {
  const before = openFds()
  for (const address of ['', 'localhost', '1.2.3', '::g', 'fe80::1%lo']) {
    t.throws(() => boundSocket({ host: address, port: 0 }), {
      name: 'RangeError',
      message: `Expected an IP address in digits, got ${address}`,
    })
  }
  for (const port of [-1, 65536, 1.5, Number.NaN]) {
    t.throws(() => boundSocket({ host: '::1', port: port }), RangeError)
  }
  t.same(openFds(), before)
})

/** Where a descriptor listens, told by Python: Node would take it over. */
function nameOf(fd: number): { port: number; type: string } {
  const source = `import socket; s = socket.socket(fileno=3)
print(s.getsockname()[1], s.type.name)`
  const { stdout } = spawnSync('python3', ['-c', source], {
    stdio: ['ignore', 'pipe', 'inherit', fd],
    encoding: 'utf8',
  })
  const [port = '', type = ''] = stdout.trim().split(' ')
  return { port: Number(port), type }
}

for (const address of ['127.0.0.1', '::1']) {
  leakFree(`serviceSocket('tcp', '${address}') listens`, async (t) => {
    const fd = serviceSocket('tcp', { host: address, port: 0 })
    const server = createServer((socket) => socket.end('hello'))
    server.listen({ fd })
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const client = connect(port, address)
    const [data] = await once(client, 'data')
    t.equal(String(data), 'hello')
    client.destroy()
    await once(client, 'close')
    server.close()
    await once(server, 'close')
  })

  leakFree(`serviceSocket('udp', '${address}') is bound`, async (t) => {
    const fd = serviceSocket('udp', { host: address, port: 0 })
    const type = address === '::1' ? 'udp6' : 'udp4'
    const server = createSocket(type).bind({ fd })
    const client = createSocket(type)
    client.send('hello', server.address().port, address)
    const [data] = await once(server, 'message')
    t.equal(String(data), 'hello')
    for (const socket of [client, server]) {
      socket.close()
      await once(socket, 'close')
    }
  })
}

leakFree(
  'serviceSocket() has the port for itself',
  async (t) => {
    for (const protocol of ['tcp', 'udp'] as const) {
      const fd = serviceSocket(protocol, { host: '127.0.0.1', port: 0 })
      const { port, type } = nameOf(fd)
      t.equal(type, protocol === 'tcp' ? 'SOCK_STREAM' : 'SOCK_DGRAM')
      const before = openFds()
      t.throws(
        () => serviceSocket(protocol, { host: '127.0.0.1', port: port }),
        {
          code: 'EADDRINUSE',
          message: new RegExp(`127.0.0.1 port ${port}$`),
        },
      )
      t.throws(() => serviceSocket(protocol, { host: '0.0.0.0', port: port }), {
        code: 'EADDRINUSE',
      })
      t.same(openFds(), before, 'a failure leaves no descriptor behind')
      closeSync(fd)
    }
    t.throws(
      () => serviceSocket('udp', { host: 'localhost', port: 1 }),
      RangeError,
    )
  },
  missing('python3'),
)

const address = { host: '127.0.0.1', port: 0 }

leakFree('another protocol is refused', async (t) => {
  const protocol = JSON.parse('"sctp"')
  t.throws(() => serviceSocket(protocol, address), {
    name: 'RangeError',
    message: 'Expected tcp or udp, got sctp',
  })
})

for (const name of ['socket', 'setsockopt', 'bind', 'listen'] as const) {
  leakFree(`a ${name}(2) that fails leaves nothing open`, async (t) => {
    const { serviceSocket } = await t.mockImport<
      typeof import('../../../lib/socket/inet.ts')
    >('../../../lib/socket/inet.ts', {
      '../../../lib/socket/calls.ts': { ...calls, [name]: () => -12 },
      '../../../lib/socket/unix.ts': unix,
    })
    const failure = { code: 'ENOMEM', syscall: name }
    t.throws(() => serviceSocket('tcp', address), failure)
    if (name === 'listen' || name === 'setsockopt') {
      closeSync(serviceSocket('udp', address))
    } else t.throws(() => serviceSocket('udp', address), failure)
  })
}

// service.ts: sockets that take clients, and the connections on them.

import { execFileSync, spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { closeSync, fstatSync, openSync } from 'node:fs'
import { type AddressInfo, connect, createServer, Socket } from 'node:net'
import { serviceSocket } from '../../../lib/socket/inet.ts'
import { newSocket } from '../../../lib/socket/unix.ts'
import { connectionsOn } from '../../../lib/wait/accept.ts'
import { leakFree, missing, openFds, until } from '../../support.ts'

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
    const fd = serviceSocket('tcp', address, 0)
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
    const fd = serviceSocket('udp', address, 0)
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
      const fd = serviceSocket(protocol, '127.0.0.1', 0)
      const { port, type } = nameOf(fd)
      t.equal(type, protocol === 'tcp' ? 'SOCK_STREAM' : 'SOCK_DGRAM')
      const before = openFds()
      t.throws(() => serviceSocket(protocol, '127.0.0.1', port), {
        code: 'EADDRINUSE',
        message: new RegExp(`127.0.0.1 port ${port}$`),
      })
      t.throws(() => serviceSocket(protocol, '0.0.0.0', port), {
        code: 'EADDRINUSE',
      })
      t.same(openFds(), before, 'a failure leaves no descriptor behind')
      closeSync(fd)
    }
    t.throws(() => serviceSocket('udp', 'localhost', 1), RangeError)
  },
  missing('python3'),
)

leakFree('connectionsOn() yields descriptors, until aborted', async (t) => {
  const fd = serviceSocket('tcp', '127.0.0.1', 0)
  const { port } = nameOf(fd)
  const stop = new AbortController()
  const connections = connectionsOn(fd, stop.signal)
  // One that waits already, and one that is waited for.
  const clients = [connect(port, '127.0.0.1')]
  for (let round = 0; round < 2; round++) {
    const { value: accepted = -1 } = await connections.next()
    t.ok(fstatSync(accepted).isSocket())
    const server = new Socket({ fd: accepted })
    server.end('hello')
    const client = clients[round]
    if (client === undefined) break
    const [data] = await once(client, 'data')
    t.equal(String(data), 'hello')
    client.destroy()
    server.destroy()
    setImmediate(() => clients.push(connect(port, '127.0.0.1')))
    await until('the next dials', () => clients.length === round + 2)
  }
  const { value: last = -1 } = await connections.next()
  closeSync(last)
  clients.pop()?.destroy()

  const end = connections.next()
  setImmediate(() => stop.abort())
  t.match(await end, { done: true, value: undefined })
  t.throws(() => fstatSync(fd), { code: 'EBADF' }, 'and closes the listener')
})

leakFree('connectionsOn() aborted while nobody asks ends next', async (t) => {
  const never = serviceSocket('tcp', '127.0.0.1', 0)
  const none = connectionsOn(never, AbortSignal.abort())
  t.match(await none.next(), { done: true })

  const fd = serviceSocket('tcp', '127.0.0.1', 0)
  const clients = [1, 2].map(() => connect(nameOf(fd).port, '127.0.0.1'))
  await Promise.all(clients.map((client) => once(client, 'connect')))
  for (const client of clients) client.on('error', () => {})
  const stop = new AbortController()
  const connections = connectionsOn(fd, stop.signal)
  closeSync((await connections.next()).value ?? -1)
  stop.abort()
  t.match(await connections.next(), { done: true }, 'though one is waiting')
  for (const client of clients) client.destroy()
})

leakFree(
  'connectionsOn() waits for a free descriptor',
  async (t) => {
    const fd = serviceSocket('tcp', '127.0.0.1', 0)
    const client = connect(nameOf(fd).port, '127.0.0.1')
    await once(client, 'connect')
    const limit = (most: string): void => {
      const args = ['--pid', String(process.pid), `--nofile=${most}:`]
      execFileSync('prlimit', args)
    }
    const usual = execFileSync(
      'prlimit',
      ['--pid', String(process.pid), '--nofile', '-o', 'SOFT', '--noheadings'],
      { encoding: 'utf8' },
    )
    limit('400')
    const fillers: number[] = []
    t.throws(() => {
      for (;;) fillers.push(openSync('/dev/null', 'r'))
    }, /EMFILE/)
    const connections = connectionsOn(fd)
    const next = connections.next()
    const first = fillers.pop() ?? -1
    // Long enough for it to have failed, and to be waiting.
    setImmediate(() => closeSync(first))
    const { value: accepted = -1 } = await next
    t.equal(accepted, first, 'the one that became free')
    for (const each of [accepted, ...fillers]) closeSync(each)
    limit(usual.trim())
    client.destroy()
    const end = connections.return(undefined)
    t.match(await end, { done: true })
    await once(client, 'close')
  },
  missing('python3', 'prlimit'),
)

leakFree('connectionsOn() throws for what does not listen', async (t) => {
  const fd = newSocket()
  const expected = { code: 'EINVAL', syscall: 'accept' }
  await t.rejects(connectionsOn(fd).next(), expected)
})

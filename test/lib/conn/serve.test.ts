// listener.serve(): a handler for each connection, and how that ends.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { Serving } from '../../../lib/conn/listener.ts'
import type { ListenOptions } from '../../../lib/index.ts'
import {
  connect,
  listen,
  socketpair,
  type UnixConn,
  UnixListener,
} from '../../../lib/index.ts'
import { newSocket } from '../../../lib/socket/unix.ts'
import { leakFree } from '../../support/descriptors.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { turns, until } from '../../support/waiting.ts'
import { warningsOf } from '../../support/warnings.ts'

async function listening(t: Test, options?: ListenOptions) {
  const listener = await listen(join(temporaryFolder(t), 's'), options)
  t.teardown(() => listener.close())
  return listener
}

async function dial(t: Test, { path }: UnixListener): Promise<UnixConn> {
  const conn = await connect(path)
  t.teardown(() => conn.close())
  return conn
}

async function echo(conn: UnixConn): Promise<void> {
  for (;;) {
    const message = await conn.recvmsg()
    if (message === null) return
    await conn.sendmsg(message.data)
  }
}

async function answerTo(text: string, conn: UnixConn): Promise<string> {
  await conn.sendmsg(text)
  return String((await conn.recvmsg())?.data)
}

leakFree('serve() serves all at a time, and hangs up on close', async (t) => {
  const listener = await listening(t)
  const served = listener.serve(echo)
  const clients = [await dial(t, listener), await dial(t, listener)]
  for (const client of clients) t.equal(await answerTo('x', client), 'x')
  for (const client of clients) t.equal(await answerTo('y', client), 'y')
  listener.close()
  await served
  for (const client of clients) {
    t.equal(await client.recvmsg(), null, 'hung up')
    client.close()
  }
  t.notOk(existsSync(listener.path))
  await listener.serve(() => void t.fail('a connection after close()'))
})

leakFree('serve() closes a connection when its handler ends', async (t) => {
  const listener = await listening(t)
  const served = listener.serve(() => {})
  const client = await dial(t, listener)
  t.equal(await client.recvmsg(), null)
  client.close()
  listener.close()
  await served
})

leakFree('serve() ends when the last handler has ended', async (t) => {
  const listener = await listening(t)
  let finish = (): void => {}
  let isEnded = false
  const served = listener
    .serve(async (conn) => {
      await conn.recvmsg()
      await new Promise<void>((resolve) => {
        finish = resolve
      })
      t.notOk(isEnded)
    })
    .then(() => {
      isEnded = true
    })
  const client = await dial(t, listener)
  await client.sendmsg('x')
  await until('the handler is at its end', () => finish.name !== 'finish')
  listener.close()
  t.equal(await client.recvmsg(), null, 'the client is told at once')
  await turns()
  t.notOk(isEnded, 'serve() waits for the handler')
  finish()
  await served
  t.ok(isEnded)
  client.close()
})

leakFree('serve() bounds how many there are at a time', async (t) => {
  const listener = await listening(t)
  let now = 0
  let peak = 0
  const served = listener.serve(
    async (conn) => {
      peak = Math.max(peak, ++now)
      await echo(conn)
      now--
    },
    { maxConnections: 2 },
  )
  const clients = []
  for (let i = 0; i < 6; i++) clients.push(await dial(t, listener))
  const answers = clients.map(async (client) => {
    t.equal(await answerTo('x', client), 'x')
    client.close()
  })
  await Promise.all(answers)
  t.equal(peak, 2)

  const held = [await dial(t, listener), await dial(t, listener)]
  for (const client of held) t.equal(await answerTo('x', client), 'x')
  const last = await dial(t, listener)
  listener.close()
  await served
  t.equal(peak, 2)
  await t.rejects(answerTo('x', last), /EPIPE|ECONNRESET/, 'never accepted')
  for (const client of [...held, last]) client.close()
})

leakFree('serve() refuses a bound that is none', async (t) => {
  const listener = await listening(t)
  for (const maxConnections of [0, -1, Number.NaN]) {
    await t.rejects(listener.serve(echo, { maxConnections }), RangeError)
  }
  const served = listener.serve(echo, { maxConnections: 1 })
  const client = await dial(t, listener)
  t.equal(await answerTo('x', client), 'x', 'one at a time is a bound')
  client.close()
  listener.close()
  await served
})

leakFree('a handler that fails ends its own connection only', async (t) => {
  const listener = await listening(t)
  const errors: string[] = []
  const failing = (conn: UnixConn): Promise<void> => {
    if (conn.fd < 0) t.fail('a closed connection')
    if (errors.length === 0) throw new Error('at once')
    return echo(conn).then(() => Promise.reject(new Error('later')))
  }
  const onError = (error: unknown, conn: UnixConn): void => {
    t.ok(conn.fd >= 0, 'the connection is open still')
    errors.push((error as Error).message)
  }
  const served = listener.serve(failing, { onError })
  const first = await dial(t, listener)
  t.equal(await first.recvmsg(), null)
  const second = await dial(t, listener)
  t.equal(await answerTo('x', second), 'x')
  second.close()
  await until('the second error', () => errors.length === 2)
  t.strictSame(errors, ['at once', 'later'])
  listener.close()
  await served
  first.close()
})

leakFree("a handler's error is a warning, unless told elsewhere", async (t) => {
  const listener = await listening(t)
  const warnings = warningsOf(t)
  const thrown = [new Error('an error'), 'a string']
  const served = listener.serve(() => {
    throw thrown.shift()
  })
  for (const expected of ['an error', 'a string']) {
    const client = await dial(t, listener)
    t.equal(await client.recvmsg(), null)
    await until('a warning', () => warnings.length > 0)
    t.equal(warnings.shift()?.message, expected)
    client.close()
  }
  listener.close()
  await served
})

leakFree('an onError that throws ends serve() with its error', async (t) => {
  const listener = await listening(t)
  const served = listener.serve(
    async (conn) => {
      const message = await conn.recvmsg()
      if (message !== null) throw new Error('enough')
    },
    {
      onError: (error) => {
        throw error
      },
    },
  )
  const clients = [await dial(t, listener), await dial(t, listener)]
  await clients[1]?.sendmsg('x')
  await t.rejects(served, { message: 'enough' })
  for (const client of clients) {
    t.equal(await client.recvmsg().catch(() => null), null)
    client.close()
  }
  t.notOk(existsSync(listener.path))
})

leakFree('a handler whose connection close() closed is no error', async (t) => {
  const listener = await listening(t)
  const received: unknown[] = []
  const served = listener.serve(
    async (conn) => {
      received.push(String((await conn.recvmsg())?.data))
      received.push(await conn.recvmsg())
      await conn.sendmsg('too late')
    },
    { onError: (error) => t.fail(`${error}`) },
  )
  const client = await dial(t, listener)
  await client.sendmsg('x')
  await until('the handler has its message', () => received.length > 0)
  listener.close()
  await served
  t.strictSame(received, ['x', null], 'and the handler went on to send')
  client.close()
})

leakFree('a handler that fails after close() is an error still', async (t) => {
  const listener = await listening(t)
  const errors: unknown[] = []
  const served = listener.serve(
    async (conn) => {
      await conn.recvmsg()
      throw new Error('could not save what came')
    },
    { onError: (error) => errors.push(error) },
  )
  const client = await dial(t, listener)
  t.notOk(listener[Symbol.dispose]())
  await served
  t.match(errors, [{ message: 'could not save what came' }])
  client.close()
})

leakFree('a handler that sends on what it closed itself is told', async (t) => {
  const listener = await listening(t)
  const errors: unknown[] = []
  const served = listener.serve(
    async (conn) => {
      conn.close()
      await conn.sendmsg('x')
    },
    { onError: (error) => errors.push(error) },
  )
  const client = await dial(t, listener)
  t.equal(await client.recvmsg(), null)
  await until('the error', () => errors.length > 0)
  t.match(errors, [{ code: 'ERR_SOCKET_CLOSED' }])
  listener.close()
  await served
  client.close()
})

leakFree('a handler may fail with anything, after close() too', async (t) => {
  const listener = await listening(t)
  const errors: unknown[] = []
  const served = listener.serve(
    async (conn) => {
      await conn.recvmsg()
      await Promise.reject()
    },
    { onError: (error) => errors.push(error) },
  )
  const client = await dial(t, listener)
  listener.close()
  await served
  t.strictSame(errors, [undefined])
  client.close()
})

leakFree('serve() ends with an error that cannot pass', async (t) => {
  const listener = UnixListener.adopt(
    newSocket(),
    '\0none',
    'stream',
    undefined,
  )
  const served = listener.serve(echo)
  await t.rejects(served, { code: 'EINVAL', syscall: 'accept' })
  t.equal(await listener.accept(), null, 'the listener is closed')
})

leakFree('a connection that comes as the listener closes ends', async (t) => {
  const [one, other] = socketpair()
  const serving = new Serving(async (conn) => {
    t.equal(await conn.recvmsg(), null)
  }, {})
  const conns = [one]
  const accept = async (): Promise<UnixConn | null> => {
    const conn = conns.pop()
    // Once: a second time it would meet the connection among the others.
    if (conn) serving.hangUp()
    return conn ?? null
  }
  await serving.run({ accept, close: () => {} })
  t.equal(await other.recvmsg(), null)
  other.close()
})

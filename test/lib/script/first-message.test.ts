// firstMessage(): a client that sends nothing does not keep its place.

import { socketpair } from '../../../lib/index.ts'
import { firstMessage } from '../../../lib/script/cli.ts'
import { leakFree } from '../../support/descriptors.ts'

leakFree('firstMessage() gives what comes in time, or says so', async (t) => {
  const [server, client] = socketpair()
  await client.sendmsg('hello')
  t.match(await firstMessage(server, {}, 60_000), { fds: [] })
  await t.rejects(firstMessage(server, {}, 1), {
    message: 'Expected a message within 0.001 s, got none',
  })
  // What arrives later is not lost by that.
  await client.sendmsg('late')
  t.equal(String((await server.recvFds())?.data), 'late')
  client.close()
  t.equal(await firstMessage(server, {}, 60_000), null)
  server.close()
})

// Connections in a worker thread, which is terminated while they are open.

import { leakFree, plainEnv, run, script } from '../../support.ts'

const source = `
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
const inside = \`
  import { parentPort } from 'node:worker_threads'
  import { register } from 'tsx/esm/api'
  register()
  const { socketpair } = await import('./lib/index.ts')
  const { SocketWatcher, Watcher } = await import('./lib/wait/watcher.ts')
  const [a, b] = socketpair()
  await a.sendFds('hello', [0])
  const { data, fds } = await b.recvFds()
  const full = a.sendFds(Buffer.alloc(1e6), [0])
  const waiting = [full, socketpair()[0].recvFds(), socketpair()[1].recvFds()]
  parentPort.postMessage([String(data), fds.length, Watcher === SocketWatcher])
  await Promise.all(waiting)
\`
for (let round = 0; round < 5; round++) {
  const worker = new Worker(inside, { eval: true, execArgv: ['--input-type=module'] })
  worker.on('error', (error) => console.log(error))
  const [message] = await once(worker, 'message')
  console.log(...message)
  if (round % 2) gc()
  await worker.terminate()
}
const { socketpair } = await import('./lib/index.ts')
const [a, b] = socketpair()
await a.sendmsg('still here')
console.log(String((await b.recvmsg()).data))
a.close()
b.close()
`

leakFree(
  'a worker that is terminated with connections open ends by itself alone',
  async (t) => {
    const env = plainEnv({ FDPASS_FFI: process.env.FDPASS_FFI })
    const command = script('--expose-gc', '--input-type=module', '-e')
    const result = await run(t, [...command, source], { env })
    const expected = `${'hello 1 true\n'.repeat(5)}still here\n`
    t.equal(result.stdout, expected, result.stderr)
    t.strictSame([result.code, result.signal], [0, null])
  },
)

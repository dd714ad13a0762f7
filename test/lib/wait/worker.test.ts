// Worker threads: each waits by a list of its own, which goes with it, however
// it ends.

import { hasEpoll } from '../../../lib/wait/watch.ts'
import { leakFree } from '../../support/descriptors.ts'
import { plainEnv, run, script, strip } from '../../support/processes.ts'

/** What each module below begins with: threads, and the lists that are open. */
const THREADS = `
import { once } from 'node:events'
import { readdirSync, readlinkSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
const { socketpair, waitReadable } = await import('./lib/index.ts')
function start(body) {
  const source = \`
    import { parentPort } from 'node:worker_threads'
    const { socketpair, waitReadable } = await import('./lib/index.ts')
  \`
  const execArgv = ${JSON.stringify([...strip, '--input-type=module'])}
  const worker = new Worker(source + body, { eval: true, execArgv })
  worker.on('error', (error) => console.log(error))
  return worker
}
function countLists() {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync('/proc/self/fd/' + fd).endsWith('[eventpoll]')
    } catch {
      return false
    }
  }).length
}
async function exchange() {
  const [a, b] = socketpair()
  const received = b.recvmsg()
  await a.sendmsg('hello')
  console.log(String((await received).data))
  a.close()
  b.close()
}
`

const TERMINATED = `${THREADS}
// The list of this thread is made, and so are those of Node's.
await exchange()
await start('').terminate()
const before = countLists()
for (let round = 0; round < 5; round++) {
  const worker = start(\`
    const [a, b] = socketpair()
    await a.sendFds('hello', [0])
    const { data, fds } = await b.recvFds()
    const full = a.sendFds(Buffer.alloc(1e6), [0])
    const waiting = [full, socketpair()[0].recvFds(), socketpair()[1].recvFds()]
    waiting.push(waitReadable(socketpair()[0].fd))
    // Until this thread does nothing but wait: terminate() in the middle of a call
    // of ffi-rs ends the whole process.
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
    parentPort.postMessage([String(data), fds.length])
    await Promise.all(waiting)
  \`)
  const [message] = await once(worker, 'message')
  console.log(...message)
  if (round % 2) gc()
  await worker.terminate()
}
console.log('lists', countLists() - before)
await exchange()
`

const ENDED = `${THREADS}
await exchange()
await start('').terminate()
const before = countLists()
const ends = {
  'has received': 'const [a, b] = socketpair(); const r = b.recvmsg();' +
    'await a.sendmsg("x"); await r; a.close(); b.close()',
  'waits without a reference': 'socketpair()[0].unref().recvmsg()',
  'waits, and calls exit()': 'waitReadable(socketpair()[0].fd);' +
    'setTimeout(() => process.exit(7))',
  'calls exit() when it is told': 'const [a, b] = socketpair();' +
    'a.recvmsg().then(() => process.exit(8)); b.sendmsg("x")',
  'calls exit() in the middle of calls': 'const [a, b] = socketpair();' +
    'let n = 0; const send = () => b.sendmsg("x").then(send); send();' +
    'for await (const _ of a) if (n++ === 5000) process.exit(9)',
}
for (const [name, body] of Object.entries(ends)) {
  const [code] = await once(start(body), 'exit')
  console.log(name + ':', code)
}
console.log('lists', countLists() - before)
await exchange()
`

const SIDE_BY_SIDE = `${THREADS}
const workers = Array.from({ length: 3 }, () => start(\`
  const [a, b] = socketpair()
  parentPort.once('message', async () => {
    let text = ''
    for (let round = 0; round < 50; round++) {
      const received = b.recvmsg()
      await new Promise(setImmediate)
      await a.sendmsg(String(round % 10))
      text += (await received).data
    }
    parentPort.postMessage(text)
    a.close()
    b.close()
  })
  parentPort.postMessage('ready')
\`))
await Promise.all(workers.map((worker) => once(worker, 'message')))
const answers = workers.map((worker) => once(worker, 'message'))
const exits = workers.map((worker) => once(worker, 'exit'))
for (const worker of workers) worker.postMessage('go')
await exchange()
for (const [text] of await Promise.all(answers)) console.log(text)
await Promise.all(exits)
`

const hello = 'hello\n'
const modules = {
  'a worker that is terminated with connections open ends by itself alone': {
    source: TERMINATED,
    expected: `${hello}${'hello 1\n'.repeat(5)}lists 0\n${hello}`,
  },
  'a worker that ends, in whatever way, takes its list with it': {
    source: ENDED,
    expected:
      `${hello}has received: 0\nwaits without a reference: 0\n` +
      'waits, and calls exit(): 7\ncalls exit() when it is told: 8\n' +
      'calls exit() in the middle of calls: 9\n' +
      `lists 0\n${hello}`,
  },
  'threads wait beside each other': {
    source: SIDE_BY_SIDE,
    expected: hello + `${'0123456789'.repeat(5)}\n`.repeat(3),
  },
}

for (const [name, { source, expected }] of Object.entries(modules)) {
  leakFree(hasEpoll ? name : `${name}, without epoll`, async (t) => {
    const command = script('--expose-gc', '--input-type=module', '-e')
    const env = plainEnv()
    const result = await run(t, [...command, source], { env })
    t.equal(result.stdout, expected, result.stderr)
    t.strictSame([result.code, result.signal], [0, null])
  })
}

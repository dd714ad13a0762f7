// Descriptors in a worker thread, where Node keeps a list of what fs.openSync()
// has opened and closes what is left of it when the thread ends: nothing is
// closed twice, nothing stays open but what was handed out, and no warning is
// printed.

import { fstatSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as workerThreads from 'node:worker_threads'
import { type Test, t } from 'tap'

import { openFds } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { plainEnv, run, script, strip } from '../support/processes.ts'
import { onWarning } from '../support/worker.ts'

/**
 * Runs `inside` in a worker thread, with the library as `lib`, and `outside` in
 * the main thread, which has it as `worker`. Each can wait for a `message()` of
 * the other and `tell()` it something. Warnings are printed.
 */
function runBoth(t: Test, inside: string, outside: string, cwd: string) {
  const worker = `
    import { parentPort, workerData } from 'node:worker_threads'
    import * as fs from 'node:fs'
    import { once } from 'node:events'
    process.on('warning', ${onWarning})
    const lib = await import(workerData)
    const tell = (what) => parentPort.postMessage(what)
    const message = async () => (await once(parentPort, 'message'))[0]
    ${inside}
    parentPort.unref()`
  const source = `
    import { once } from 'node:events'
    import * as fs from 'node:fs'
    import { connect } from 'node:net'
    import { pathToFileURL } from 'node:url'
    import { Worker } from 'node:worker_threads'
    process.on('warning', ${onWarning})
    process.chdir(${JSON.stringify(process.cwd())})
    const folder = ${JSON.stringify(cwd)}
    const worker = new Worker(${JSON.stringify(worker)}, {
      eval: true,
      execArgv: ${JSON.stringify([...strip, '--input-type=module'])},
      workerData: pathToFileURL('lib/index.ts').href,
    })
    worker.on('error', (error) => console.log(error))
    const tell = (what) => worker.postMessage(what)
    const message = async () => (await once(worker, 'message'))[0]
    const targets = () => fs.readdirSync('/proc/self/fd').map((fd) => {
      try { return fs.readlinkSync('/proc/self/fd/' + fd) } catch { return '' }
    }).join()
    ${outside}`
  const env = plainEnv({ FDPASS_FFI: process.env.FDPASS_FFI })
  return run(t, [...script('--input-type=module', '-e'), source], { env })
}

t.test('what fs.openSync() gave is closed once', async (t) => {
  const folder = temporaryFolder(t)
  const file = join(folder, 'file')
  writeFileSync(file, 'text')
  const inside = `
    const file = await message()
    const open = (flags = 'r') => fs.openSync(file, flags)
    const fds = [open(), open(), open('a'), open('r+'), open()]
    for await (const chunk of lib.readableFrom(fds[0])) tell(String(chunk))
    lib.closeReceived(fds[1])
    await once(lib.writableFrom(fds[2]).end('more'), 'close')
    await once(lib.duplexFrom(fds[3]).destroy(), 'close')
    try { lib.writableFrom(fds[4]) } catch { tell('refused') }
    tell(fds)
    await message()`
  // The numbers are free, and become the main thread's, until the worker ends.
  const outside = `
    tell(folder + '/file')
    console.log(await message())
    console.log(await message())
    const fds = await message()
    const taken = []
    while (!fds.every((fd) => taken.includes(fd))) {
      if (taken.length > 100) throw new Error('Expected ' + fds + ' to be free')
      taken.push(fs.openSync(folder + '/file', 'r'))
    }
    tell('end')
    console.log('exit', ...await once(worker, 'exit'))
    for (const fd of taken) fs.fstatSync(fd)
    console.log('all are open')`
  const { stdout, stderr } = await runBoth(t, inside, outside, folder)
  t.equal(stdout, 'text\nrefused\nexit 0\nall are open\n', stderr)
})

t.test('the calls of a server and a client print nothing', async (t) => {
  const folder = temporaryFolder(t)
  writeFileSync(join(folder, 'file'), 'text')
  const inside = `
    const folder = await message()
    const listener = await lib.listen(folder + '/s')
    const served = listener.serve(async (conn) => {
      const { fds } = await conn.recvFds({ maxFds: 1 })
      for await (const chunk of lib.readableFrom(fds[0])) tell(String(chunk))
      await conn.sendmsg('thanks')
    })
    const conn = await lib.connect(folder + '/s')
    const fd = fs.openSync(folder + '/file', 'r')
    await conn.sendFds('a file', [fd])
    await conn.recvmsg()
    fs.closeSync(fd)
    conn.close()
    listener.close()
    await served
    const pair = lib.pairForChild()
    fs.closeSync(pair.childFd)
    pair.conn.close()
    const [one, other] = lib.UnixDatagram.pair()
    one.close()
    other.close()
    tell('done')`
  const outside = `
    const exited = once(worker, 'exit')
    tell(folder)
    for (;;) {
      const what = await message()
      console.log(what)
      if (what === 'done') break
    }
    console.log('exit', ...await exited)`
  const { stdout, stderr } = await runBoth(t, inside, outside, folder)
  t.equal(stdout, 'text\ndone\nexit 0\n', stderr)
})

t.test('a thread that is terminated leaves what it was given', async (t) => {
  const folder = temporaryFolder(t)
  writeFileSync(join(folder, 'file'), 'text')
  const inside = `
    const folder = await message()
    const listener = await lib.listen(folder + '/s')
    const [one, other] = lib.socketpair()
    const [name, peer] = lib.UnixDatagram.pair()
    const fd = fs.openSync(folder + '/file', 'r')
    for (let count = 0; count < 20; count++) await one.sendFds('x', [fd])
    let delivered = 0
    for await (const { fds } of other) {
      delivered += fds.length
      if (delivered === 3) break
    }
    // Until this thread does nothing but wait: terminate() in the middle of a call
    // of ffi-rs ends the whole process.
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
    const socketOf = ({ fd }) => fs.readlinkSync('/proc/self/fd/' + fd)
    tell([delivered, ...[one, other, name, peer].map(socketOf)])
    await new Promise(() => setInterval(() => {}, 1000))`
  const outside = `
    tell(folder)
    const [delivered, ...sockets] = await message()
    console.log(delivered, sockets.every((name) => targets().includes(name)))
    await worker.terminate()
    console.log(targets().match(/\\/file/g).length)
    console.log(sockets.some((name) => targets().includes(name)))
    const [error] = await once(connect(folder + '/s'), 'error')
    console.log(error.code)`
  const { stdout, stderr } = await runBoth(t, inside, outside, folder)
  t.equal(stdout, '3 true\n3\nfalse\nECONNREFUSED\n', stderr)
})

const onLinux = process.platform !== 'linux' && 'only on Linux'

t.test(
  'tieToThread() moves to a number of Node',
  { skip: onLinux },
  async (t) => {
    type Unix = typeof import('../../lib/socket/unix.ts')
    const unix = await t.mockImport<Unix>('../../lib/socket/unix.ts', {
      'node:worker_threads': { ...workerThreads, isMainThread: false },
    })
    const before = openFds()
    const [one, other] = unix.newSocketpair()
    const { ino } = fstatSync(one)
    const tied = unix.tieToThread(one)
    t.not(tied, one)
    t.equal(fstatSync(tied).ino, ino)
    t.throws(() => fstatSync(one), { code: 'EBADF' })
    const pair = unix.tiePairToThread([tied, other])
    t.equal(fstatSync(pair[0]).ino, ino)

    const { emitWarning } = process
    unix.closeFd(pair[0])
    unix.closeFd(pair[0])
    t.equal(process.emitWarning, emitWarning)
    const closed = 99_999
    const error = { code: 'EBADF', syscall: 'dup3' }
    t.throws(() => unix.tieToThread(closed), error)
    t.throws(() => unix.tiePairToThread([pair[1], closed]), error)
    const [last, peer] = unix.newSocketpair()
    for (const fd of [last, peer]) {
      t.throws(() => unix.tiePairToThread([closed, fd]), error)
    }
    t.strictSame(openFds(), before)
  },
)

// server.ts where what a client sends could hold it up for good: files whose
// server does not answer, a terminal that somebody else reads as well, the
// server's own terminal.

import { openSync } from 'node:fs'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { connect } from '../lib/index.ts'
import { closeFd } from '../lib/socket/unix.ts'
import { endFuse, missingFuse, startFuse } from './fuse.ts'
import { missing } from './support/missing.ts'
import { Running, run, script, startServer } from './support/processes.ts'
import { noTerminal, terminal } from './support/terminal.ts'

/** Another client is served, and one Ctrl-C ends the server. */
async function servesOthers(t: Test, path: string, server: Running) {
  const other = await run(t, script('client.ts', path), { input: 'a line\n' })
  t.match(other, { code: 0, stderr: '' })
  await server.printed(/> a line$/m)
  server.child.kill('SIGINT')
  t.match(await server.exit, { code: 0, signal: null })
  t.match(server.stdout, /Server stopped\n$/)
}

for (const file of ['hanging-getattr', 'hanging-ioctl', 'hanging-read']) {
  t.test(
    `${file}: files whose server does not answer`,
    { skip: missingFuse() },
    async (t) => {
      const { path, server } = await startServer(t)
      const fuse = await startFuse(t)
      const conn = await connect(path)
      t.teardown(() => conn.close())
      // More than libuv's pool has threads.
      const fds = Array.from({ length: 6 }, () => {
        return openSync(join(fuse.folder, file), 'r')
      })
      await conn.sendFds('files', fds)
      await server.printed(/client 1: fd \d+ here, another there: file/)
      if (file === 'hanging-read') await fuse.server.printed(/^hanging-read$/m)
      await servesOthers(t, path, server)
      await endFuse(fuse.server)
      for (const fd of fds) closeFd(fd) // ENOTCONN by now
    },
  )
}

t.test(
  'close(2) of a received file that fails harms nobody',
  { skip: missingFuse() },
  async (t) => {
    const { path, server } = await startServer(t)
    const fuse = await startFuse(t)
    const fd = openSync(join(fuse.folder, 'failing-flush'), 'r')
    const conn = await connect(path)
    t.teardown(() => conn.close())
    await conn.sendFds('a file', [fd])
    await conn.recvmsg()
    await servesOthers(t, path, server)
    t.equal(server.stderr, '')
    closeFd(fd) // EIO here, too
    await endFuse(fuse.server)
  },
)

// Sends the master of a pseudo-terminal, and reads it as well, while lines are
// written quickly to the slave.
const GREEDY = `
import os, pty, socket, sys, threading
master, slave = pty.openpty()
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
socket.send_fds(s, [b'a terminal'], [master])
def read():
    while True: os.read(master, 1000)
threading.Thread(target=read, daemon=True).start()
for i in range(3000): os.write(slave, b'line %d\\n' % i)
print('written', flush=True)
sys.stdin.read()
`

t.test(
  'a terminal that a quicker reader has, too',
  { skip: missing('python3') },
  async (t) => {
    const { path, server } = await startServer(t)
    const greedy = new Running(t, ['python3', '-c', GREEDY, path])
    await greedy.printed(/written/)
    await servesOthers(t, path, server)
  },
)

t.test(
  'a server in the background of the terminal that it is sent',
  noTerminal,
  async (t) => {
    const { path } = await startServer(t) // for a path in a folder of its own
    const socket = `${path}2`
    const { shell, type } = await terminal(t)
    const start = (file: string): string =>
      script(file, socket)
        .map((part) => `'${part}'`)
        .join(' ')
    type(`${start('server.ts')} &\n`)
    await shell.printed(/Server ready on/)
    type(`${start('client.ts')}; echo 'en''ded' $?\n`)
    await shell.printed(
      /client 1: read EIO cannot read this: it is the terminal of this process/,
    )
    await shell.printed(/Server: read EIO cannot read this/)
    await shell.printed(/ended 1/)
    type('kill -INT %1; wait; echo "al""l over"\n')
    await shell.printed(/Server stopped/)
    await shell.printed(/all over/)
  },
)

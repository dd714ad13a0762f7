// write_fd and read_fd of Unix Network Programming, in C, against this library:
// one descriptor or none beside arbitrary bytes.

import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { listen, readableFrom } from '../../lib/index.ts'
import { compileC } from '../support/c.ts'
import { temporaryFolder } from '../support/folder.ts'
import { missing } from '../support/missing.ts'
import { run } from '../support/processes.ts'

const skip = missing('cc')

const program = skip ? '' : compileC(temporaryFolder(t), 'test/peers/unp.c')

/** Starts the peer, which connects to us. */
async function peer(t: Test, role: string, ...args: string[]) {
  const listener = await listen(join(temporaryFolder(t), 's'))
  t.teardown(() => listener.close())
  const end = run(t, [program, role, listener.path, ...args])
  const { value: conn } = await listener[Symbol.asyncIterator]().next()
  if (!conn) throw new Error('Expected a connection')
  t.teardown(() => conn.close())
  return { conn, end }
}

async function contents(fd: number): Promise<string> {
  let text = ''
  for await (const chunk of readableFrom(fd)) text += chunk
  return text
}

function fileIn(t: Test, text: string): string {
  const file = join(temporaryFolder(t), 'file')
  writeFileSync(file, text)
  return file
}

t.test('recvFds() takes what write_fd sends', { skip }, async (t) => {
  const file = fileIn(t, 'the file')
  for (const bytes of ['x', 'any bytes', 'long'.repeat(2000)]) {
    const { conn, end } = await peer(t, 'write', file, bytes)
    const message = await conn.recvFds({ maxFds: 1 })
    t.equal(`${message?.data}`, bytes)
    t.equal(message?.fds.length, 1)
    t.equal(await contents(message?.fds[0] ?? -1), 'the file')
    t.match(await end, { code: 0 })
    t.equal(await conn.recvFds(), null, 'end of file')
  }
})

t.test('write_fd without a descriptor: fds is empty', { skip }, async (t) => {
  const { conn } = await peer(t, 'write', '-', 'alone')
  t.match(await conn.recvFds(), { data: Buffer.from('alone'), fds: [] })
})

t.test('read_fd takes what sendFds() sends', { skip }, async (t) => {
  const file = fileIn(t, 'the file')
  for (const bytes of ['x', 'any bytes', 'long'.repeat(1000)]) {
    const { conn, end } = await peer(t, 'read')
    const fd = openSync(file, 'r')
    await conn.sendFds(bytes, [fd])
    closeSync(fd)
    t.match(await end, {
      code: 0,
      stdout: `bytes ${bytes}\nfd reads the file\n`,
    })
  }
})

t.test(
  'sendFds() without a descriptor: read_fd says -1',
  {
    skip,
  },
  async (t) => {
    const { conn, end } = await peer(t, 'read')
    await conn.sendFds('alone', [])
    t.match(await end, { code: 0, stdout: 'bytes alone\nfd -1\n' })
  },
)

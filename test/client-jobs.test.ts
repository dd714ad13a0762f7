// client.ts under a shell with job control: after Ctrl-Z, and in the
// background, what is typed is for the shell, and for the server after `fg`.

import { type Test, t } from 'tap'

import { openFds, settledFds } from './support/descriptors.ts'
import { isStopped, script, startServer } from './support/processes.ts'
import { noTerminal, terminal } from './support/terminal.ts'
import { until } from './support/waiting.ts'

async function start(t: Test) {
  const { path, server } = await startServer(t)
  const { shell, type } = await terminal(t)
  // The answers of the shell differ from what is typed, which is echoed.
  const typeLines = async (from: number): Promise<void> => {
    for (let i = from; i < from + 10; i++) type(`echo typed-$((${i} + 1000))\n`)
    for (let i = from; i < from + 10; i++)
      await shell.printed(new RegExp(`typed-${1000 + i}`))
  }
  const command = script('client.ts', path).join(' ')
  return { server, shell, type, typeLines, command }
}

const RECEIVED = (client: number): RegExp =>
  new RegExp(`client ${client}: fd \\d+ here, fd 0 there: terminal`)

t.test(
  'Ctrl-Z gives the terminal back, fg lends it anew',
  noTerminal,
  async (t) => {
    const { server, shell, type, typeLines, command } = await start(t)
    const before = await settledFds(server.pid)
    type(`${command}\n`)
    for (let round = 1; round <= 3; round++) {
      await server.printed(RECEIVED(round))
      type(`for the server ${round}\n`)
      await server.printed(
        new RegExp(`client ${round}> for the server ${round}`),
      )
      type('\x1a')
      await shell.printed(new RegExp(`(Stopped[^]*){${round}}`))
      // The client stops after a second if the server is slower than that.
      await server.printed(
        new RegExp(`client ${round}: hung up, its input is closed\n`),
      )
      await until(
        'as many descriptors in the server as before the client came',
        () => openFds(server.pid).length === before.length,
      )
      await typeLines(100 * round)
      type('fg\n')
    }
    await server.printed(RECEIVED(4))
    type('the last\n\x04')
    await shell.printed(/Server: End of input/)
    await server.printed(/client 4: End of input\n/)
    t.notMatch(server.stdout, 'typed-', 'the server saw nothing of the rest')
  },
)

t.test('& waits for the foreground', noTerminal, async (t) => {
  const { server, shell, type, typeLines, command } = await start(t)
  type(`${command} & echo pid-$!-\n`)
  const [, pid = ''] = await shell.printed(/pid-(\d+)-/)
  await until('a client that is stopped', () => isStopped(pid))
  await typeLines(100)
  type('bg\n')
  await typeLines(200)
  t.notMatch(server.stdout, 'connected', 'nothing was lent')
  type('fg\n')
  await server.printed(RECEIVED(1))
  type('for the server\n')
  await server.printed(/client 1> for the server\n/)
  type('\x03')
  await server.printed(/client 1: hung up/)
  await typeLines(300)
  t.notMatch(server.stdout, 'typed-')
})

t.test(
  'Ctrl-Z does not wait for a server that is stopped',
  noTerminal,
  async (t) => {
    const { server, shell, type, typeLines, command } = await start(t)
    type(`${command}\n`)
    await server.printed(RECEIVED(1))
    process.kill(server.pid, 'SIGSTOP')
    await until('a server that is stopped', () => isStopped(server.pid))
    type('\x1a')
    await shell.printed(/Stopped/)
    await typeLines(100)
    process.kill(server.pid, 'SIGCONT')
    await server.printed(/client 1: hung up/)
    t.notMatch(server.stdout, 'typed-')
  },
)

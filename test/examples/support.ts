// What the tests of the examples share beyond ../support/. Not a test itself.

import { once } from 'node:events'
import { type IncomingMessage, type RequestOptions, request } from 'node:http'
import { connect, createServer, type Socket } from 'node:net'
import { basename } from 'node:path'
import type { Test } from 'tap'

import { openFds } from '../support/descriptors.ts'
import { plainEnv, run, script } from '../support/processes.ts'
import { until } from '../support/waiting.ts'

/**
 * Waits until a process has no descriptor open but those of `before`: it closes
 * its end of a connection some time after the test has closed the other one.
 * What is gone since is the business of Node and of what loads TypeScript.
 */
export async function noMoreFds(
  t: Test,
  { pid }: { readonly pid: number },
  before: readonly string[],
): Promise<void> {
  let more: string[] = []
  const isClosed = (): boolean => {
    more = openFds(pid).filter((fd) => !before.includes(fd))
    return more.length === 0
  }
  await until('closed', isClosed).catch(() => {})
  t.strictSame(more, [], 'no descriptor leaked')
}

// Below what the kernel chooses from for port 0 and for clients
// (ip_local_port_range), and elsewhere in each process: between the probe and
// the use of a port another test file that runs meanwhile must not get it.
let lastPort = 10_000 + (process.pid % 200) * 100

/** A port that nobody has at the moment. A new one each time. */
export async function freePort(): Promise<number> {
  for (;;) {
    const probe = createServer().listen(++lastPort, '127.0.0.1')
    const isFree = await once(probe, 'listening').then(
      () => true,
      () => false,
    )
    if (!isFree) continue
    probe.close()
    await once(probe, 'close')
    return lastPort
  }
}

/** A TCP connection to this machine, closed at the end. */
export async function tcpSocket(
  t: Test,
  port: number,
  from = '127.0.0.1',
): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', localAddress: from })
  t.teardown(() => socket.destroy())
  await once(socket, 'connect')
  return socket
}

export type Client = { readonly socket: Socket; told: string }

/** A TCP client, and what it has been told so far. */
export async function dial(
  t: Test,
  port: number,
  from?: string,
): Promise<Client> {
  const socket = await tcpSocket(t, port, from)
  const client = { socket, told: '' }
  socket.setEncoding('utf8')
  socket.on('data', (text) => {
    client.told += text
  })
  return client
}

/** Waits until what a client has been told matches `pattern`. */
export async function hears(client: Client, pattern: RegExp): Promise<void> {
  while (!pattern.test(client.told)) {
    const data = once(client.socket, 'data')
    const end = once(client.socket, 'close').then(() => {
      if (pattern.test(client.told)) return
      throw new Error(`Expected ${pattern}, got ${client.told} and the end`)
    })
    await Promise.race([data, end])
  }
}

/** The answer to a GET request, to a port or a path. */
export async function get(where: number | string, options: RequestOptions) {
  const target =
    typeof where === 'number'
      ? { host: '127.0.0.1', port: where }
      : { socketPath: where }
  const asked = request({ ...target, agent: false, ...options }).end()
  const [response] = (await once(asked, 'response')) as [IncomingMessage]
  let body = ''
  for await (const chunk of response) body += chunk
  return { body, headers: response.headers }
}

/**
 * That a script tells its usage, the same as with --help, on stderr, and exits
 * 2, with each of these `wrong` command lines.
 */
export async function tellsUsage(
  t: Test,
  file: string,
  ...wrong: readonly (readonly string[])[]
): Promise<void> {
  const help = await run(t, script(file, '--help'))
  for (const args of wrong) {
    const result = await run(t, script(file, ...args))
    t.match(result, { code: 2, stdout: '' }, `${file} ${args.join(' ')}`)
    const [line = '', ...usage] = result.stderr.split('\n')
    t.ok(line.startsWith(`${basename(file)}: `), line)
    t.equal(usage.join('\n'), help.stdout)
  }
}

/**
 * Expectations of scripts that end at once: of the exit code, and of what they
 * print, on stdout if the code is 0 and on stderr if not.
 */
export function expecting(t: Test) {
  return async (
    file: string,
    args: readonly string[],
    code: number,
    text: RegExp,
    env: NodeJS.ProcessEnv = plainEnv(),
  ): Promise<void> => {
    const result = await run(t, script(file, ...args), { env })
    t.equal(result.code, code, `${file} ${args.join(' ')}`)
    t.match(code === 0 ? result.stdout : result.stderr, text)
  }
}

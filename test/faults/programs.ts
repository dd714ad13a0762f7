// Whom faults happen to: each server of the project with a client that talks to
// it, and the clients that are scripts. To add an example is to add an entry.
// Used by ../faults.ts; test/examples.ts shows the same programs as users do.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { echo, get, talk } from './clients.ts'
import type { Place } from './place.ts'
import type { Run } from './run.ts'

export type Script = {
  readonly args: readonly string[]
  readonly input?: string
}

export type Scenario = {
  /** Started in this order. */
  readonly servers: readonly {
    readonly file: string
    readonly args: (place: Place) => readonly string[]
    readonly ready: RegExp
  }[]
  /** Which of them faults happen to: the last, if not said. */
  readonly target?: number
  readonly before?: (place: Place) => void
  /** What the client, or a server, prints: each exactly once. */
  readonly payload: (token: string) => readonly string[]
} & (
  | {
      /** A script as the client: faults happen to it as well. */
      readonly file: string
      readonly script: (place: Place, token: string) => Script
    }
  | {
      /** A client within this process. */
      readonly talk: (place: Place, token: string, ms: number) => Promise<Run>
    }
)

const lines = (token: string) => [1, 2, 3].map((n) => `${token} line ${n}\n`)
const typed = (token: string) => lines(token).join('')
const example = (file: string) => `examples/${file}.ts`
const ready = /[Rr]eady/
const uid = process.getuid?.()
const user = uid === 0 ? ['-u', '65534'] : []

const onSocket = (file: string) => [
  { file, args: ({ socket }: Place) => [socket], ready },
]

const container = {
  file: example('idle-container/container'),
  args: ({ socket }: Place) => [socket],
  ready,
}
const front = {
  file: example('idle-container/front'),
  args: ({ socket, port }: Place) => ['-p', port, '-i', '0.1', socket],
  ready: /Container on/,
}
const parking = {
  talk: ({ port }: Place, token: string, ms: number) => talk(port, token, ms),
  payload: (token: string) => [`1: ${token}\n`, '2: again\n'],
}

export const scenarios: readonly Scenario[] = [
  {
    servers: onSocket('server.ts'),
    file: 'client.ts',
    script: ({ socket }, token) => ({ args: [socket], input: typed(token) }),
    payload: (token) => lines(token).map((line) => `> ${line}`),
  },
  {
    servers: onSocket(example('stdout/server')),
    file: example('stdout/client'),
    script: ({ socket }) => ({ args: [socket] }),
    payload: () => ['displayed on client stdout'],
  },
  {
    servers: onSocket(example('lend-stdout/server')),
    file: example('lend-stdout/client'),
    script: ({ socket }, token) => ({ args: [socket], input: typed(token) }),
    payload: lines,
  },
  {
    servers: onSocket(example('two-files/server')),
    file: example('two-files/client'),
    script: ({ socket, folder }, token) => {
      // A file of its own for each client: the server may still read those of
      // the client before.
      const files = ['one', 'two'].map((name) => {
        const file = join(folder, `${token}${name}`)
        writeFileSync(file, `${token} in ${name}\n`)
        return file
      })
      return { args: ['-s', socket, ...files] }
    },
    payload: (token) => [`${token} in one\n`, `${token} in two\n`],
  },
  {
    servers: [
      {
        file: example('port-broker/server'),
        args: ({ folder, socket }) => [join(folder, 'rules.json'), socket],
        ready,
      },
    ],
    before: ({ folder }) => {
      const rule = { uid, ports: ['1-65535'], addresses: ['127.0.0.1'] }
      writeFileSync(join(folder, 'rules.json'), JSON.stringify([rule]))
    },
    file: example('port-broker/client'),
    script: ({ socket, port }, token) => {
      const command = ['sh', '-c', `echo ${token} $LISTEN_FDS`]
      return { args: ['-s', socket, port, ...command] }
    },
    payload: (token) => [`${token} 1\n`],
  },
  {
    servers: [
      {
        file: example('file-broker/server'),
        args: ({ folder, socket }) => [join(folder, 'files'), socket],
        ready,
      },
    ],
    before: ({ folder }) => mkdirSync(join(folder, 'files')),
    file: example('file-broker/client'),
    script: ({ folder, socket }, token) => {
      writeFileSync(join(folder, 'files', 'a'), typed(token))
      return { args: ['-s', socket, 'a'] }
    },
    payload: lines,
  },
  {
    servers: [
      {
        file: example('fd-factory/server'),
        args: ({ port }) => ['-p', port],
        ready,
      },
    ],
    file: example('fd-factory/client'),
    script: ({ port, freshPort }, token) => {
      const to = ['-A', '127.0.0.1', '-P', port]
      return { args: [...to, '-p', freshPort(), '-d', token, ...user] }
    },
    // Once at the server, which echoes it, and once at the client.
    payload: (token) => [`, received "${token}".`, `Received "${token}".`],
  },
  {
    servers: [],
    file: example('socketpair/parent'),
    script: () => ({ args: [] }),
    payload: () => ["the child's other offset"],
  },
  {
    servers: [
      {
        file: example('socket-activation/activate'),
        args: ({ socket }) => ['-l', socket, '-a', '--inetd', 'cat'],
        ready,
      },
    ],
    talk: ({ socket }, token, ms) => echo(socket, typed(token), ms),
    payload: lines,
  },
  {
    servers: [
      {
        file: example('socket-activation/service'),
        args: ({ port }) => [port],
        ready,
      },
    ],
    talk: ({ port }, token, ms) =>
      get({ host: '127.0.0.1', port, path: `/${token}` }, ms),
    payload: (token) => [`/${token}\n`],
  },
  {
    servers: [
      {
        file: example('takeover/server'),
        args: ({ socket, other }) => ['-c', socket, '-l', other],
        ready,
      },
    ],
    talk: ({ other }, _token, ms) => get({ socketPath: other }, ms),
    payload: () => ['Hello from process'],
  },
  { servers: [container, front], target: 0, ...parking },
  { servers: [container, front], ...parking },
]

// Which tests are run for which file of lib/. The file of its name comes first,
// test/lib/x.test.ts for lib/x.ts; here are those that it needs besides, or
// instead. Fewer files take less time, and say more: a fault that only a far
// test sees is hard to find.

import { existsSync } from 'node:fs'

const MORE: Record<string, readonly string[]> = {
  'lib/libc.ts': ['ffi/trace'],
  'lib/message.ts': ['conn/limits'],
  'lib/msghdr.ts': ['message'],
  'lib/layouts.ts': ['cmsg'],
  'lib/conn/checks.ts': ['conn/seqpacket', 'conn/conn', 'conn/limits'],
  'lib/conn/limits.ts': ['conn/conn'],
  'lib/conn/sender.ts': ['conn/conn', 'conn/limits'],
  'lib/conn/receiver.ts': ['conn/seqpacket', 'conn/conn', 'conn/ahead'],
  'lib/conn/conn.ts': [
    'conn/seqpacket',
    'conn/closing',
    'conn/listener',
    'inheritance',
  ],
  'lib/conn/datagram.ts': ['conn/closing', 'inheritance'],
  'lib/conn/connect.ts': ['conn/listener', 'conn/seqpacket', 'conn/conn'],
  'lib/conn/listening.ts': ['conn/closing'],
  'lib/conn/listener.ts': ['conn/serve', 'conn/lingering', 'inheritance'],
  'lib/socket/calls.ts': [
    'socket/options',
    'socket/inet',
    'socket/unix',
    'wait/accept',
  ],
  'lib/socket/describe.ts': ['stream/describe'],
  'lib/socket/unix.ts': ['worker-descriptors', 'conn/listener', 'inheritance'],
  'lib/stream/stream.ts': ['stream/terminal', 'stream/open'],
  'lib/stream/open.ts': ['stream/stream'],
  'lib/stream/node-streams.ts': ['stream/open', 'stream/stream'],
  'lib/wait/epoll.ts': ['wait/watch'],
  'lib/wait/socket-watch.ts': ['wait/watch'],
  'lib/wait/listen-at.ts': ['conn/listener', 'wait/concurrent-starts'],
  'lib/ffi/runtime.ts': ['layouts'],
  'lib/ffi/ffi-rs.ts': ['libc'],
  'lib/ffi/node-ffi.ts': ['libc'],
}

/** Of these no samples are taken: their tests take five seconds and more. */
export const SLOW: readonly string[] = [
  'lib/layouts.ts',
  'lib/conn/checks.ts',
  'lib/conn/conn.ts',
  'lib/conn/connect.ts',
  'lib/conn/datagram.ts',
  'lib/conn/listener.ts',
  'lib/conn/receiver.ts',
  'lib/conn/sender.ts',
  'lib/conn/stream.ts',
  'lib/socket/calls.ts',
  'lib/socket/unix.ts',
  'lib/stream/node-streams.ts',
  'lib/stream/open.ts',
  'lib/stream/stream.ts',
  'lib/wait/accept.ts',
  'lib/wait/empty-read.ts',
  'lib/wait/epoll.ts',
  'lib/wait/listen-at.ts',
  'lib/wait/socket-watch.ts',
  'lib/wait/uv-poll.ts',
  'lib/wait/watch.ts',
]

/** What runs with node:ffi alone. */
const NODE_FFI = ['lib/ffi/node-ffi.ts', 'lib/wait/uv-poll.ts']

/** Test files for a file of lib/, and the engine with which they see it. */
export function testsFor(file: string): { tests: string[]; engine: string } {
  const names = [
    file.slice('lib/'.length, -'.ts'.length),
    ...(MORE[file] ?? []),
  ]
  return {
    tests: names
      .map((name) => `test/lib/${name}.test.ts`)
      .filter((test) => existsSync(test)),
    engine: NODE_FFI.includes(file) ? 'node' : 'ffi-rs',
  }
}

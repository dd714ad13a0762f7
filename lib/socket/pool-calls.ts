// Calls in libuv's pool that may never come back, such as a read of a file whose
// server does not answer. At process.exit() C waits for the threads of the pool,
// and so for ever; so the process then ends without that.
// Read next: lib/socket/unix.ts.

import { isMainThread } from 'node:worker_threads'

import { declare } from '../libc.ts'

// void _exit(int status)
export const _exit = declare('_exit', 'int', ['int'])

let underWay = 0
let isWatching = false

/**
 * Notes that a call in the pool begins.
 *
 * @returns to be called when it is over
 */
export function beginPoolCall(): () => void {
  if (!isWatching && isMainThread) {
    isWatching = true
    process.on('exit', endAtOnce)
  }
  underWay++
  return () => {
    underWay--
  }
}

// Those who listen to the same event behind this have their turn first.
function endAtOnce(code: number): void {
  if (underWay === 0) return
  const listeners = process.rawListeners('exit')
  try {
    for (const listener of listeners.slice(listeners.indexOf(endAtOnce) + 1)) {
      listener.call(process, code)
    }
  } finally {
    _exit(Number(process.exitCode ?? code))
  }
}

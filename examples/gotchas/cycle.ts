#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// Sockets that were sent through each other and then closed cannot be received
// any more. The kernel finds such a cycle and closes what is in it, but it
// looks only when some Unix socket is closed afterwards, by any process. Until
// then everything in it stays open. Open the kernel's net/unix/garbage.c beside
// it.

import { closeSync } from 'node:fs'

import { check, hasEnded, pair, send, until } from './gotcha.ts'

const [kept, given] = pair()
const [near, far] = pair()
// `far` waits in its own queue, and `given` with it.
send(near, 'x', [far, given])
for (const fd of [given, near, far]) closeSync(fd)

const [one, other] = pair()
for (const fd of [one, other]) closeSync(fd)
const collected = await until(() => hasEnded(kept))
check({
  claim: 'sockets sent in a cycle are closed when another socket is closed',
  expected: 'after another socket was closed: collected',
  observed: `after another socket was closed: ${collected ? 'collected' : 'open'}`,
})

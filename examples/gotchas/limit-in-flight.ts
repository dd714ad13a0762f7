#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// An ordinary user may have as many descriptors in flight as the sending
// process may have open (RLIMIT_NOFILE), counted over all of the user's
// sockets. One more is ETOOMANYREFS. Root may have any number. Open unix(7)
// beside it.

import { check, NULL, nameOf, pair, send } from './gotcha.ts'
import { withLimit } from './limited.ts'

const LIMIT = 100
const NOBODY = 65534
/** The kernel looks before it counts, so one more than the limit passes. */
const MOST = LIMIT + 1

withLimit(LIMIT, import.meta.filename)
// Root may have any number, so this goes on without root's rights.
if (process.getuid?.() === 0) process.seteuid?.(NOBODY)

const [near] = pair()
let sent = 0
let result = 1
while (result === 1 && sent <= 2 * LIMIT) {
  result = send(near, 'x', [NULL])
  if (result === 1) sent++
}
if (process.getuid?.() === 0) process.seteuid?.(0)
check({
  claim: `with a limit of ${LIMIT}, an ordinary user has at most so many in flight`,
  expected: `ETOOMANYREFS after at most ${MOST} descriptors`,
  observed: `${nameOf(result)} after ${sent <= MOST ? `at most ${MOST}` : sent} descriptors`,
})

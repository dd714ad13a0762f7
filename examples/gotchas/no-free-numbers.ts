#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A receiver that has no free numbers (RLIMIT_NOFILE) loses descriptors, and
// recvmsg does not fail: it returns the bytes, fewer descriptors and, in
// msg_flags, MSG_CTRUNC. Open recvmsg(2), getrlimit(2) beside it.

import { closeSync, openSync } from 'node:fs'

import { check, NULL, pair, receive, send } from './gotcha.ts'
import { withLimit } from './limited.ts'

// Node raises the limit for itself as far as it may: see limited.ts.
withLimit(100, import.meta.filename)

const [near, far] = pair()
send(near, 'x', [NULL, NULL, NULL])

const taken: number[] = []
try {
  for (;;) taken.push(openSync('/dev/null', 'r'))
} catch {
  // EMFILE: every number is taken. One becomes free again.
  closeSync(taken.pop() ?? -1)
}
const { data, fds = [], truncated } = receive(far) ?? {}
for (const fd of taken) closeSync(fd)
check({
  claim: 'a receiver without free numbers loses descriptors without an error',
  expected: '1 of 3 descriptors, 1 byte, MSG_CTRUNC true',
  observed:
    `${fds.length} of 3 descriptors, ${data?.length} byte, ` +
    `MSG_CTRUNC ${truncated}`,
})

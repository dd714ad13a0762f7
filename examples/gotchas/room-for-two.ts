#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// CMSG_SPACE rounds up to where the next header may begin. With room for one
// descriptor a receiver on a 64-bit system gets two, and no flag is set: it has
// to count what came. Open cmsg(3) beside it.

import { cmsgSpace } from '../../lib/index.ts'
import { check, NULL, pair, receive, send } from './gotcha.ts'

const [near, far] = pair()
send(near, 'x', [NULL, NULL])
const room = cmsgSpace(4)
const { fds = [], truncated } = receive(far, { room }) ?? {}
check({
  claim: `room for one descriptor (${room} bytes) is room for two`,
  expected: '2 descriptors, MSG_CTRUNC false',
  observed: `${fds.length} descriptors, MSG_CTRUNC ${truncated}`,
})

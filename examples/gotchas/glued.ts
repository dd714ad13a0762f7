#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A stream has no message boundaries. Bytes of several sends arrive in one
// recvmsg, but on Linux that ends after the bytes of a send with descriptors:
// those of two sends never arrive together. Open unix(7) beside it.

import { check, NULL, pair, receive, send, show } from './gotcha.ts'

const [near, far] = pair()
send(near, 'a')
send(near, 'b')
send(near, 'c', [NULL])
send(near, 'd')
check({
  claim: 'messages run together, never across a descriptor',
  expected: '"abc" with 1 descriptor, "d" with 0 descriptors',
  observed: [receive(far), receive(far)].map(show).join(', '),
})

#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// Bytes that were sent earlier and without a descriptor arrive in one piece
// with a later descriptor. So the bytes themselves have to say to which of them
// a descriptor belongs: see lib/conn/frames.ts.

import { check, NULL, pair, receive, send, show } from './gotcha.ts'

const [near, far] = pair()
send(near, 'request 1, request 2')
send(near, ', request 3', [NULL])
check({
  claim: 'bytes sent earlier arrive with a later descriptor',
  expected: '"request 1, request 2, request 3" with 1 descriptor',
  observed: show(receive(far)),
})

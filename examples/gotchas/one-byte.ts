#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// Descriptors go with a byte of data. On Linux sendmsg of a message without one
// returns 0, and nothing of it arrives. Open unix(7) beside it.

import { check, NULL, pair, receive, send } from './gotcha.ts'

const [near, far] = pair()
const sent = send(near, '', [NULL])
const arrived = receive(far)
check({
  claim: 'at least one byte must go along',
  expected: 'sendmsg 0, nothing arrives',
  observed: `sendmsg ${sent}, ${arrived ? 'something' : 'nothing'} arrives`,
})

#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// TCP carries no descriptors. On Linux sendmsg takes the control message all
// the same, sends the bytes without the descriptors, and returns the number of
// bytes: there is no error. Open tcp(7), cmsg(3) beside it.

import { check, NULL, receive, send, show, until } from './gotcha.ts'
import { tcpPair } from './tcp-pair.ts'

const [near, far] = tcpPair()
const sent = send(near, 'hello', [NULL])
let message: ReturnType<typeof receive>
await until(() => {
  message = receive(far)
  return message !== undefined
})
check({
  claim: 'sending descriptors over TCP seems to work',
  expected: 'sendmsg 5; "hello" with 0 descriptors',
  observed: `sendmsg ${sent}; ${show(message)}`,
})

#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// The first byte of a message carries its descriptors: a receiver that reads a
// header of one byte has them before it has read what they are for. After a
// short send, the remainder must go without them.

import { check, NULL, pair, receive, send, show } from './gotcha.ts'

const [near, far] = pair()
send(near, 'header', [NULL])
const observed = [receive(far, { bytes: 1 }), receive(far)].map(show).join(', ')
check({
  claim: 'the first byte carries the descriptors',
  expected: '"h" with 1 descriptor, "eader" with 0 descriptors',
  observed,
})

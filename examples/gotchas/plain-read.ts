#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A plain read(2) of the byte throws away the descriptors that came with it:
// the kernel closes them, and there is no error. Open unix(7), read(2) beside
// it.

import { readSync } from 'node:fs'

import { check, NULL, pair, receive, send } from './gotcha.ts'

const [near, far] = pair()
send(near, 'x', [NULL])
const read = readSync(far, Buffer.alloc(1))
const left = receive(far)
check({
  claim: 'a plain read throws descriptors away',
  expected: 'read 1 byte, nothing left to receive',
  observed: `read ${read} byte, ${left ? 'something' : 'nothing'} left to receive`,
})

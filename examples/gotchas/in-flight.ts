#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A descriptor in flight, sent and not yet received, keeps the open file
// description alive. Its sender may close it, hang up and end, and the file may
// be removed: the receiver still gets it. Open unix(7) beside it.

import {
  closeSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'

import { check, pair, receive, send, temporaryPath } from './gotcha.ts'

const path = temporaryPath('file')
writeFileSync(path, 'still here')
const file = openSync(path, 'r')

const [near, far] = pair()
send(near, 'x', [file])
for (const fd of [file, near]) closeSync(fd)
rmSync(path)

const { fds: [received = -1] = [] } = receive(far) ?? {}
check({
  claim: 'a descriptor in flight outlives its sender, and the file its name',
  expected: 'the file says "still here"',
  observed: `the file says "${readFileSync(received)}"`,
})

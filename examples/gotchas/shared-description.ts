#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// Both descriptors refer to one open file description. The offset and the
// status flags, such as O_NONBLOCK, are part of it, and so they are shared.
// Close-on-exec belongs to the number, and so it is not. Open open(2), fcntl(2)
// beside it.

import { openSync, readSync } from 'node:fs'
import { Socket } from 'node:net'

import { allocate, declare } from '../../lib/libc.ts'
import { check, fdInfo, pass } from './gotcha.ts'

const O_NONBLOCK = 0o4000
const O_CLOEXEC = 0o2000000

const file = openSync(import.meta.filename, 'r')
readSync(pass(file), Buffer.alloc(7))

// int pipe(int pipefd[2]), which sets neither of the two flags
const ends = allocate(8)
declare('pipe', 'int', ['pointer'])(ends.address)
const pipe = ends.bytes.readInt32LE(0)
const passed = pass(pipe)
const passedIsCloseOnExec = (fdInfo(passed).flags & O_CLOEXEC) !== 0
// To read from a pipe, Node makes its open file description non-blocking.
new Socket({ fd: passed }).unref()

const { flags } = fdInfo(pipe)
check({
  claim: 'offset and status flags are shared, close-on-exec is not',
  expected: 'offset 7, O_NONBLOCK true, close-on-exec false here, true there',
  observed:
    `offset ${fdInfo(file).offset}, ` +
    `O_NONBLOCK ${(flags & O_NONBLOCK) !== 0}, ` +
    `close-on-exec ${(flags & O_CLOEXEC) !== 0} here, ${passedIsCloseOnExec} there`,
})

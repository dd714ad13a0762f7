#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// close(2) of a descriptor that a stranger sent can block, for as long as the
// stranger chose: here a TCP socket with SO_LINGER whose peer reads no data. So
// the library turns SO_LINGER off before it closes what it does not deliver
// (closeReceived in lib/socket/unix.ts). Open socket(7), close(2) beside it.

import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

import { host } from '../../lib/layouts.ts'
import { allocate, check as checkCall, declare } from '../../lib/libc.ts'
import { check, pass, send, skip } from './gotcha.ts'
import { tcpPair } from './tcp-pair.ts'

const CLAIM = 'close(2) of what a stranger sent can block'
if (process.platform !== 'linux') skip(CLAIM, 'expected Linux')

const SO_LINGER = 13
const SECONDS = 1

// int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
const params = ['int', 'int', 'int', 'pointer', 'uint'] as const
const setsockopt = declare('setsockopt', 'int', params)

// The stranger sets SO_LINGER, sends until no more fits, and passes the socket.
const [near] = tcpPair()
const linger = allocate(8)
linger.bytes.writeInt32LE(1)
linger.bytes.writeInt32LE(SECONDS, 4)
const { SOL_SOCKET } = host.constants
const set = setsockopt(near, SOL_SOCKET, SO_LINGER, linger.address, 8)
checkCall('setsockopt', set)
// Under load the kernel delivers later: full is what stays full.
for (let full = 0; full < 20; full++) {
  while (send(near, 'x'.repeat(65536)) > 0) full = 0
  await sleep(10)
}
const received = pass(near)
closeSync(near)

const start = performance.now()
closeSync(received)
const seconds = (performance.now() - start) / 1000
check({
  claim: CLAIM,
  expected: `the last close took the ${SECONDS} s of SO_LINGER`,
  observed:
    seconds >= SECONDS * 0.9
      ? `the last close took the ${SECONDS} s of SO_LINGER`
      : `the last close took ${seconds.toFixed(3)} s`,
})

#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// Since Linux 6.16 a socket can refuse descriptors altogether: SO_PASSRIGHTS
// off on the receiving socket, and the sender gets EPERM. This is the only
// protection that lets nothing in (`refuseFds` of listen()). Open socket(7)
// beside it.

import { host } from '../../lib/layouts.ts'
import { allocate, declare } from '../../lib/libc.ts'
import {
  check,
  NULL,
  nameOf,
  pair,
  receive,
  send,
  show,
  skip,
} from './gotcha.ts'

const CLAIM = 'with SO_PASSRIGHTS off, the kernel refuses descriptors'
const SO_PASSRIGHTS = 83

// int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
const params = ['int', 'int', 'int', 'pointer', 'uint'] as const
const setsockopt = declare('setsockopt', 'int', params)

const [near, far] = pair()
const off = allocate(4)
const { SOL_SOCKET } = host.constants
const set = setsockopt(far, SOL_SOCKET, SO_PASSRIGHTS, off.address, 4)
if (set < 0) skip(CLAIM, `expected Linux 6.16, got ${nameOf(set)}`)

const refused = send(near, 'x', [NULL])
send(near, 'bytes alone')
check({
  claim: CLAIM,
  expected: 'EPERM; "bytes alone" with 0 descriptors',
  observed: `${nameOf(refused)}; ${show(receive(far))}`,
})

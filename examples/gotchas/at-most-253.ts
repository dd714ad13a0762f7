#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A message carries at most 253 descriptors on Linux (SCM_MAX_FD in the
// kernel's include/net/scm.h), 254 on macOS and FreeBSD. With one more nothing
// is sent.

import { host } from '../../lib/layouts.ts'
import { check, NULL, nameOf, pair, receive, send } from './gotcha.ts'

const most = host.maxFds
const [near, far] = pair()
const tooMany = send(near, 'x', Array<number>(most + 1).fill(NULL))
send(near, 'x', Array<number>(most).fill(NULL))
const { fds = [] } = receive(far) ?? {}
check({
  claim: `a message carries ${most} descriptors and not one more`,
  expected: `${most + 1}: EINVAL, ${most}: all arrive`,
  observed:
    `${most + 1}: ${nameOf(tooMany)}, ` +
    `${most}: ${fds.length === most ? 'all' : fds.length} arrive`,
})

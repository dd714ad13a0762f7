#!/usr/bin/env -S sh -c 'exec "${0%/*}/../../lib/script/run" "$0" "$@"'
// What has no room in the control buffer is closed by the kernel, and msg_flags
// says MSG_CTRUNC: whoever does not look at the flags has lost descriptors
// without an error. Choose the room yourself: --room BYTES. Open recvmsg(2)
// beside it.

import { parseArgs } from 'node:util'

import { cmsgLen } from '../../lib/index.ts'
import { check, NULL, pair, receive, send } from './gotcha.ts'

const SENT = 3

const { values } = parseArgs({
  options: { room: { type: 'string', default: '24' } },
})
const room = Number(values.room)
const fit = Math.max(0, Math.min(SENT, Math.floor((room - cmsgLen(0)) / 4)))

const [near, far] = pair()
send(near, 'x', Array<number>(SENT).fill(NULL))
const { fds = [], truncated } = receive(far, { room }) ?? {}
check({
  claim: `of ${SENT} descriptors, a control buffer of ${room} bytes keeps ${fit}`,
  expected: `${fit} descriptors, MSG_CTRUNC ${fit < SENT}`,
  observed: `${fds.length} descriptors, MSG_CTRUNC ${truncated}`,
})

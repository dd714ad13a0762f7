#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// The kernel closes the descriptors for which the control buffer has no room,
// and sets MSG_CTRUNC in msg_flags. A receiver that does not look at the flags
// loses descriptors without an error. Choose the room yourself: --room BYTES.
// Open recvmsg(2) beside it.

import { cmsgLen } from '../../lib/index.ts'
import { commandLine, help, numberOption } from '../../lib/script/cli.ts'
import { check, NULL, pair, receive, send } from './gotcha.ts'

const USAGE = `Usage: ./examples/gotchas/truncation.ts [--room BYTES]
Sends 3 descriptors to a receiver with that room for control messages (24).`

const SENT = 3
const MOST = 65536

const { values } = commandLine(
  USAGE,
  { options: { ...help, room: { type: 'string', default: '24' } } },
  [0, 0],
)
const room = numberOption(USAGE, 'BYTES', values.room, [0, MOST])
const fit = Math.max(0, Math.min(SENT, Math.floor((room - cmsgLen(0)) / 4)))

const [near, far] = pair()
send(near, 'x', Array<number>(SENT).fill(NULL))
const { fds = [], truncated } = receive(far, { room }) ?? {}
check({
  claim: `of ${SENT} descriptors, a control buffer of ${room} bytes keeps ${fit}`,
  expected: `${fit} descriptors, MSG_CTRUNC ${fit < SENT}`,
  observed: `${fds.length} descriptors, MSG_CTRUNC ${truncated}`,
})

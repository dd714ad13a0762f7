#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A socket-activated service gets its sockets from descriptor 3 on, and
// LISTEN_FDS says how many. In a Node that was not activated, number 3 belongs
// to Node itself: without a LISTEN_PID that names this process, LISTEN_FDS was
// meant for another one, and has to be ignored. Open sd_listen_fds(3) beside
// it.

import { spawnSync } from 'node:child_process'

import { check } from './gotcha.ts'

// A process that inherits 0, 1 and 2, and nothing else.
const script = "console.log(require('fs').readlinkSync('/proc/self/fd/3'))"
const env = { ...process.env, LISTEN_FDS: '1' }
const { stdout } = spawnSync(process.execPath, ['-e', script], { env })
const target = `${stdout}`.trim()
check({
  claim: "descriptor 3 may be Node's own, whatever LISTEN_FDS says",
  expected: 'descriptor 3 belongs to the event loop',
  observed: target.startsWith('anon_inode:')
    ? 'descriptor 3 belongs to the event loop'
    : `descriptor 3 is ${target}`,
})

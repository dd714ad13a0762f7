#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// The path of a socket is a file. It stays when its server is gone, and then
// neither bind nor connect succeeds. It has at most 107 bytes (103 on macOS and
// FreeBSD). Who may connect is decided by its permissions and those of its
// directory. Open unix(7), path_resolution(7) beside it.

import { chmodSync, closeSync } from 'node:fs'
import { dirname } from 'node:path'

import { connect } from '../../lib/index.ts'
import { host } from '../../lib/layouts.ts'
import { codeOf } from '../../lib/script/cli.ts'
import { bindTo, newSocket } from '../../lib/socket/unix.ts'
import { check, nameOf, temporaryPath } from './gotcha.ts'

const NOBODY = 65534

const path = temporaryPath()
const dead = newSocket()
bindTo(dead, path)
closeSync(dead)
const bound = nameOf(bindTo(newSocket(), path))
const stale = codeOf(await connect(path).catch((error) => error))

const long = `/${'x'.repeat(host.sockaddr_un.sun_path_size - 1)}`
const tooLong = codeOf(await connect(long).catch((error) => error))

// Root may search every directory, so for this step it is another user.
chmodSync(dirname(path), 0)
if (process.getuid?.() === 0) process.seteuid?.(NOBODY)
const hidden = codeOf(await connect(path).catch((error) => error))
process.seteuid?.(process.getuid?.() ?? 0)
chmodSync(dirname(path), 0o700) // so that it can be removed

check({
  claim: 'the path of a socket is a file that stays, and has permissions',
  expected:
    'left behind: bind EADDRINUSE, connect ECONNREFUSED; ' +
    'a byte too long: ENAMETOOLONG; closed directory: EACCES',
  observed:
    `left behind: bind ${bound}, connect ${stale}; ` +
    `a byte too long: ${tooLong}; closed directory: ${hidden}`,
})

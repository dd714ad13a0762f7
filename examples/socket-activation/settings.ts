// The command line of activate.ts, checked: its options are those of
// systemd-socket-activate(1), and where they differ the usage text says so.

import { canonicalAddress } from '../../lib/index.ts'
import {
  commandLine,
  cutAtCommand,
  help,
  messageOf,
  usageError,
} from '../../lib/script/cli.ts'

/** Most commands at once with --accept. */
export const MOST_INSTANCES = 64

const USAGE = `Usage: ./examples/socket-activation/activate.ts [OPTIONS] COMMAND...
Listens, waits for the first connection and starts COMMAND with the sockets
from descriptor 3 on. Ctrl-C ends it. Options as systemd-socket-activate's:
  -l, --listen ADDRESS  PORT (of 127.0.0.1), ADDR:PORT, [ADDR]:PORT, a path with
                        a slash, or @NAME (abstract: any local user may connect)
  -a, --accept          start a COMMAND for each connection, with that as 3; at
                        most ${MOST_INSTANCES} run at once, others are hung up on
  -d, --datagram        UDP instead of TCP; not for a path or @NAME, and no
                        --seqpacket: Unix sockets are stream sockets here
      --inetd           the socket is standard input and output, not 3
      --fdname NAMES    one for all sockets, or one each with colons between
  -E, --setenv NAME[=VALUE]  a variable for COMMAND, whose environment is new
Sockets that this was started with (LISTEN_FDS) come first, their names do not.
COMMAND gets the limit of descriptors (ulimit -n) that this was started with.`

const none: string[] = []

const options = {
  ...help,
  listen: { type: 'string', short: 'l', multiple: true, default: none },
  accept: { type: 'boolean', short: 'a', default: false },
  datagram: { type: 'boolean', short: 'd', default: false },
  inetd: { type: 'boolean', default: false },
  fdname: { type: 'string', multiple: true, default: none },
  setenv: { type: 'string', short: 'E', multiple: true, default: none },
} as const

export type Settings = {
  readonly addresses: readonly string[]
  readonly accept: boolean
  readonly datagram: boolean
  readonly inetd: boolean
  /** For LISTEN_FDNAMES: one for each socket that COMMAND gets. */
  readonly names: readonly string[] | undefined
  /** `NAME=VALUE`, or `NAME` to keep ours. */
  readonly setenv: readonly string[]
  readonly command: readonly string[]
}

/**
 * What the command line asks for; exits 2 if that makes no sense.
 *
 * @param passed how many sockets there are besides those to be opened
 */
export function settings(passed: number): Settings {
  const { args, command } = cutAtCommand(options)
  const { values } = commandLine(USAGE, { args, options }, [0, 0])
  const { accept, datagram, inetd, setenv } = values
  try {
    const addresses = values.listen.map(canonicalAddress)
    const sockets = passed + addresses.length
    if (command[0] === undefined) throw new Error('Expected COMMAND, got none')
    // env(1), which starts it, would take this for a variable.
    if (command[0].includes('='))
      throw new Error(`Expected COMMAND without '=', got ${command[0]}`)
    if (sockets === 0)
      throw new Error('Expected -l ADDRESS, or sockets passed in, got none')
    if (accept && datagram)
      throw new Error('Expected --accept or --datagram, got both')
    if (inetd && !accept && sockets > 1)
      throw new Error(`Expected one socket with --inetd, got ${sockets}`)
    if (datagram) checkDatagram(addresses)
    checkSettings(setenv)
    const names = namesFor(accept ? 1 : sockets, values.fdname)
    return { addresses, accept, datagram, inetd, names, setenv, command }
  } catch (error) {
    return usageError(USAGE, messageOf(error))
  }
}

function checkDatagram(addresses: readonly string[]): void {
  const unix = addresses.find((address) => /[/@]/.test(address))
  if (unix !== undefined)
    throw new Error(`Expected PORT or ADDR:PORT with --datagram, got ${unix}`)
}

// The variables of the protocol describe the sockets that COMMAND is given. One
// that was kept from an activator of ours would describe others.
function checkSettings(settings: readonly string[]): void {
  for (const setting of settings) {
    if (!/^\w+(=|$)/.test(setting))
      throw new Error(`Expected -E NAME or NAME=VALUE, got ${setting}`)
    if (/^LISTEN_(PID|PIDFDID|FDS|FDNAMES)(=|$)/.test(setting))
      throw new Error(`Expected -E without LISTEN_ variables, got ${setting}`)
  }
}

function namesFor(
  count: number,
  options: readonly string[],
): readonly string[] | undefined {
  if (options.length === 0) return undefined
  const names = options.flatMap((names) => names.split(':'))
  // As sd_is_socket's callers may rely on: fdname_is_valid in systemd.
  const wrong = names.find((name) => !/^[ -~]{0,255}$/.test(name))
  if (wrong !== undefined)
    throw new Error(`Expected --fdname in ASCII, at most 255, got ${wrong}`)
  const [only = ''] = names
  if (names.length === 1) return Array<string>(count).fill(only)
  if (names.length === count) return names
  const expected = count === 1 ? '1 name' : `1 or ${count} names`
  throw new Error(`Expected ${expected} in --fdname, got ${names.length}`)
}

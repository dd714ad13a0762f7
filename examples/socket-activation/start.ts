// How a program gets sockets at its start: the giving half of the contract, of
// which listen-fds.ts is the taking half. Used by activate.ts. Nothing is sent:
// a child inherits the descriptors that its parent lets it have, and they stay
// open across execve(2). Open sd_listen_fds(3) and fcntl(2), F_SETFL, with it.
//
// New here: descriptors by inheritance, under numbers that both sides know.

import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { constants } from 'node:os'

export type Launch = {
  /** All that the command gets, besides LISTEN_PID and LISTEN_FDS. */
  readonly env: NodeJS.ProcessEnv
  /** The sockets. They remain the caller's, who closes them. */
  readonly fds: readonly number[]
  /** Instead of 3, the first is 0 and 1, without variables: inetd(8). */
  readonly inetd: boolean
}

/**
 * Starts `command` with `fds` as its descriptors 3, 4 and so on. They can be
 * closed here once this returns. The child has no others of ours: all are
 * close-on-exec.
 *
 * LISTEN_PID has to be the pid of the command, which is known only once that
 * process exists. So the shell that becomes the command fills it in: by way of
 * env(1), because a shell adds variables of its own, such as PWD.
 *
 * @throws Error EAGAIN, EMFILE, ENFILE, ENOMEM
 */
export function start(
  command: readonly string[],
  { env, fds, inetd }: Launch,
): ChildProcess {
  for (const fd of fds) makeBlocking(fd)
  const limit = startingLimit()
  const lower = limit === undefined ? '' : `ulimit -S -n ${limit}; `
  const claim = inetd ? '' : `LISTEN_PID=$$ LISTEN_FDS=${fds.length}`
  const variables = Object.entries(env).map((pair) => pair.join('='))
  const script = `${lower}exec env -i ${claim} "$@"`
  return spawn('sh', ['-c', script, 'sh', ...variables, ...command], {
    stdio: inetd
      ? [fds[0], fds[0], 'inherit']
      : ['inherit', 'inherit', 'inherit', ...fds],
  })
}

// Services expect accept(2) and read(2) to wait. But a connection that was
// accepted here is O_NONBLOCK, and so is a Unix socket that was opened here.
// That flag belongs to the open file description, and so to every descriptor of
// it. To clear it with fcntl(2) takes variable arguments, which lib/libc.ts
// avoids. But Node makes the descriptors 0 to 2 of a child blocking before the
// child runs. So a child that runs `true` gets our socket as descriptor 0; when
// spawn() returns, the socket is blocking.
function makeBlocking(fd: number): void {
  const child = spawn('true', { stdio: [fd, 'ignore', 'ignore'] })
  child.on('error', () => {}) // thrown below
  if (child.pid === undefined)
    throw new Error(`Expected to start 'true', for descriptor ${fd} to block`)
}

/**
 * The soft limit of descriptors that this process was started with. Node raises
 * its own to the hard limit as it starts, and a command with select(2) in it
 * could then get a descriptor beyond FD_SETSIZE. So the first line of
 * activate.ts has the shell note it, before there is a Node; where Node was
 * called directly, the limit of the process that did so is as good as known.
 */
function startingLimit(): string | undefined {
  const noted = process.env.SOFT_NOFILE ?? softLimitOf(process.ppid)
  return noted?.match(/^(\d+|unlimited)$/)?.[0]
}

// getrlimit(2) tells only ours; this is Linux. See proc(5).
function softLimitOf(pid: number): string | undefined {
  try {
    const limits = readFileSync(`/proc/${pid}/limits`, 'utf8')
    return /^Max open files +(\S+)/m.exec(limits)?.[1]
  } catch {
    return undefined
  }
}

/**
 * Resolves when the command has ended, with its exit status as a shell has it:
 * 127 for a command that was not found, 128 + n for signal n.
 *
 * @throws Error if it could not be started
 */
export function exitOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => {
      resolve(code ?? 128 + (signal ? constants.signals[signal] : 0))
    })
  })
}

/**
 * The environment of a command: as clean as under systemd, so that nothing
 * works here that would fail there.
 *
 * @param settings `NAME=VALUE`, or `NAME` to keep ours
 * @param names of the sockets, for LISTEN_FDNAMES
 */
export function environment(
  settings: readonly string[],
  names: readonly string[] | undefined,
): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = {}
  const kept = ['TERM', 'COLORTERM', 'NO_COLOR', 'PATH', 'USER', 'HOME']
  for (const setting of [...kept, ...settings]) {
    const [name = ''] = setting.split('=', 1)
    const isKept = name === setting
    const value = isKept ? process.env[name] : setting.slice(name.length + 1)
    if (value !== undefined) env[name] = value
  }
  if (names !== undefined) env.LISTEN_FDNAMES = names.join(':')
  return env
}

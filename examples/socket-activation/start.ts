// How a program gets sockets at its start: the giving half of the contract, of
// which listen-fds.ts is the taking half. Used by activate.ts. Nothing is sent:
// a child inherits the descriptors that its parent lets it have, and they stay
// open across execve(2). Open sd_listen_fds(3) and fcntl(2), F_SETFL, with it.
//
// New here: descriptors by inheritance, under numbers that both sides know.

import { type ChildProcess, spawn } from 'node:child_process'
import { constants } from 'node:os'

/**
 * Starts `command` with `fds` as its descriptors 3, 4 and so on. They remain
 * the caller's, who closes them once this returns. The child has no others of
 * ours: all are close-on-exec.
 *
 * LISTEN_PID has to be the pid of the command, which nobody knows before there
 * is one. So it is filled in by the shell that becomes the command.
 */
export function start(
  command: readonly string[],
  env: NodeJS.ProcessEnv,
  fds: readonly number[],
): ChildProcess {
  for (const fd of fds) makeBlocking(fd)
  const fill = 'export LISTEN_PID=$$; exec "$@"'
  return spawn('sh', ['-c', fill, 'sh', ...command], {
    env: { ...env, LISTEN_FDS: String(fds.length) },
    stdio: ['inherit', 'inherit', 'inherit', ...fds],
  })
}

// Services expect accept(2) and read(2) to wait. But waiting for a client has
// set O_NONBLOCK, which belongs to the open file description, and so goes along
// with every descriptor of it. Clearing it with fcntl takes variable arguments,
// which lib/libc.ts avoids. But Node makes the descriptors 0 to 2 of a child
// blocking before the child runs: with our socket as descriptor 0 that does it,
// and `true` need do nothing.
function makeBlocking(fd: number): void {
  const child = spawn('true', { stdio: [fd, 'ignore', 'ignore'] })
  child.on('error', () => {}) // `sh` will fail for the same reason, and say so
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
  names: string | undefined,
): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = {}
  const kept = ['TERM', 'COLORTERM', 'NO_COLOR', 'PATH', 'USER', 'HOME']
  for (const setting of [...kept, ...settings]) {
    const [name = ''] = setting.split('=', 1)
    const isKept = name === setting
    env[name] = isKept ? process.env[name] : setting.slice(name.length + 1)
  }
  if (names !== undefined) env.LISTEN_FDNAMES = names
  return env
}

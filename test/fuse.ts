// The file system of peers/fuse.py, whose files hang or fail as those of a slow
// or hostile file server do. What it is asked, and answers, is in its header.
// Not a test itself.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

import { temporaryFolder } from './support/folder.ts'
import { missing } from './support/missing.ts'
import { plainEnv, Running } from './support/processes.ts'

/** The command that mounts the file system on `folder`. */
export function fuseCommand(folder: string): string[] {
  return ['python3', 'test/peers/fuse.py', folder]
}

/** A reason to skip if the file system cannot be mounted here, else false. */
export function missingFuse(): string | false {
  if (process.platform !== 'linux') return 'the file system is for Linux'
  if (process.getuid?.() !== 0) return 'only root can mount a file system'
  if (!existsSync('/dev/fuse')) return '/dev/fuse is missing'
  const tools = missing('python3')
  if (tools) return tools

  // Its input is at its end at once: it mounts, and unmounts.
  const folder = mkdtempSync(join(tmpdir(), 'fd-'))
  const [file = '', ...args] = fuseCommand(folder)
  const { status, stderr } = spawnSync(file, args, {
    env: plainEnv(),
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
  })
  rmdirSync(folder)
  if (status === 0) return false
  // All else is a fault of the program, which must not pass for a skip.
  const [refused] = /^(mount|open) E\w+/.exec(stderr) ?? []
  if (refused === undefined) throw new Error(stderr)
  return `FUSE is not permitted here: ${refused}`
}

/**
 * The file system, mounted on `folder`. `server` prints a file's name each time
 * that a call begins to hang in it: `await server.printed(/^hanging-read$/m)`.
 *
 * At the end of the test it is unmounted, and the calls that hang fail, also in
 * this process's thread pool. Until then process.exit() hangs, as it waits for
 * the pool. Never let a call hang in the main thread, which could then not end
 * the server.
 */
export async function startFuse(
  t: Test,
): Promise<{ folder: string; server: Running }> {
  const folder = temporaryFolder(t)
  const server = new Running(t, fuseCommand(folder))
  // Before `server` is killed, which could not unmount, and the folder removed.
  t.teardown(() => endFuse(server))
  await server.printed(/^ready$/m)
  return { folder, server }
}

/** Unmounts the file system, before the end of the test. */
export async function endFuse(server: Running): Promise<void> {
  server.child.stdin?.end()
  const { code, signal } = await server.exit
  if (code !== 0) {
    const got = `${code ?? signal}: ${server.stderr}`
    throw new Error(`Expected fuse.py to unmount and exit with 0, got ${got}`)
  }
}

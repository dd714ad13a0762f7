// Whether a program crashed, as far as its words and its end show. Used by
// session.ts.

import { mustOutlive } from './calls.ts'
import type { Run, Server } from './run.ts'
import type { Fault } from './trace.ts'

/** What a stack trace, an assertion or Node's own last words look like. */
const CRASH = /^\s+at .+:\d+:\d+|^node:internal|Assertion|FATAL ERROR/m

/**
 * Whether a server has said that something failed. Its client may have ended
 * well: in some of the protocols here it learns only that it was hung up on.
 */
export function tellsError({ stdout, recent }: Words): boolean {
  return /\bE[A-Z]{3,}\b|ERR_|\bExpected |Unsupported/.test(stdout + recent)
}

type Words = Pick<Server, 'stdout' | 'recent'>

// The line of a stack trace, or of a log, that says what it is about.
function brief(stderr: string): string {
  const lines = stderr.trim().split('\n')
  const found = lines.find((line) => /^\S*Error\b|Assertion/.test(line))
  return found ?? lines.at(-1) ?? ''
}

/** What is wrong, if the client or the server crashed or ended too soon. */
export function crashOf(
  { signal, hung, held, stderr }: Run,
  server: Pick<Server, 'stderr' | 'end'> | undefined,
  { call, errno }: Fault,
): string | undefined {
  const isClose = call === 'close'
  if (hung && !isClose) return 'HANG'
  if (held && !isClose)
    return 'LEAK: what the client had as its output stays open after its end'
  if ((signal && !hung) || CRASH.test(stderr))
    return `CRASH of the client: ${brief(stderr)}`
  if (server === undefined) return undefined
  const { end } = server
  // Node reads package.json by itself, and aborts if it cannot close it.
  if (isClose && server.stderr.includes('uv_fs_close')) return undefined
  if (end?.signal || CRASH.test(server.stderr))
    return `CRASH ${end?.signal ?? ''} ${brief(server.stderr)}`
  if (!end) return undefined
  if (server.stderr.trim() === '' || end.code !== 1)
    return `CRASH, exit ${end.code} without a word`
  if (!mustOutlive(call, errno)) return undefined
  return `ENDED, with every client: ${brief(server.stderr)}`
}

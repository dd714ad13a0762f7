// Tools, and parts of the kernel, that may be missing: reasons to skip a test. Not
// a test itself.

import { execFileSync } from 'node:child_process'
import { constants as os, release } from 'node:os'

import { declareOptional } from '../../lib/libc.ts'

/** A reason to skip if a tool is missing, else false: `{ skip: missing('cc') }`. */
export function missing(...tools: string[]): string | false {
  for (const tool of tools) {
    try {
      execFileSync('sh', ['-c', `command -v ${tool}`], { stdio: 'ignore' })
    } catch {
      return `${tool} is not installed`
    }
  }
  return false
}

/** A reason to skip if the kernel refuses no descriptors, else false. */
export function lacksPassRights(): string | false {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  const hasOption = major > 6 || (major === 6 && minor >= 16)
  if (process.platform === 'linux' && hasOption) return false
  return 'SO_PASSRIGHTS is missing: needs Linux 6.16'
}

/**
 * A reason to skip if the C library, or the kernel, does not have the call, else
 * false. With -1 for its first argument each of these fails, and does nothing.
 */
export function missingCall(
  name: 'pidfd_open' | 'preadv2' | 'statx',
): string | false {
  const params = ['int', 'int', 'int', 'int', 'int'] as const
  const result = declareOptional(name, 'int', params)(-1, 0, 0, 0, 0)
  return result === -os.errno.ENOSYS && `there is no ${name}(2)`
}

// Tools, and parts of the kernel, that may be missing: reasons to skip a test. Not
// a test itself.

import { execFileSync } from 'node:child_process'
import { release } from 'node:os'

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

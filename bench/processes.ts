// What a process costs, read from proc(5).

import { readdirSync, readFileSync } from 'node:fs'

/** The resident set, in KiB. */
export function residentSet(pid: number | undefined): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(status.match(/^VmRSS:\s+(\d+) kB$/m)?.[1])
}

/** CPU time of all threads, in ns: more exact than the ticks in PID/stat. */
export function cpuTime(pid: number | undefined): number {
  let ns = 0
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    try {
      const stat = readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8')
      ns += Number(stat.split(' ')[0])
    } catch {
      // The thread has ended since the folder was read.
    }
  }
  return ns
}

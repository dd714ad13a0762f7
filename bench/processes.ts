// What a process costs, read from proc(5).

import { readdirSync, readFileSync } from 'node:fs'

/** The resident set, in KiB. */
export function residentSet(pid: number | undefined): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(status.match(/^VmRSS:\s+(\d+) kB$/m)?.[1])
}

/**
 * CPU time of all threads of a process and of those that it has started, in ns:
 * more exact than the ticks in PID/stat. 0 for one that has ended.
 */
export function cpuTime(pid: number | string | undefined): number {
  let ns = 0
  for (const task of entriesOf(`/proc/${pid}/task`)) {
    const folder = `/proc/${pid}/task/${task}`
    ns += Number(textOf(`${folder}/schedstat`).split(' ')[0])
    const children = textOf(`${folder}/children`).split(' ')
    for (const child of children) if (child !== '') ns += cpuTime(child)
  }
  return ns
}

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return [] // The process has ended.
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return '' // The thread has ended since the folder was read.
  }
}

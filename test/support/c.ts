// What is C in the tests: functions that pretend to be of libc, and programs. Not
// a test itself.

import { execFileSync } from 'node:child_process'
import { join } from 'node:path'

import * as libc from '../../lib/libc.ts'

/** declare() of lib/libc.ts, which gives `call` for the function `name`. */
export function declaring(name: string, call: (...values: never[]) => number) {
  const declare = (...signature: Parameters<typeof libc.declare>): unknown =>
    signature[0] === name ? call : libc.declare(...signature)
  return { declare: declare as typeof libc.declare }
}

/** Compiles a C program into `folder` and returns the path of the executable. */
export function compileC(folder: string, source: string): string {
  const output = join(folder, 'program')
  execFileSync('cc', ['-Wall', '-Werror', '-o', output, source])
  return output
}

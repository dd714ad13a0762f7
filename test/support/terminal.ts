// A shell that has a terminal. Not a test itself.

import type { Test } from 'tap'

import { missing } from './missing.ts'
import { Running } from './processes.ts'

/** The reason to skip what needs terminal(), if there is one. */
export const noTerminal = { skip: missing('python3', 'sh') }

/** A shell under a pseudo-terminal of its own. What is typed is echoed. */
export async function terminal(t: Test) {
  const python = 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)'
  const shell = new Running(t, ['python3', '-c', python, 'sh'])
  const type = (text: string): void => {
    shell.child.stdin?.write(text)
  }
  // The quotes tell the answer from the echo.
  type("echo 'rea''dy'\n")
  await shell.printed(/ready/)
  return { shell, type }
}

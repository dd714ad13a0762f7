// What Node prints as a warning. Not a test itself.

import type { Test } from 'tap'

/** The warnings of this process, from the call to the end of the test. */
export function warningsOf(t: Test): Error[] {
  const warnings: Error[] = []
  const onWarning = (warning: Error): void => void warnings.push(warning)
  process.on('warning', onWarning)
  t.teardown(() => process.off('warning', onWarning))
  return warnings
}

// Folders with short paths for the tests. Not a test itself.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

/** A new folder, removed at the end. Socket paths in it are short enough. */
export function temporaryFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'fd-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

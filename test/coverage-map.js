// What has to be covered, completely: lib/, but for what does its work around a
// whole process. Scripts and examples run as children, as a user runs them, and
// are not counted.

import { readdirSync } from 'node:fs'

const uncounted = [
  'script/cli.ts',
  'script/job.ts',
  'ffi/trace.ts',
  'socket/pool-calls.ts',
]

// What runs with node:ffi alone. Both runs together are complete: one without,
// and one with FDPASS_FFI=node, in which these files are counted and no others.
const withNodeFfi = ['ffi/node-ffi.ts', 'wait/uv-poll.ts']
const usesNodeFfi = process.env.FDPASS_FFI === 'node'

const library = readdirSync(new URL('../lib/', import.meta.url), {
  recursive: true,
})
  .filter((file) => file.endsWith('.ts') && !uncounted.includes(file))
  .filter((file) => withNodeFfi.includes(file) === usesNodeFfi)
  .map((file) => `lib/${file}`)

export default () => library

// What has to be covered, completely: lib/, but for what does its work around a
// whole process. Scripts and examples run as children, as a user runs them, and
// are not counted.

import { readdirSync } from 'node:fs'

const uncounted = ['script/cli.ts', 'script/job.ts']

const library = readdirSync(new URL('../lib/', import.meta.url), {
  recursive: true,
})
  .filter((file) => file.endsWith('.ts') && !uncounted.includes(file))
  .map((file) => `lib/${file}`)

export default () => library

// What has to be covered, completely: lib/, but for what only scripts use.
// They and the examples run as children, as a user runs them, and are not
// counted.

import { readdirSync } from 'node:fs'

const library = readdirSync(new URL('../lib/', import.meta.url), {
  recursive: true,
})
  .filter((file) => file.endsWith('.ts') && file !== 'script/cli.ts')
  .map((file) => `lib/${file}`)

export default () => library

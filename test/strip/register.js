// Runs TypeScript in the tests, and in the scripts that they start:
//
//   node --import ./test/strip/register.js test/lib/cmsg.test.ts
//
// It takes a fifth of the time that tsx takes to start. And it replaces types by
// blanks, so that each line stays where it is, where tsx moves them: coverage
// would be that of other lines than those in the file. hooks.js does it.

import * as module from 'node:module'

// In a thread of their own, as Node 20 has no others, and as those of Node 22 do
// not get on with the runner's, which mock modules. Node 26 warns of that thread.
if (Number.parseInt(process.versions.node, 10) < 26) {
  module.register('./hooks.js', import.meta.url)
} else {
  module.registerHooks(await import('./hooks.js'))
}

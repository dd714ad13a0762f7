// Runs TypeScript in the tests, and in the scripts that they start:
//
//   node --import ./test/strip/register.js test/lib/cmsg.test.ts
//
// It takes a fifth of the time that tsx takes to start. And it replaces types by
// blanks, so that each line stays where it is, where tsx moves them: coverage
// would be that of other lines than those in the file. hooks.js does it.

import * as module from 'node:module'

// Node 20 has hooks in a thread of their own alone, of which Node 26 warns.
if (module.registerHooks) {
  module.registerHooks(await import('./hooks.js'))
} else {
  module.register('./hooks.js', import.meta.url)
}

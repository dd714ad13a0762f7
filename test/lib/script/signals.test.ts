// How a server ends, whoever ends it: Ctrl-C, a service manager, a terminal
// that is closed.

import { existsSync } from 'node:fs'
import { t } from 'tap'

import { startServer } from '../../support/processes.ts'

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  t.test(`a server that gets ${signal} leaves no socket file`, async (t) => {
    const { path, server } = await startServer(t)
    t.ok(existsSync(path))
    server.child.kill(signal)
    t.strictSame(await server.exit, { code: 0, signal: null })
    t.notOk(existsSync(path))
  })
}

// Runs a gotcha under a low limit of open descriptors. Node raises its soft
// limit to the hard one when it starts, so a shell lowers the hard one first.

import { spawnSync } from 'node:child_process'

/**
 * Returns if the limit holds already. Else starts `file` once more, in a shell
 * that has lowered the limit, and exits as it does.
 */
export function withLimit(limit: number, file: string): void {
  if (process.env.GOTCHA_LIMIT === String(limit)) return
  const shell = `ulimit -n ${limit} && exec "$@"`
  const node = [process.execPath, ...process.execArgv, file]
  const { status } = spawnSync('sh', ['-c', shell, 'sh', ...node], {
    // tsx would write its cache while the gotcha runs, which takes numbers.
    env: {
      ...process.env,
      GOTCHA_LIMIT: String(limit),
      TSX_DISABLE_CACHE: '1',
    },
    stdio: 'inherit',
  })
  process.exit(status ?? 1)
}

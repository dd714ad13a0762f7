#!/usr/bin/env bash
# Runs the tests with musl as the C library, on an x86-64 Debian: Debian's musl,
# and the Node for Alpine that is packed inside npm's @pnpm/linuxstatic-x64. No
# Node for musl is published by itself where npm and Debian reach.
# The C++ library is Debian's, made for glibc; musl-shim.c adds the few symbols
# that it misses. It is no part of what is tested. Arguments go to tap.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=$PWD/.cache/musl
ffi_rs=$(node -p 'require("ffi-rs/package.json").version')

if [ ! -e "$cache/ok" ]; then
  echo 'Fetching Node and ffi-rs for musl'
  modules=$cache/modules/@yuuang/ffi-rs-linux-x64-musl
  rm -rf "$cache" && mkdir -p "$cache"/{bin,lib} "$modules"
  if ! command -v musl-gcc >/dev/null; then
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends musl musl-tools gcc >/dev/null
  fi
  (cd "$cache" && npm pack --silent @pnpm/linuxstatic-x64@11.21.0 \
    "@yuuang/ffi-rs-linux-x64-musl@$ffi_rs")
  # One byte tells Node whether it carries an application; without, it is Node.
  tar xzOf "$cache"/pnpm-*.tgz package/pnpm |
    sed 's/\(NODE_SEA_FUSE_[0-9a-f]\{32\}\):1/\1:0/' >"$cache/bin/node"
  tar xzf "$cache"/yuuang-*.tgz -C "$modules" --strip-components=1
  ln -s /lib/ld-musl-x86_64.so.1 "$cache/lib/libc.musl-x86_64.so.1"
  cp -L /usr/lib/x86_64-linux-gnu/libstdc++.so.6 \
    /lib/x86_64-linux-gnu/libgcc_s.so.1 "$cache/lib"
  # The name is that of a library which Debian's libstdc++ asks for by itself.
  musl-gcc -O2 -shared -fPIC -Wl,-soname,ld-linux-x86-64.so.2 \
    test/platforms/musl-shim.c -o "$cache/lib/ld-linux-x86-64.so.2"
  chmod +x "$cache/bin/node"
  rm "$cache"/*.tgz
  touch "$cache/ok"
fi

export LD_LIBRARY_PATH=$cache/lib NODE_PATH=$cache/modules PATH=$cache/bin:$PATH
export DISABLE_V8_COMPILE_CACHE=1
node -p '`Node ${process.version}, ${process.report.getReport().header.glibcVersionRuntime ? "glibc" : "musl"}`'
# The library's own tests, unless told otherwise.
(($#)) || set -- test/lib
exec node node_modules/.bin/tap --disable-coverage "$@"

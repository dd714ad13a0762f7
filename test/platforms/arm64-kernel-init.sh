#!/bin/sh
# The first process of the virtual machine that arm64-kernel.sh starts: runs the
# test files that /files names, two at a time, and prints TAP on the console.
# With an argument: runs that file.

if [ $# = 1 ]; then
  log=$(mktemp)
  # In seconds, the first for tap itself, which says what was not done by then.
  if TAP_TIMEOUT=900 timeout 960 node --import tsx \
    --import @tapjs/mock/import --enable-source-maps "$1" \
    </dev/null >"$log" 2>&1; then ok='ok'; else ok='not ok'; fi
  # One file at a time, so that their lines do not mix.
  exec 9>/tmp/console.lock
  flock 9
  echo "# Subtest: $1"
  sed 's/^/    /' "$log"
  echo "$ok - $1"
  exit 0
fi

export PATH=/usr/bin:/usr/sbin
# As many descriptors as Debian lets a process have.
ulimit -Hn 1048576
mount -t devtmpfs devtmpfs /dev
mkdir /dev/pts
mount -t devpts devpts /dev/pts
mount -t proc proc /proc
mount -t sysfs sysfs /sys
busybox ip link set lo up
stty -onlcr </dev/console

echo 'TAP version 14'
echo "1..$(wc -l </files)"
echo "# $(uname -a)"
echo "# Node $(node --version)"
cd /fdpass
xargs -n 1 -P 2 "$0" </files
busybox poweroff -f

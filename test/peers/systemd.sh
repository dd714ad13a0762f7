#!/bin/sh
# Runs a command beside a systemd of its own: the manager of a user's services,
# which need not be process 1. It has control groups and mounts of its own, and
# touches nothing outside. Exits 77, with the reason, where it cannot be had.
#
#   test/peers/systemd.sh COMMAND [ARG...]

skip() {
  echo "$1" >&2
  exit 77
}

systemd=/lib/systemd/systemd
[ -x "$systemd" ] || skip 'systemd is not installed'
command -v unshare >/dev/null || skip 'unshare is not installed'
[ "$(id -u)" = 0 ] || skip 'only root can give systemd groups of its own'

# One folder in each hierarchy of control groups that takes a process.
group=fdpass-$$
folder=$(mktemp -d)
awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/mounts >"$folder/all"
remove() {
  while read -r root; do
    [ -d "$root/$group" ] || continue
    find "$root/$group" -depth -type d -exec rmdir {} \;
  done <"$folder/all" 2>/dev/null
  rm -rf "$folder"
}
trap remove EXIT
trap 'exit 1' INT TERM HUP

(
  pid=$(exec sh -c 'echo $PPID')
  while read -r root; do
    mkdir "$root/$group" || continue
    if echo "$pid" >"$root/$group/cgroup.procs"; then echo "$root"; fi
  done <"$folder/all" >"$folder/ours" 2>/dev/null
  [ -s "$folder/ours" ] || skip 'no control group can be made'
  exec unshare -C -m sh -c '
    folder=$1
    shift
    while read -r root; do
      if grep -qx "$root" "$folder/ours"; then mount --bind "$root/$0" "$root"
      else umount -l "$root"; fi
    done <"$folder/all"
    mount -t tmpfs tmpfs /run || exit 77
    export HOME="$folder" XDG_RUNTIME_DIR=/run/user/0
    mkdir -p -m 700 /run/systemd/system "$XDG_RUNTIME_DIR"
    /lib/systemd/systemd --user --unit=basic.target --log-target=console \
      </dev/null >"$folder/log" 2>&1 &
    systemd=$!
    until systemctl --user is-system-running 2>/dev/null |
      grep -qE "^(running|degraded)$"; do
      kill -0 "$systemd" 2>/dev/null || {
        echo "systemd does not run here:" $(cat "$folder/log") >&2
        exit 77
      }
      sleep 0.1
    done
    "$@"
    status=$?
    kill "$systemd"
    wait "$systemd"
    exit "$status"
  ' "$group" "$folder" "$@"
)

#!/usr/bin/env bash
# Usage: test/peers/window-shot.sh FILE.png
# Takes a picture of examples/wayland/window.ts, as it looks on a compositor
# without a screen that is exactly as large as the window. Needs weston.
set -euo pipefail
out=$(realpath "${1:?Expected FILE.png}")
cd "$(dirname "$0")/../.."

folder=$(mktemp -d)
touch "$folder/shown"
export XDG_RUNTIME_DIR=$folder WAYLAND_DISPLAY=window-shot
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$folder"' EXIT
printf '[shell]\npanel-position=none\n' >"$folder/weston.ini"
weston --backend=headless-backend.so --use-pixman --debug \
  --config="$folder/weston.ini" --socket="$WAYLAND_DISPLAY" \
  --width=640 --height=440 2>"$folder/log" &
until [ -S "$folder/$WAYLAND_DISPLAY" ]; do sleep 0.1; done

./examples/wayland/window.ts > >(tee "$folder/shown") &
window=$!
until grep -q '^Sending fd' "$folder/shown"; do
  kill -0 $window # else it has ended, and so does this script
  sleep 0.1
done
sleep 2 # some way into the animation
(cd "$folder" && weston-screenshooter)
mv "$folder"/*.png "$out"
kill -INT $window
wait $window

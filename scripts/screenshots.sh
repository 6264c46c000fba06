#!/usr/bin/env bash
# Pictures of the service's pages at three widths, light and dark, into out/screenshots: scripts/screenshots.sh PROGRAM [FOLDER]
# `make screenshots` builds the program first. Status 1 when a page does not come to show what it should.
set -euo pipefail
export LC_ALL=C
program=$1
folder=${2:-out/screenshots}
cd "$(dirname "$0")/.."
log=$(mktemp)
coproc SERVICE { exec "$program" serve --listen 127.0.0.1:0 --model builtin:invert 2> "$log"; }
service=$SERVICE_PID
trap 'kill "$service" 2> /dev/null || true; rm -f "$log"' EXIT
# The address is its last line before it serves.
address=
while read -r -t 60 line <&"${SERVICE[0]}"; do
  case $line in
    "open "*) address=${line#open }; break ;;
  esac
done
[ -n "$address" ] || { cat "$log" >&2; exit 1; }
node tests/browser/run.mjs screenshots "$address" "folder=$folder" > "$log.json" || { cat "$log.json" "$log" >&2; rm -f "$log.json"; exit 1; }
rm -f "$log.json"
echo "screenshots: $(find "$folder" -name '*.png' | wc -l) pictures in $folder"

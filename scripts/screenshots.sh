#!/usr/bin/env bash
# Pictures of the service's pages at three widths, light and dark, into out/screenshots: scripts/screenshots.sh PROGRAM [FOLDER]
# `make screenshots` builds the program first. Status 1 when a page does not come to show what it should.
set -euo pipefail
export LC_ALL=C
program=$1
folder=${2:-out/screenshots}
cd "$(dirname "$0")/.."
. scripts/service.sh "$program" serve --model builtin:invert
node tests/browser/run.mjs screenshots "$address" "folder=$folder" > "$log.json" || { cat "$log.json" "$log" >&2; exit 1; }
echo "screenshots: $(find "$folder" -name '*.png' | wc -l) pictures in $folder"

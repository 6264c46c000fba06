#!/usr/bin/env bash
# Glass to glass in a headless Chromium beside the service, each row for so many seconds: scripts/bench-web.sh PROGRAM
# [SECONDS]. Writes docs/measurements/web.json and a table on stdout. `make bench-web` sets up and builds first; let the
# machine do nothing else meanwhile.
set -euo pipefail
export LC_ALL=C
program=$1
seconds=${2:-60}
cd "$(dirname "$0")/.."
. scripts/service.sh "$program" serve --model builtin:invert --model models/cartoon.onnx

# Processor time of the service, in hundredths of a second.
spent() { awk '{ print $14 + $15 }' "/proc/$service/stat"; }

printf '%-12s %-6s %8s %8s %8s %6s %14s\n' model codec p50 p95 p99 fps 'service cores'
for model in passthrough invert cartoon; do
  for codec in VP8 H264; do
    before=$(spent)
    begin=$SECONDS
    row=$(node tests/browser/run.mjs glass "$address" "seconds=$seconds" "codec=$codec" "model=$model") || {
      printf '%s\n' "$row" >&2
      exit 1
    }
    cores=$(awk -v a="$before" -v b="$(spent)" -v s=$((SECONDS - begin)) 'BEGIN { printf "%.2f", (b - a) / 100 / s }')
    printf '%s' "$row" | node -e '
      const row = JSON.parse(require("fs").readFileSync(0, "utf8"));
      row.service_cores = Number(process.argv[1]);
      const { wanted, latency_ms: ms, fps } = row;
      const cells = [ms.p50, ms.p95, ms.p99, fps].map((value, n) => value.toFixed(n == 3 ? 1 : 0));
      console.error(JSON.stringify(row));
      console.log(wanted.model.padEnd(12), wanted.codec.padEnd(6), ...cells.map((cell, n) => cell.padStart(n == 3 ? 6 : 8)),
        String(row.service_cores).padStart(14));
    ' "$cores" 2>> "$log.rows"
  done
done
node -e '
  const rows = require("fs").readFileSync(0, "utf8").trim().split("\n").map((line) => JSON.parse(line));
  console.log(JSON.stringify({ size: "640x480", seconds: rows[0].seconds, rows }, null, 2));
' < "$log.rows" > docs/measurements/web.json

#!/usr/bin/env bash
# Measures everything that docs/PERFORMANCE.md states, and writes the figures there and to docs/measurements. Runs
# unattended, below 15 minutes; let the machine do nothing else meanwhile. `make bench` sets up and builds first.
#
# PARTS=cost,latency measures these parts alone: cost, efficiency, latency, conversion, relay, python.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
release=${CARGO_TARGET_DIR:-target}/release

# A registry of our own: the user's cache and an installed copy of the plugin decide nothing.
export GST_REGISTRY=$PWD/.work/gst-registry.bin
unset GST_PLUGIN_PATH GST_PLUGIN_PATH_1_0

command -v valgrind > /dev/null || {
  echo "bench: valgrind is missing; it counts the instructions (Debian: sudo apt-get install valgrind)" >&2
  exit 2
}
exec "$release/comfystream" bench --all --input .work/media/demo.mp4 ${PARTS:+--only "$PARTS"} < /dev/null

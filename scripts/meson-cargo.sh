#!/bin/sh
# meson-cargo.sh SOURCE BUILD OUTPUT... : builds once and puts the results where meson expects them.
# The target folder lies in meson's build folder, so that a packager's build leaves the sources untouched.
set -eu
source=$1 build=$2
shift 2
CARGO_TARGET_DIR=$build/cargo cargo build --manifest-path "$source/Cargo.toml" --release --locked \
  --package gst-plugin-comfy --package gst-plugin-trickle --package comfystream --package trickle-relay
for output in "$@"; do
  cp "$build/cargo/release/$(basename "$output")" "$output"
done

#!/bin/sh
# meson-onnxruntime.sh SOURCE OUTPUT... : fetches ONNX Runtime if need be and copies its files into meson's build folder.
set -eu
source=$1
shift
"$source/scripts/setup.sh" onnxruntime
for output in "$@"; do
  cp "$source/.work/onnxruntime/$(basename "$output")" "$output"
done

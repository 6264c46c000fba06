#!/usr/bin/env bash
# Measures both sides in one run, ratios being what counts: the Python path a user has today, then comfystream on the
# same models, frames and threads. Reports go to out/bench. `make bench` sets up and builds first.
#
# FRAMES=300 BATCHES=1,2,4 THREADS=2 choose how much and how.
set -euo pipefail
cd "$(dirname "$0")/.."
out=out/bench
raw=.work/media/demo-640x360.rgb
size=640x360
frames=${FRAMES:-300}
batches=${BATCHES:-1,2,4}
threads=${THREADS:-$(nproc)}
release=${CARGO_TARGET_DIR:-target}/release
mkdir -p "$out"

if [ ! -f "$raw" ] || [ .work/media/demo.mp4 -nt "$raw" ]; then
  ffmpeg -nostdin -v error -y -i .work/media/demo.mp4 -frames:v 64 -pix_fmt rgb24 -f rawvideo "$raw"
fi

for model in invert invert-u8 cartoon style; do
  for style in plain tuned; do
    echo "python: $model, $style"
    .work/venv/bin/python tests/benches/python/baseline.py --model "models/$model.onnx" --raw "$raw" --size "$size" \
      --batch "$batches" --frames "$([ "$model" = style ] && echo $((frames / 5)) || echo "$frames")" \
      --threads "$threads" --style "$style" --json "$out/python-$model-$style.json"
  done
done

echo "comfystream"
"$release/comfystream" bench --raw "$raw" --size "$size" --batch "$batches" --frames "$frames" --threads "$threads" \
  --python "$out" --out "$out"

#!/usr/bin/env bash
# What needs an NVIDIA GPU: the tests of it, and the measurements for docs/PERFORMANCE.md.
#
#   scripts/gpu.sh bench [OPTION...]   on a machine with a GPU: measure, and write docs (options of `comfy-gpu-bench run`)
#   scripts/gpu.sh test  [FILTER...]   on a machine with a GPU: the tests behind feature `gpu`; they fail without one
#   scripts/gpu.sh pack  [FOLDER]      on any machine: what a machine with a GPU needs that has no network, no compiler
#                                      and no GStreamer, in pieces of at most 62 MiB (default: out/gpu)
#   scripts/gpu.sh try                 on any machine: everything at once in tiny sizes, on a simulated device
#
# Nothing of NVIDIA's is fetched, committed or packed. CUDA 13 and cuDNN 9 are taken from where PyTorch's own packages
# have put them (nvidia-cublas, nvidia-cudnn-cu13 and so on), or from the system. TORCH_PYTHON names a Python with torch,
# diffusers, onnx and onnxruntime (default: python3); without one, models that take no picture and the figures of
# PyTorch are left out. ENGINE and ENGINE_MODEL name a compiled TensorRT engine and the ONNX file that it was made of.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
here=$PWD
target=${CARGO_TARGET_DIR:-$here/target}
python=${TORCH_PYTHON:-python3}

say() { printf 'gpu: %s\n' "$*" >&2; }
stop() { say "$@"; exit 2; }

# What the pieces' own script needs, too: it is part of the pack.
# shellcheck source=scripts/gpu-libraries.sh
. scripts/gpu-libraries.sh

runtime() {
  scripts/setup.sh onnxruntime-gpu
  ORT_DYLIB_PATH=$(compgen -G "$here/.work/onnxruntime-gpu/libonnxruntime.so.*" | head -n1) ||
    stop "ONNX Runtime's GPU build is not there: scripts/setup.sh onnxruntime-gpu"
  export ORT_DYLIB_PATH
}

commit() { git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown; }

build() {
  COMFY_COMMIT=$(commit) cargo build --release --locked -p comfy-gpu-bench "$@"
}

# The file of comfy-core's unit tests with feature `gpu`.
test_program() {
  cargo test --release --locked -p comfy-core --lib --features gpu --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n1
}

bench() {
  runtime
  cuda_libraries "$python"
  build
  # First of all, since the models take minutes.
  "$target/release/comfy-gpu-bench" device >&2
  local options=(run) models=$here/.work/gpu-models
  if has_torch "$python"; then
    "$python" scripts/gpu_models.py --out "$models"
    options+=(--models "$models" --python "$(command -v "$python")")
  else
    say "$python has no torch and diffusers, so that the UNet, TAESD and PyTorch's own figures are left out (TORCH_PYTHON=...)"
  fi
  [ -z "${ENGINE:-}" ] || options+=(--engine "$ENGINE")
  [ -z "${ENGINE_MODEL:-}" ] || options+=(--engine-model "$ENGINE_MODEL")
  local file status=0
  file=$("$target/release/comfy-gpu-bench" "${options[@]}" "$@") || status=$?
  [ -n "$file" ] || exit "$status"
  "$target/release/comfy-gpu-bench" report "$file"
  say "see docs/PERFORMANCE.md, On a GPU"
  exit "$status"
}

tests() {
  runtime
  cuda_libraries "$python"
  [ $# -gt 0 ] || set -- "${gpu_tests[@]}"
  # One at a time: they share a device, and one looks at how much of its memory is free.
  cargo test --release --locked -p comfy-core --lib --features gpu -- --test-threads=1 "$@"
  # With GStreamer, where it is: decoder, comfyinfer and encoder in one pipeline.
  if pkg-config --exists gstreamer-1.0; then
    cargo test --release --locked -p comfy-tests --features gpu --test gpu -- --test-threads=1
  else
    say "GStreamer is not here, so that the decoder and encoder of the GPU were not tested"
  fi
}

# 6 MB, which a Python with torch may lack.
wheels() {
  scripts/setup.sh python
  say "fetching diffusers (6 MB, Apache-2.0, scripts/gpu-wheels.txt)"
  "$here/.work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    --dest "$1" --requirement scripts/gpu-wheels.txt < /dev/null ||
    say "diffusers cannot be fetched: where the pieces go has to have its own"
}

pack() {
  local out=${1:-out/gpu} folder program
  runtime
  build
  program=$(test_program)
  [ -x "$program" ] || stop "the tests could not be built"
  rm -rf "$out"
  mkdir -p "$out"
  out=$(cd "$out" && pwd)
  folder=$out/comfy-gpu
  mkdir -p "$folder"/{bin,scripts,wheels,onnxruntime,src/engine}
  cp "$target/release/comfy-gpu-bench" "$folder/bin/"
  cp "$program" "$folder/bin/comfy-core-gpu-tests"
  strip --strip-debug "$folder"/bin/*
  cp -r models "$folder/models"
  cp -r src/engine/testdata "$folder/src/engine/testdata"
  cp scripts/gpu_models.py scripts/gpu_torch.py scripts/gpu-libraries.sh "$folder/scripts/"
  # TensorRT's provider is of no use without TensorRT; whoever has that puts the file beside the others.
  cp .work/onnxruntime-gpu/libonnxruntime.so.* .work/onnxruntime-gpu/libonnxruntime_providers_{shared,cuda}.so \
    .work/onnxruntime-gpu/LICENSE .work/onnxruntime-gpu/ThirdPartyNotices.txt "$folder/onnxruntime/"
  if [ -e .work/onnxruntime-gpu/libonnxruntime_providers_tensorrt.so ]; then
    cp .work/onnxruntime-gpu/libonnxruntime_providers_tensorrt.so "$folder/onnxruntime/"
  fi
  wheels "$folder/wheels"
  if [ -n "${ENGINE:-}" ]; then cp "$ENGINE" "$folder/engine.engine"; fi
  if [ -n "${ENGINE_MODEL:-}" ]; then cp "$ENGINE_MODEL" "$folder/engine.onnx"; fi
  commit > "$folder/commit"
  {
    echo "# Shared libraries that have to be found where this runs; NVIDIA's come with its driver and PyTorch's packages."
    for file in "$folder"/bin/* "$folder"/onnxruntime/*.so*; do
      readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'
    done | sort -u
  } > "$folder/libraries.txt"
  tar -C "$out" -c comfy-gpu | zstd -q -10 --long=27 -T0 | split -b 62M - "$out/comfy-gpu.tar.zst."
  rm -r "$folder"
  cp scripts/gpu-unpack-and-run.sh "$out/unpack-and-run.sh"
  # Not every machine has it.
  cp "$(command -v zstd)" "$out/zstd"
  (cd "$out" && sha256sum -- comfy-gpu.tar.zst.* zstd unpack-and-run.sh > SHA256SUMS)
  du -h "$out"/* >&2
  say "carry the folder $out; there: ./unpack-and-run.sh"
}

try() {
  cargo build --locked -p comfy-gpu-bench --features sim
  scripts/setup.sh onnxruntime
  local options=(run --dry-run --batches "1,2,4" --seconds 0.2 --passes 2 --out out/gpu/dry-run.json)
  ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$(compgen -G "$here/.work/onnxruntime/libonnxruntime.so.*" | head -n1)}
  export ORT_DYLIB_PATH
  if has_torch "$python"; then
    "$python" scripts/gpu_models.py --out .work/gpu-models-tiny --tiny --check
    options+=(--models .work/gpu-models-tiny --python "$(command -v "$python")")
  fi
  "$target/debug/comfy-gpu-bench" "${options[@]}"
}

what=${1:-}
shift || true
case $what in
  bench) bench "$@" ;;
  test) tests "$@" ;;
  pack) pack "$@" ;;
  try) try ;;
  *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac

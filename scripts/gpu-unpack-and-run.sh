#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, without network, compiler or GStreamer: unpacks the pieces beside this file, runs the
# tests and the bench, and leaves their results in `results` (or in the folder that OUT names).
#
#   ./unpack-and-run.sh [all | unpack | test | bench] [OPTION...]      options of `comfy-gpu-bench run`
#
# TORCH_PYTHON names a Python with torch and onnx (default: python3). CUDA 13 and cuDNN 9 are taken from its packages.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")"
pieces=$PWD
root=${COMFY_GPU_ROOT:-$pieces/comfy-gpu}
out=${OUT:-$pieces/results}
python=${TORCH_PYTHON:-python3}

unpack() {
  [ -e "$root/commit" ] && return
  sha256sum --quiet -c SHA256SUMS
  local unpacker=zstd
  command -v zstd > /dev/null || unpacker=./zstd
  mkdir -p "$root"
  cat comfy-gpu.tar.zst.?? | "$unpacker" -dc --long=27 | tar -x -C "$root" --strip-components=1
}

settings() {
  # shellcheck source=scripts/gpu-libraries.sh
  . "$root/scripts/gpu-libraries.sh"
  cuda_libraries "$python"
  ORT_DYLIB_PATH=$(compgen -G "$root/onnxruntime/libonnxruntime.so.*" | head -n1)
  # Where the tests look for models: the folder that they were built in is elsewhere.
  export ORT_DYLIB_PATH COMFY_ROOT=$root
  mkdir -p "$out"
  if ! "$python" -c 'import diffusers' 2> /dev/null && compgen -G "$root/wheels/*.whl" > /dev/null; then
    for wheel in "$root"/wheels/*.whl; do
      "$python" -m zipfile -e "$wheel" "$root/python"
    done
    # Behind the Python's own packages.
    export PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$root/python
  fi
}

tests() {
  # One at a time: they share a device, and one looks at how much of its memory is free.
  "$root/bin/comfy-core-gpu-tests" --test-threads=1 "${gpu_tests[@]}" 2>&1 | tee "$out/tests.txt"
}

bench() {
  # First of all, since the models take minutes.
  "$root/bin/comfy-gpu-bench" device
  local options=(run --samples "$root/models" --scripts "$root/scripts")
  if has_torch "$python"; then
    "$python" "$root/scripts/gpu_models.py" --out "$root/gpu-models" 2>&1 | tee "$out/models.txt"
    options+=(--models "$root/gpu-models" --python "$(command -v "$python")")
  else
    echo "gpu: $python has no torch, diffusers or onnx: the UNet, TAESD and PyTorch's own figures are left out" >&2
  fi
  [ ! -e "$root/engine.engine" ] || options+=(--engine "$root/engine.engine")
  [ ! -e "$root/engine.onnx" ] || options+=(--engine-model "$root/engine.onnx")
  # Its results are named after the GPU and the day, in out/gpu below the folder that it runs in.
  (cd "$out" && "$root/bin/comfy-gpu-bench" "${options[@]}" "$@" 2>&1 | tee bench.txt)
}

what=${1:-all}
shift || true
unpack
settings
case $what in
  unpack) ;;
  test) tests ;;
  bench) bench "$@" ;;
  all)
    status=0
    tests || status=$?
    bench "$@" || status=$?
    exit "$status"
    ;;
  *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac

# Sourced by gpu.sh, and by unpack-and-run.sh where there is no repository.

# Which of comfy-core's unit tests are about a device; each fails where there is none.
gpu_tests=(cuda:: engine::ort::device_tests engine::ort::gpu_tests)

# cuda_libraries PYTHON : puts CUDA 13 and cuDNN 9 on the library path, from the packages that PyTorch brings.
cuda_libraries() {
  local found
  # Without importing torch, which takes seconds and is not needed for this.
  found=$("$1" -c '
import glob, site, sys
for place in [*site.getsitepackages(), site.getusersitepackages()]:
    for folder in sorted(glob.glob(place + "/nvidia/*/lib")):
        print(folder)
' 2> /dev/null | paste -sd:) || true
  if [ -n "$found" ]; then
    export LD_LIBRARY_PATH=$found${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  else
    echo "gpu: $1 has no nvidia packages; the system's CUDA 13 and cuDNN 9 are used, if they are there" >&2
  fi
}

# has_torch PYTHON
has_torch() {
  "$1" -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ("torch", "diffusers", "onnx"))))' 2> /dev/null
}

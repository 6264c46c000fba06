#!/usr/bin/env bash
# Fetches what a build or a test run needs. Says what and why before it fetches, is silent when nothing is missing.
#
#   scripts/setup.sh [packages] [onnxruntime] [python] [pictures] [peers] [browser] [webpeers] [nvrtc] [onnxruntime-gpu]
#                                                                             (default: packages onnxruntime)
#
# The last five are for tests alone, `browser` for `make screenshots`, too: a Chromium, node, and what drives them.
# `onnxruntime-gpu` is ONNX Runtime with its GPU providers, without what they need of NVIDIA's.
#
# Everything but the Debian packages goes into ./.work and disappears with `make clean`.
# COMFY_SKIP_APT=1 skips the Debian packages, for other systems: see scripts/packages.txt for what is needed.
# Exit status: 2 = something is missing that a person has to put right.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
work=$PWD/.work
venv=$work/venv

say() { printf 'setup: %s\n' "$*" >&2; }
stop() { say "$@"; exit 2; }

# A part is done when its stamp holds the hash of everything that decided its result.
hash_of() { printf '%s\n' "$@" | sha256sum | cut -d' ' -f1; }
is_done() { [ -f "$work/stamps/$1" ] && [ "$(cat "$work/stamps/$1")" = "$2" ]; }
mark_done() { mkdir -p "$work/stamps"; printf '%s\n' "$2" > "$work/stamps/$1"; }

packages() {
  [ "${COMFY_SKIP_APT:-0}" = 1 ] && return
  local wanted
  wanted=$(sed 's/#.*//' scripts/packages.txt | xargs -n1 | sort)
  if ! command -v dpkg-query >/dev/null; then
    stop "this is not a Debian system. Install GStreamer 1.22 or newer with headers (core, base, good, bad, ugly," \
      "libav), pkg-config, a C linker, Python 3.11 or newer with venv, unzip and ffmpeg in your system's way" \
      "(scripts/packages.txt says what each is for), then run again with COMFY_SKIP_APT=1."
  fi
  # shellcheck disable=SC2086 # one word per package is meant
  add_packages scripts/packages.txt $wanted
}

# add_packages LIST PACKAGE... : those that are not there yet; LIST says what each is for.
add_packages() {
  local list=$1 wanted installed missing
  shift
  wanted=$(printf '%s\n' "$@" | sort)
  # dpkg-query's own status says no more than that some name is unknown to it, which is what we are asking.
  # shellcheck disable=SC2086 # one word per package is meant
  installed=$({ dpkg-query -W -f '${Package} ${db:Status-Status}\n' $wanted 2>/dev/null || true; } |
    sed -n 's/ installed$//p' | sort -u)
  missing=$(comm -23 <(printf '%s\n' "$wanted") <(printf '%s\n' "$installed") | xargs)
  [ -z "$missing" ] && return
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    stop "these Debian packages are missing; install them, then run again:
  sudo apt-get install --no-install-recommends $missing"
  fi
  say "installing Debian packages (what each is for: $list): $missing"
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086
  { apt-get update && apt-get install -y --no-install-recommends $missing; } > "$work/apt.log" 2>&1 < /dev/null || {
    tail -n 20 "$work/apt.log" >&2
    stop "apt-get failed; its whole output is in .work/apt.log"
  }
}

rust() {
  local floor found
  floor=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  command -v cargo >/dev/null || stop "no cargo found. Install Rust $floor or newer from https://rustup.rs"
  found=$(cargo --version | cut -d' ' -f2)
  [ "$(printf '%s\n' "$floor" "${found%%-*}" | sort -V | head -n1)" = "$floor" ] ||
    stop "cargo is $found and the project needs $floor or newer: rustup update"
}

# A Python of our own, in $venv: the system's may forbid pip, and what it holds must not decide a result.
bare_venv() {
  local candidate
  [ -x "$venv/bin/pip" ] && "$venv/bin/python" -c '' 2>/dev/null && return
  for candidate in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      rm -rf "$venv"
      "$candidate" -m venv "$venv"
      return
    fi
  done
  stop "no Python 3.11 or newer with its venv module found (Debian: python3 and python3-venv)"
}

pip() {
  PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/pip" "$@" < /dev/null ||
    stop "pip failed; its message is above. Run again when the package index can be reached."
}

# wheel LIST PLATFORM... -> path of the one wheel that LIST pins, fetched into a fresh folder. The interpreter and
# platform are named, so that the machine's own Python does not choose the file.
wheel() {
  local list=$1 dir=$work/download platforms=()
  shift
  for platform in "$@"; do platforms+=(--platform "$platform"); done
  rm -rf "$dir"
  pip download --quiet --no-deps --only-binary=:all: --require-hashes --implementation cp --python-version 3.11 \
    "${platforms[@]}" --dest "$dir" --requirement "$list" >&2
  printf '%s\n' "$dir"/*.whl
}

onnxruntime() {
  local key size file
  if [ "$(uname -s)" != Linux ] || { [ "$(uname -m)" != x86_64 ] && [ "$(uname -m)" != aarch64 ]; }; then
    say "no ONNX Runtime is pinned for $(uname -s) on $(uname -m): set ORT_DYLIB_PATH to your own (1.23 or newer)"
    return
  fi
  key=$(hash_of "$(cat scripts/onnxruntime.txt)" "$(uname -m)")
  is_done onnxruntime "$key" && [ -f "$work/onnxruntime/LICENSE" ] && return
  size=24; [ "$(uname -m)" = aarch64 ] && size=21
  say "fetching ONNX Runtime, the engine behind comfyinfer ($size MB, MIT, $(grep -o '==[0-9.]*' scripts/onnxruntime.txt | tr -d =))"
  bare_venv
  file=$(wheel scripts/onnxruntime.txt "manylinux_2_28_$(uname -m)")
  rm -rf "$work/onnxruntime"
  mkdir -p "$work/onnxruntime"
  unzip -q -o -j "$file" 'onnxruntime/capi/libonnxruntime.so.*' onnxruntime/LICENSE onnxruntime/ThirdPartyNotices.txt \
    -d "$work/onnxruntime"
  rm -rf "$work/download"
  mark_done onnxruntime "$key"
}

# Compiles src/cuda/kernels/frames.cu, for a test; what it writes is committed, and nothing else needs it.
nvrtc() {
  local key file
  if [ "$(uname -s)" != Linux ] || [ "$(uname -m)" != x86_64 ]; then return; fi
  key=$(hash_of "$(cat scripts/nvrtc.txt)")
  is_done nvrtc "$key" && [ -f "$work/nvrtc/libnvrtc.so.12" ] && return
  say "fetching NVRTC, the compiler of the CUDA kernels, for a test (23 MB, NVIDIA's licence, $(grep -o '==[0-9.]*' scripts/nvrtc.txt | tr -d =))"
  bare_venv
  file=$(wheel scripts/nvrtc.txt manylinux1_x86_64)
  rm -rf "$work/nvrtc"
  mkdir -p "$work/nvrtc"
  unzip -q -o -j "$file" 'nvidia/cuda_nvrtc/lib/libnvrtc*.so.*' '*.dist-info/License.txt' -d "$work/nvrtc"
  rm -rf "$work/download"
  mark_done nvrtc "$key"
}

onnxruntime-gpu() {
  local key file to=$work/onnxruntime-gpu
  if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
    say "there is no GPU build of ONNX Runtime to fetch for $(uname -s) on $(uname -m)"
    return
  fi
  key=$(hash_of "$(cat scripts/onnxruntime-gpu.txt)")
  is_done onnxruntime-gpu "$key" && [ -f "$to/LICENSE" ] && return
  say "fetching ONNX Runtime's GPU build, whose messages the tests read (256 MB, MIT, scripts/onnxruntime-gpu.txt)"
  bare_venv
  file=$(wheel scripts/onnxruntime-gpu.txt manylinux_2_28_x86_64)
  rm -rf "$to"
  mkdir -p "$to"
  unzip -q -o -j "$file" 'onnxruntime/capi/libonnxruntime*' onnxruntime/LICENSE onnxruntime/ThirdPartyNotices.txt -d "$to"
  rm -rf "$work/download"
  mark_done onnxruntime-gpu "$key"
}

python() {
  local key
  bare_venv
  key=$(hash_of "$(cat scripts/requirements.txt)" "$("$venv/bin/python" -VV)")
  is_done python "$key" && return
  say "fetching the Python packages of the scripts (sample models, demo clip, bench; about 70 MB, scripts/requirements.txt)"
  pip install --quiet --only-binary=:all: --require-hashes --requirement scripts/requirements.txt >&2
  mark_done python "$key"
}

pictures() {
  local key file name
  key=$(hash_of "$(cat scripts/pictures.txt)" "$(declare -f pictures)")
  is_done pictures "$key" && return
  say "fetching the demo clip's photographs (14 MB, free to use: docs/media.md)"
  bare_venv
  file=$(wheel scripts/pictures.txt manylinux_2_28_x86_64)
  rm -rf "$work/pictures"
  mkdir -p "$work/pictures"
  for name in astronaut.png chelsea.png coffee.png rocket.jpg; do
    unzip -q -o -j "$file" "skimage/data/$name" -d "$work/pictures"
  done
  unzip -q -o -j "$file" '*.dist-info/LICENSE.txt' -d "$work/pictures"
  rm -rf "$work/download"
  mark_done pictures "$key"
}

# Apart from the scripts' packages, which have no use for these, and without the dependencies that the tests do not
# touch: torch alone is larger than everything else that is fetched.
peers() {
  local key venv=$work/peers
  bare_venv
  key=$(hash_of "$(cat scripts/peers.txt)" "$("$venv/bin/python" -VV)")
  is_done peers "$key" && compgen -G "$venv/lib/python*/site-packages/pytrickle" > /dev/null && return
  say "fetching pytrickle, which the trickle tests talk to (3 MB with what it needs, scripts/peers.txt)"
  pip install --quiet --no-deps --only-binary=:all: --require-hashes --requirement scripts/peers.txt >&2
  mark_done peers "$key"
}

# Only what the PATH lacks is asked for: a node from elsewhere stays the one that runs.
browser() {
  local key program package absent=() found to=$work/browser
  while read -r program package; do
    command -v "$program" > /dev/null || absent+=("$package")
  done < <(sed 's/#.*//; s/:/ /; /^ *$/d' scripts/packages-browser.txt)
  if [ ${#absent[@]} -gt 0 ]; then
    if [ "${COMFY_SKIP_APT:-0}" = 1 ] || ! command -v dpkg-query > /dev/null; then
      stop "the browser tests lack what Debian calls ${absent[*]}: install it in your system's way" \
        "(scripts/packages-browser.txt says what each is for)"
    fi
    add_packages scripts/packages-browser.txt "${absent[@]}"
  fi
  found=$(node --version)
  [ "$(printf '%s\n' 18 "${found#v}" | sort -V | head -n1)" = 18 ] ||
    stop "node is $found and the browser tests need 18 or newer"
  key=$(hash_of "$(cat tests/browser/package.json tests/browser/package-lock.json)")
  is_done browser "$key" && [ -d "$to/node_modules/playwright-core" ] && return
  say "fetching playwright-core, which drives the browser (13 MB on disk, Apache-2.0, tests/browser/package-lock.json)"
  rm -rf "$to"
  mkdir -p "$to"
  cp tests/browser/package.json tests/browser/package-lock.json "$to"
  # The system's browser is the one that is driven.
  (cd "$to" && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --ignore-scripts --no-audit --no-fund) \
    > "$work/npm.log" 2>&1 < /dev/null || {
    tail -n 20 "$work/npm.log" >&2
    stop "npm failed; its whole output is in .work/npm.log. Run again when the package registry can be reached."
  }
  mark_done browser "$key"
}

# Whole, unlike the peers above: aiortc and schemathesis use what they ask for. For tests only; none of it is linked
# with or shipped. All are under BSD, MIT, ISC, Apache, PSF or MPL terms; av's wheels bring FFmpeg (LGPL and GPL parts).
webpeers() {
  local key venv=$work/webpeers
  bare_venv
  key=$(hash_of "$(cat scripts/webpeers.txt)" "$("$venv/bin/python" -VV)")
  is_done webpeers "$key" && compgen -G "$venv/lib/python*/site-packages/aiortc" > /dev/null && return
  say "fetching aiortc and schemathesis, which the tests of the service talk with (310 MB on disk with what they need, scripts/webpeers.txt)"
  pip install --quiet --no-deps --only-binary=:all: --require-hashes --requirement scripts/webpeers.txt >&2
  mark_done webpeers "$key"
}

[ $# -gt 0 ] || set -- packages onnxruntime
mkdir -p "$work"
# Two runs at once (make -j) would unpack into each other's folders.
if command -v flock >/dev/null; then exec 9> "$work/setup.lock"; flock 9; fi
for part in "$@"; do
  case $part in
    packages) packages; rust ;;
    onnxruntime | onnxruntime-gpu | python | pictures | peers | browser | webpeers | nvrtc) "$part" ;;
    *)
      stop "unknown part '$part': packages, onnxruntime, python, pictures, peers, browser, webpeers, nvrtc or" \
        "onnxruntime-gpu"
      ;;
  esac
done

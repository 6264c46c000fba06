#!/usr/bin/env bash
# Everything that has to pass before a change goes in. Runs every step, also after a failed one, and ends with a table.
# Status 1 when any step failed. `make test` sets up what it needs first.
set -uo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
work=$PWD/.work
mkdir -p "$work/tools"

# A registry of our own, so that neither the user's cache nor an installed copy of the plugin decides a result.
export GST_REGISTRY=$work/gst-registry.bin
unset GST_PLUGIN_PATH GST_PLUGIN_PATH_1_0
version=$(sed -n 's/^onnxruntime==\([0-9.]*\).*/\1/p' scripts/onnxruntime.txt)
export ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$work/onnxruntime/libonnxruntime.so.$version}
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}

names=() results=() seconds=()

# step NAME COMMAND... : status 0 passed, 77 skipped (the command said why), anything else failed.
step() {
  local name=$1 begin=$SECONDS status=0
  shift
  printf '\n==> %s\n' "$name"
  "$@" < /dev/null || status=$?
  case $status in
    0) results+=(passed) ;;
    77) results+=(skipped) ;;
    *) results+=(FAILED) ;;
  esac
  names+=("$name")
  seconds+=($((SECONDS - begin)))
  printf -- '--- %s: %s after %d s\n' "$name" "${results[-1]}" "${seconds[-1]}"
}

tests() {
  # What cannot be fetched is missed by the tests that need it, and by no others.
  scripts/setup.sh peers
  scripts/setup.sh browser
  scripts/setup.sh webpeers
  scripts/setup.sh nvrtc
  # One test has ONNX's own checker look at a file that we write.
  scripts/setup.sh python
  scripts/setup.sh onnxruntime-gpu
  # Filled before warnings become fatal: a third-party plugin that cannot load here is none of our business.
  gst-inspect-1.0 > /dev/null 2>&1
  G_DEBUG=fatal-warnings cargo test --workspace --locked
}

# What is committed of the page is what its sources make.
page() (
  scripts/setup.sh browser || exit
  cd services/comfystream/page && npm ci --no-audit --no-fund --loglevel=error && npm run --silent check && npm test --silent
)

models() {
  scripts/setup.sh python && "$work/venv/bin/python" models/make_models.py --check
}

documentation() {
  RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
}

# A little of it each time: a parser that broke is found within seconds, and `make fuzz` looks further.
fuzzing() {
  scripts/fuzz.sh 5
}

deny_version=0.20.2
find_deny() {
  deny=cargo-deny
  [ "$(cargo-deny --version 2>/dev/null)" = "cargo-deny $deny_version" ] && return
  deny=$work/tools/bin/cargo-deny
  [ "$("$deny" --version 2>/dev/null)" = "cargo-deny $deny_version" ] && return
  echo "building cargo-deny $deny_version, which checks licences and sources (once; a few minutes)"
  # Its own target folder: the workspace's may be named by CARGO_TARGET_DIR, and this build would sit in it for good.
  CARGO_TARGET_DIR=$work/tools/target cargo install --quiet --locked --root "$work/tools" "cargo-deny@$deny_version" &&
    rm -rf "$work/tools/target"
}

licences() {
  find_deny && "$deny" --workspace --locked check --hide-inclusion-graph licenses bans sources
}

advisories() {
  find_deny || return
  # The database is a git repository, which not every machine can reach; that is no fault of the change under test.
  if ! GIT_TERMINAL_PROMPT=0 timeout 60 "$deny" --workspace --locked fetch db > "$work/advisories.log" 2>&1; then
    echo "SKIPPED: the database of security advisories cannot be fetched from here, so advisories were NOT checked."
    echo "What the attempt said is in .work/advisories.log."
    return 77
  fi
  "$deny" --workspace --locked check --disable-fetch advisories
}

step "formatting" cargo fmt --all --check
step "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
step "tests" tests
step "fuzz targets" fuzzing
step "page" page
step "sample models" models
step "documentation" documentation
step "licences" licences
step "advisories" advisories

printf '\n%-16s %-8s %s\n' step result seconds
status=0
for i in "${!names[@]}"; do
  printf '%-16s %-8s %7d\n' "${names[i]}" "${results[i]}" "${seconds[i]}"
  [ "${results[i]}" != FAILED ] || status=1
done
exit $status

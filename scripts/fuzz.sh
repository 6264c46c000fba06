#!/usr/bin/env bash
# Feeds every parser that hears the network with garbage, for a while each. See fuzz/.
#
#   scripts/fuzz.sh SECONDS [TARGET...]     (default: all)
#
# What libFuzzer has learnt stays in fuzz/corpus, and what broke something in fuzz/artifacts; run a target with the file
# to see it again:  target/fuzz/x86_64-unknown-linux-gnu/release/ts fuzz/artifacts/ts-crash-...
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
seconds=${1:?SECONDS [TARGET...]}
shift
targets=("$@")
[ $# -gt 0 ] || targets=(url headers server client ts payload workflow)

command -v c++ >/dev/null || {
  echo "fuzz: no C++ compiler found, and libFuzzer is C++: install g++" >&2
  exit 2
}

# What cargo-fuzz passes, less the sanitizers, which need a nightly compiler and find nothing without unsafe code. The
# target is named so that build scripts and macros are built without it.
host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}/fuzz
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
  cargo build --release --locked --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$target" \
  "${targets[@]/#/--bin=}"

mkdir -p fuzz/artifacts
status=0
for name in "${targets[@]}"; do
  mkdir -p "fuzz/corpus/$name"
  log=fuzz/artifacts/$name.log
  # A target that grows or stands still has failed, too.
  if "$target/$host/release/$name" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=1024 \
    -artifact_prefix="fuzz/artifacts/$name-" "fuzz/corpus/$name" "fuzz/seeds/$name" > "$log" 2>&1; then
    printf 'fuzz: %-8s %s\n' "$name" "$(sed -n 's/^Done \(.*\)/\1/p' "$log")"
  else
    status=1
    tail -n 40 "$log" >&2
    printf 'fuzz: %s FAILED; all it said is in %s\n' "$name" "$log" >&2
  fi
done
exit $status

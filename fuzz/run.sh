#!/usr/bin/env bash
# Runs the fuzz targets that build/fuzz has: fuzz/run.sh [EXECUTIONS] [TARGET…]. Each starts from its committed corpus and
# its findings of earlier runs; a finding ends the run and is left in build/fuzz/findings.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
executions=${1:-1000000}
(($# == 0)) || shift
targets=("$@")
if ((${#targets[@]} == 0)); then
  for folder in "$root"/fuzz/corpus/*/; do targets+=("$(basename "$folder")"); done
fi
export ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
mkdir -p "$root/build/fuzz/findings"

for target in "${targets[@]}"; do
  found=$root/build/fuzz/corpus/$target log=$root/build/fuzz/$target.log
  mkdir -p "$found"
  if ! "$root/build/fuzz/fuzz/fuzz_$target" -runs="$executions" -seed=1 -max_len=16384 -timeout=10 -rss_limit_mb=4096 \
    -print_final_stats=1 -artifact_prefix="$root/build/fuzz/findings/$target-" \
    "$found" "$root/fuzz/corpus/$target" > "$log" 2>&1; then
    tail -n 40 "$log"
    printf '%s: a finding, see %s\n' "$target" "$log"
    exit 1
  fi
  printf '%-12s %9d executions, %6d a second, %5d inputs in the corpus, no finding\n' "$target" \
    "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
    "$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")" \
    "$(find "$found" "$root/fuzz/corpus/$target" -type f | wc -l)"
done

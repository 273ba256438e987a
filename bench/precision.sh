#!/usr/bin/env bash
# What products in bfloat16 cost and bring, into docs/ntk.md.
#   ./run.sh bench precision [N, 200]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$root/build/release/bench/bench_precision" "$@" | tee "$work/table"
cd "$root" && bench/insert.sh precision "$work/table" docs/ntk.md

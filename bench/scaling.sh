#!/usr/bin/env bash
# What a system in the kernel costs against n, P and C, beside the planner's prediction: bench/results/scaling.json, and the figures
# of docs/ntk.md.
#   ./run.sh bench scaling [THREADS]        some minutes on two cores
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$root/build/release/bench/bench_scaling" "${1:-2}" "$work" | tee "$work/printed"
mv "$work/scaling.json" "$root/bench/results/scaling.json"
mv "$work/scaling-seconds.svg" "$work/scaling-memory.svg" "$root/docs/"
{
  echo "![Seconds against n, P and C](scaling-seconds.svg)"
  echo "![Memory against n, P and C](scaling-memory.svg)"
  echo
  tail -n 1 "$work/printed" | sed 's/^p/P/; s/$/./'
} > "$work/figures"
"$root/bench/insert.sh" scaling "$work/figures" "$root/docs/ntk.md"

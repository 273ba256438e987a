#!/usr/bin/env bash
# What requests to a prepared state take (docs/deletion.md): ResNet-20, bn+head, Fashion-MNIST, squared error and cross-entropy. Every request is a
# process of its own, timed from its start to its end: opening the state, new weights and record on the disk, and the linearisation error on the probe.
#   ./run.sh bench deletion [SAMPLES PER CLASS, 500] [SINGLE REQUESTS IN A ROW, 1000]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=$root/build/release/fastntk
per_class=${1:-500} singles=${2:-1000}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN {printf "%.2f", b - a}'; }
last_record() { find "$work/$loss" -name 'record-*.json' | sort | tail -n 1; }
# A field of a record's result.
field() { sed -nE 's/.*"'"$1"'": ?([0-9.eE+-]+).*/\1/p' "$(last_record)" | head -n 1; }
row() { printf '| %s | %s | %s | %s | %s | %s |\n' "$loss" "$1" "$2" "$(field relative_residual)" "$(field passes)" "$(field linearisation_error)"; }

"$program" info | sed -n 1,5p
printf '| loss | request | seconds | relative residual | passes over the rows | linearisation error |\n|---|---|---:|---:|---:|---:|\n'
for loss in mse ce; do
  tune=("$program" finetune "$root/checkpoints/resnet20-fashion-mnist-0-8.safetensors" -o "$work/$loss.safetensors" --loss "$loss"
    --samples "30000-59999 per-class:$per_class" --quiet)
  "${tune[@]}" > /dev/null
  start=$(now)
  "$program" prepare "$work/$loss.safetensors" -o "$work/$loss" --quiet > /dev/null
  printf '| %s | prepare | %s | | | |\n' "$loss" "$(since "$start")"
  request() {
    start=$(now)
    "$program" forget "$work/$loss" --where "$2" --quiet > /dev/null
    row "$1" "$(since "$start")"
  }
  request "one sample" "first:1"
  start=$(now)
  for ((i = 0; i < singles; i++)); do "$program" forget "$work/$loss" --where "first:1" --quiet > /dev/null; done
  row "$singles requests of one sample, in all" "$(since "$start")"
  request "a tenth, at random" "random:0.1"
  start=$(now)
  "$program" verify "$(last_record)" --state "$work/$loss" --quiet > /dev/null
  printf '| %s | verify the last | %s | | | |\n' "$loss" "$(since "$start")"
  start=$(now)
  "${tune[@]}" > /dev/null
  printf '| %s | for comparison: fine-tuning again | %s | | | |\n' "$loss" "$(since "$start")"
done

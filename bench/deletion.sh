#!/usr/bin/env bash
# What requests to a prepared state take (docs/deletion.md), on Fashion-MNIST. Every request is a process of its own, timed from its start to its end:
# opening the state, new weights and record on the disk, and the linearisation error on the probe.
#   ./run.sh bench deletion [SAMPLES PER CLASS, 500] [SINGLE REQUESTS IN A ROW, 1000] [ARCHITECTURE]
# resnet20 (default): bn+head from the checkpoint that is here, squared error and cross-entropy. resnet18: bn, P = 9,600, squared error, from
# a model that is pre-trained first on 10,000 images; prepared twice, within 1 GiB and within 2 GiB. Its epochs are few, for time.
# The table goes to bench/results/deletion-ARCHITECTURE.md and into docs/deletion.md.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=$root/build/release/fastntk
per_class=${1:-500} singles=${2:-1000} architecture=${3:-resnet20}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
table=$work/table.md
models=$root/build/deletion-$architecture-$per_class # once they are there, they are taken again
mkdir -p "$models"

case $architecture in
  resnet20)
    model=$root/checkpoints/resnet20-fashion-mnist-0-8.safetensors losses=(mse ce) settings=() budgets=("")
    ;;
  resnet18)
    model=$models/pretrained.safetensors losses=(mse) settings=(--subset bn --head keep --epochs 4) budgets=(2G 1G)
    [[ -e $model ]] || "$program" pretrain -o "$model" --arch resnet18 --stem cifar --samples 0-9999 --test-samples first:1000 --epochs 2
    ;;
  *)
    echo "deletion.sh: there is no setting for the architecture '$architecture': resnet20 or resnet18" >&2
    exit 2
    ;;
esac

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN {printf "%.2f", b - a}'; }
last_record() { find "$work/$loss" -name 'record-*.json' | sort | tail -n 1; }
# A field of a record's result, or of a file of numbers.
number() { sed -nE 's/.*"'"$2"'": ?([0-9.eE+-]+).*/\1/p' "$1" | head -n 1; }
field() { number "$(last_record)" "$1"; }
short() { field "$1" | awk -v form="$2" 'NF {printf form, $1}'; }
mebibytes() { awk -v bytes="$1" 'BEGIN {printf "%.0f", bytes / 1048576}'; }
line() { printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$loss" "$@" | tee -a "$table"; }
row() { line "$1" "$2" "$(short relative_residual %.1e)" "$(field passes)" "$(short linearisation_error %.3f)" ""; }

{
  "$program" info | sed -nE 's/^sgemm +(.*)/sgemm here: \1\n/p'
  printf '| loss | request | seconds | relative residual | passes over the rows | linearisation error | peak, resident (MiB) |\n|---|---|---:|---:|---:|---:|---:|\n'
} | tee "$table"
for loss in "${losses[@]}"; do
  if [[ ! -e $models/$loss.seconds ]]; then
    start=$(now)
    "$program" finetune "$model" -o "$models/$loss.safetensors" --loss "$loss" --samples "30000-59999 per-class:$per_class" "${settings[@]}" --quiet > /dev/null
    since "$start" > "$models/$loss.seconds"
  fi
  for budget in "${budgets[@]}"; do
    rm -rf "${work:?}/$loss"
    start=$(now)
    "$program" prepare "$models/$loss.safetensors" -o "$work/$loss" ${budget:+--memory "$budget"} --json "$work/prepare.json" --quiet > /dev/null
    line "prepare${budget:+ --memory $budget}" "$(since "$start")" "" "" "" \
      "$(mebibytes "$(number "$work/prepare.json" peak_bytes)"), $(mebibytes "$(number "$work/prepare.json" peak_resident_bytes)")"
  done
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
  request "what is left of a class" "class:9"
  start=$(now)
  "$program" verify "$(last_record)" --state "$work/$loss" --quiet > /dev/null
  line "verify the last" "$(since "$start")" "" "" "" ""
  line "for comparison: fine-tuning${settings[*]:+ (${settings[*]})}" "$(cat "$models/$loss.seconds")" "" "" "" ""
done
cp "$table" "$root/bench/results/deletion-$architecture.md"
"$root/bench/insert.sh" "deletion-$architecture" "$table" "$root/docs/deletion.md"

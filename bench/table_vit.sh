#!/usr/bin/env bash
# The tables of the vision transformer: bench/results/vit/NAME.json per run, all of them in bench/results/vit.md, and what forgetting class 9 did
# in docs/vit.md. n = 500, the reference oracle alone, 1,000 test images; `prompt+head` with both losses and both requests, the other subsets with squared error
# and class 9. Some five minutes on two cores. `./run.sh table-vit NAME…` makes only the runs named and keeps the others' results.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
results=bench/results/vit
mkdir -p "$results"

# Name, subset, loss and requests of each run.
runs=(
  "prompt-head-mse  prompt+head  mse  class:9 random:0.1"
  "prompt-head-ce   prompt+head  ce   class:9 random:0.1"
  "prompt           prompt       mse  class:9"
  "prompt-ce        prompt       ce   class:9"
  "prompt-deep      prompt-deep  mse  class:9"
  "ln-head          ln+head      mse  class:9"
  "lora-head        lora:4+head  mse  class:9"
  "bitfit-head      bitfit+head  mse  class:9"
)
for line in "${runs[@]}"; do
  read -r name subset loss requests <<< "$line"
  if (($#)) && [[ " $* " != *" $name "* ]]; then continue; fi
  read -ra forget <<< "$requests"
  build/release/fastntk demo --model checkpoints/vit-mini-fashion-mnist-0-8.safetensors --n 500 --subset "$subset" --loss "$loss" \
    --forget "${forget[@]}" --oracle-seeds 0 --test-samples 1000 --markdown "$results/$name.md" --json "$results/$name.json"
done
: > bench/results/vit.md.partial
for line in "${runs[@]}"; do
  read -r name _ <<< "$line"
  [[ ! -e $results/$name.md ]] || cat "$results/$name.md" >> bench/results/vit.md.partial
done
mv bench/results/vit.md.partial bench/results/vit.md

# The accuracies of a row of a run's first request, D_f / D_r / test.
accuracies() { awk -F ' *[|] *' -v row="$2" '/^\*\*/ && seen++ {exit} $2 == row {print $3 " / " $4 " / " $5}' "$results/$1.md"; }
summary=$(mktemp)
trap 'rm -f "$summary"' EXIT
{
  printf '| subset | P | loss | original | oracle | rule | |\n|---|---:|---|---|---|---|---|\n'
  for line in "${runs[@]}"; do
    read -r name subset loss _ <<< "$line"
    [[ -e $results/$name.md ]] || continue
    rule="shift"
    [[ $loss == mse ]] || rule=newton-shift
    # shellcheck disable=SC2016  # the backticks are Markdown's
    printf '| `%s` | %s | %s | %s | %s | `%s` | %s |\n' "$subset" "$(sed -n '1s/.*(P = \([0-9]*\)).*/\1/p' "$results/$name.md")" "$loss" \
      "$(accuracies "$name" original)" "$(accuracies "$name" "oracle seed 0")" "$rule" "$(accuracies "$name" "$rule")"
  done
} > "$summary"
bench/insert.sh table "$summary" docs/vit.md

#!/usr/bin/env bash
# The kernel in all parameters, with which linearised unlearning began, beside that in a few: one table of quality, seconds and peak
# memory, squared error, dual systems. It goes to bench/results/ancestor.md and into docs/ntk.md.
#   ./run.sh bench ancestor [N]        N ≤ 500 samples, default 200; each takes 11 MB of rows in all parameters, several times
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
n=${1:-200}
if ! [[ $n =~ ^[1-9][0-9]*0$ ]] || ((n > 500)); then
  echo "ancestor.sh: the number of samples must be a multiple of 10 up to 500, got '$n'" >&2
  exit 2
fi
program=$root/build/release/fastntk
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"
for subset in bn+head all; do
  # The settings of `fastntk demo` for squared error.
  "$program" finetune checkpoints/resnet20-fashion-mnist-0-8.safetensors -o "$work/$subset.safetensors" --subset "$subset" --loss mse \
    --samples "30000-59999 per-class:$((n / 10))" --epochs 16 --lr 0.04 --nesterov --l2 0.03
  for forget in class:9 random:0.1; do
    "$program" unlearn "$work/$subset.safetensors" --forget "$forget" --rule shift solve --representation dual --oracle-seeds 1 \
      --test-samples first:5000 --markdown "$work/one.md"
    cat "$work/one.md" >> "$work/all.md"
  done
done
# Each table has a line **loss, SUBSET (P = NUMBER), …, forget REQUEST** before it.
awk -F ' *[|] *' '
  BEGIN {
    print "| subset | P | forget | method | acc forget | retain | test | JS forget | w-dist | lin. error | seconds | peak |"
    print "|---|---:|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"
  }
  /^\*\*/ {
    match($0, /, [^,]* \(P = [0-9]+\)/)
    subset = parameters = substr($0, RSTART + 2, RLENGTH - 3)
    sub(/ \(.*/, "", subset); sub(/.*= /, "", parameters)
    forget = $0; sub(/.*forget /, "", forget); sub(/\*\*.*/, "", forget)
  }
  $2 == "method" { for (i = 2; i < NF; i++) if (!($i in column)) column[$i] = i; next }
  NF > 2 && $2 !~ /^-/ && $2 != "theta0" {
    first = column["acc forget"]
    print "| " subset " | " parameters " | " forget " | " $2 " | " $first " | " $(first + 1) " | " $(first + 2) " | " $(column["JS forget"]) \
      " | " $(column["w-dist"]) " | " $(column["lin. error"]) " | " $(column["seconds"]) " | " $(column["peak"]) " |"
  }' "$work/all.md" > "$work/ancestor.md"
cat "$work/ancestor.md"
{ echo "n = $n:" && echo && cat "$work/ancestor.md"; } > bench/results/ancestor.md
bench/insert.sh ancestor bench/results/ancestor.md docs/ntk.md

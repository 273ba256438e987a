#!/usr/bin/env bash
# The neural tangent kernel between two sets of 256 images of 32×32×3, all class blocks, float32, beside torch.func and the three
# implementations of neural-tangents' empirical_ntk_fn, in turn, on the same threads, each in a process of its own.
#   FASTNTK_TORCH_PYTHON=/path/to/python FASTNTK_JAX_PYTHON=/path/to/python ./run.sh bench ntk [THREADS] [ROUNDS] [CASE…]
# Pythons with torch and safetensors; with neural-tangents, jax and safetensors. Peers without one are left out. Peers run with the
# batches that were fastest on 64 images. Every run's JSON goes to bench/results/ntk-peers.jsonl, and the medians over the rounds into
# docs/ntk.md and README.md where there is a peer and no CASE was named.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ours=$root/build/release/bench/bench_ntk_speed
threads=${1:-2} rounds=${2:-3}
cases=(conv-all conv-head+bias mlp-all)
if (($# > 2)); then cases=("${@:3}"); fi
n=256 trial=64 limit=1800 # seconds, after which a peer is given up
results=$root/bench/results/ntk-peers.jsonl
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

field() { sed -E "s/.*\"$1\": ?\"?([^\",}]*).*/\1/"; } # of a line of JSON

peers=()
if [[ -n ${FASTNTK_TORCH_PYTHON:-} ]]; then peers+=(torch.func); else echo "FASTNTK_TORCH_PYTHON is not set: without torch.func"; fi
if [[ -n ${FASTNTK_JAX_PYTHON:-} ]]; then
  peers+=(jacobian-contraction ntk-vector-products structured-derivatives)
else
  echo "FASTNTK_JAX_PYTHON is not set: without neural-tangents"
fi

# One run of a peer on CASE with batches of BATCH samples: its line of JSON, the kernel in $work/PEER. Nothing if it fails.
run_peer() {
  local peer=$1 case=$2 batch=$3 command
  if [[ $peer == torch.func ]]; then
    command=("$FASTNTK_TORCH_PYTHON" "$root/bench/ntk_torch.py" "$case" "$work/data" "$work/$peer" "$threads" "$batch" "${@:4}")
  else
    command=("$FASTNTK_JAX_PYTHON" "$root/bench/ntk_jax.py" "$case" "$work/data" "$work/$peer" "$threads" "$peer" "$batch" "${@:4}")
  fi
  timeout "$limit" "${command[@]}" 2> "$work/errors" || { echo "$peer failed on $case: $(tail -n 1 "$work/errors")" >&2; }
}

# The batch with which a peer is fastest.
best_batch() {
  local peer=$1 case=$2 batch seconds best="" at=""
  for batch in 8 16 32 64; do
    seconds=$(run_peer "$peer" "$case" "$batch" "$trial" | field seconds)
    [[ -n $seconds ]] || continue
    if [[ -z $best ]] || awk -v a="$seconds" -v b="$best" 'BEGIN {exit !(a < b)}'; then best=$seconds at=$batch; fi
  done
  echo "$at"
}

# Keeps a line of JSON with the difference of that kernel from ours.
with_difference() {
  local difference
  difference=$("$ours" compare "$work/fastntk" "$work/$1")
  echo "${2%\}}, \"difference\": $difference}" | tee -a "$work/lines"
}

declare -A batch_of
: > "$work/lines"
for case in "${cases[@]}"; do
  parameters=$("$ours" write "$case" "$n" "$work/data")
  echo "$case: P = $parameters, n = $n and $n, $threads threads"
  for peer in ${peers[@]+"${peers[@]}"}; do batch_of[$peer]=$(best_batch "$peer" "$case"); done
  for ((round = 0; round < rounds; round++)); do
    "$ours" run "$case" "$work/data" "$work/fastntk" "$threads" float64 | tee -a "$work/lines"
    with_difference single "$("$ours" run "$case" "$work/data" "$work/single" "$threads" float32)"
    for peer in ${peers[@]+"${peers[@]}"}; do
      [[ -n ${batch_of[$peer]} ]] || continue
      line=$(run_peer "$peer" "$case" "${batch_of[$peer]}")
      [[ -z $line ]] || with_difference "$peer" "$line"
    done
  done
done

"$ours" table "$work/lines" | tee "$work/table"
if ((${#peers[@]} > 0 && $# < 3)); then
  mv "$work/lines" "$results"
  "$root/bench/insert.sh" peers "$work/table" "$root/docs/ntk.md"
  "$ours" summary "$results" > "$work/summary"
  "$root/bench/insert.sh" peers "$work/summary" "$root/README.md"
fi

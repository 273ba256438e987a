#!/usr/bin/env bash
# Speed and memory of ResNet-20 (28×28×1), ResNet-18 (3×3 stem, 32×32×3) and ViT-B/32 (224×224×3, 10 prompts) beside PyTorch, in turn, on the same
# threads.
#   FASTNTK_TORCH_PYTHON=/path/to/python ./run.sh bench [THREADS] [ROUNDS] [MODEL]
# Without that variable (a Python with torch, torchvision and timm) only our own numbers are printed. Each ratio is ours / PyTorch's, the median over rounds.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ours=$root/build/release/bench/bench_speed
threads=${1:-2} rounds=${2:-3} only=${3:-}
peer=${FASTNTK_TORCH_PYTHON:-}

rate() { sed -E 's/.*"samples_per_second": ?([0-9.eE+-]+).*/\1/'; }
work() { sed -E 's/.*"work_bytes": ?([0-9.eE+-]+).*/\1/'; }
median() { sort -g | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }
divide() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.4f\n", a / b}'; }

# The chunk at which PyTorch's Jacobian is fastest, by the best of three runs each.
best_chunk() {
  local model=$1 n=$2 chunk best=0 at=25 r round chunks="10 25 50 100"
  if [[ $model == vit* ]]; then chunks="2 4 8 16 32"; fi
  for ((round = 0; round < 3; round++)); do
    for chunk in $chunks; do
      r=$("$peer" "$root/bench/torch_peer.py" "$model" "$n" jacobian "$threads" "$chunk" | rate)
      if awk -v a="$r" -v b="$best" 'BEGIN {exit !(a > b)}'; then best=$r at=$chunk; fi
    done
  done
  echo "$at"
}

[[ -n $peer ]] || echo "FASTNTK_TORCH_PYTHON is not set to a Python with torch: our numbers only"
printf '%-20s %-9s %14s %14s %8s %s\n' model what "ours /s" "PyTorch /s" ratio "Jacobian work memory (ours, PyTorch, ratio)"
for case in "resnet20 forward 1000" "resnet20 jacobian 400" "resnet20 train 640" "resnet18c forward 200" "resnet18c jacobian 50" "resnet18c train 128" \
  "vit_base_patch32_224 forward 64" "vit_base_patch32_224 jacobian 64"; do
  read -r model what n <<< "$case"
  if [[ -n $only && $model != "$only" ]]; then continue; fi
  chunk=100
  if [[ -n $peer && $what == jacobian ]]; then chunk=$(best_chunk "$model" "$n"); fi
  a=() b=() ratios=() ma=() mb=()
  for ((i = 0; i < rounds; i++)); do
    line=$("$ours" "$model" "$n" "$what" "$threads")
    a+=("$(rate <<< "$line")")
    if [[ $what == jacobian ]]; then ma+=("$(work <<< "$line")"); fi
    [[ -n $peer ]] || continue
    line=$("$peer" "$root/bench/torch_peer.py" "$model" "$n" "$what" "$threads" "$chunk")
    b+=("$(rate <<< "$line")")
    ratios+=("$(divide "${a[-1]}" "${b[-1]}")")
    if [[ $what == jacobian ]]; then mb+=("$(work <<< "$line")"); fi
  done
  note=
  if [[ $what == jacobian ]]; then
    x=$(printf '%s\n' "${ma[@]}" | median)
    note=$(awk -v x="$x" 'BEGIN {printf "%.1f MiB", x / 1048576}')
    if [[ -n $peer ]]; then
      y=$(printf '%s\n' "${mb[@]}" | median)
      note+=$(awk -v x="$x" -v y="$y" -v c="$chunk" 'BEGIN {printf ", %.1f MiB (chunk %d), %.3f", y / 1048576, c, x / y}')
    fi
  fi
  if [[ -n $peer ]]; then
    printf '%-20s %-9s %14.1f %14.1f %8.2f %s\n' "$model" "$what" "$(printf '%s\n' "${a[@]}" | median)" \
      "$(printf '%s\n' "${b[@]}" | median)" "$(printf '%s\n' "${ratios[@]}" | median)" "$note"
  else
    printf '%-20s %-9s %14.1f %14s %8s %s\n' "$model" "$what" "$(printf '%s\n' "${a[@]}" | median)" – – "$note"
  fi
done

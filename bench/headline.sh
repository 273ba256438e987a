#!/usr/bin/env bash
# The kernel of a ViT-B/32 (88M parameters, random weights under timm's names) in 10 shallow prompts on Fashion-MNIST resized to 224: prepares, forgets,
# checks the algebra in full and 100 samples' rows that are drawn by the record's hash. Interrupted anywhere, the same command goes on.
#   ./run.sh headline [SAMPLES, 5000] [FORGOTTEN, 500]
# Writes bench/results/headline-SAMPLES.json, and of 5,000 samples, not interrupted, a table into README.md and docs/ntk.md. They take about 535
# Tflop: 24 minutes at 374 Gflop/s.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=$root/build/release/fastntk
n=${1:-5000} forgotten=${2:-500}
if ! [[ $n =~ ^[0-9]+$ && $forgotten =~ ^[0-9]+$ ]] || ((forgotten == 0 || forgotten >= n)); then
  echo "headline: two numbers were expected, samples and how many of them are forgotten, got '$n' and '$forgotten'" >&2
  exit 2
fi
work=$root/build/headline-$n
state=$work/state model=$work/vit_base_patch32_224.safetensors
mkdir -p "$work"

run() { "$program" "${@:2}" --json "$work/$1.json"; }
result() { sed -nE 's/.*"'"$2"'": ?([0-9.eE+-]+).*/\1/p' "$work/$1.json" | head -n 1; }

whole=true
[[ ! -e $work/begun ]] || whole=false
touch "$work/begun"
start=$(date +%s)
[[ -e $model ]] || run model pretrain --arch vit_base_patch32_224 --option prompts=10 --epochs 0 \
  --transform resize:224x224:bicubic,rgb,normalise:inception --samples 0-0 --test-samples 0-0 -o "$model"
[[ -e $state ]] || run prepare prepare "$model" --subset prompt --l2 0.01 --samples "0-$((n - 1))" -o "$state"
[[ -e $state/record-000001.json ]] || run forget forget "$state" --where "random:$(awk -v f="$forgotten" -v n="$n" 'BEGIN {printf "%.10f", f / n}')"
run verify verify "$state/record-000001.json" --state "$state" --rows 100
run info info > /dev/null
seconds=$(($(date +%s) - start))
results=$root/bench/results/headline-$n.json
awk -v n="$n" -v forgotten="$forgotten" -v whole="$whole" -v seconds="$seconds" -v rows="$(result prepare flops)" \
  -v prepare="$(result prepare seconds)" -v forget="$(result forget seconds)" -v resident="$(result prepare peak_resident_bytes)" \
  -v peak="$(result prepare peak_bytes)" -v sgemm="$(result info sgemm_gflops)" -v difference="$(result verify difference)" 'BEGIN {
    printf "{\n  \"samples\": %d, \"forgotten\": %d, \"in_one_run\": %s, \"seconds\": %d,\n", n, forgotten, whole, seconds
    printf "  \"prepare_seconds\": %.1f, \"forget_seconds\": %.1f, \"prepare_flops\": %.4e,\n", prepare, forget, rows
    printf "  \"prepare_gflops\": %.1f, \"sgemm_gflops\": %.1f, \"of_sgemm\": %.3f,\n", rows / prepare / 1e9, sgemm, rows / prepare / 1e9 / sgemm
    printf "  \"peak_bytes\": %.0f, \"peak_resident_bytes\": %.0f, \"verified_difference\": %.2e\n}\n", peak, resident, difference}' > "$results.partial"
mv "$results.partial" "$results"
cat "$results"
if ((n == 5000)) && $whole; then "$root/bench/headline_table.sh" "$results"; fi

#!/usr/bin/env bash
# A GPU's speed: bench/device.sh [DEVICE [SCALE]], by default cuda. The report goes to build/device-DEVICE.json; with
# FASTNTK_TORCH_PYTHON (a Python with torch, torchvision and timm that sees the GPU) PyTorch's Jacobians are in it too.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
device=${1:-cuda} scale=${2:-1}
report=$root/build/device-$device.json
"$root/build/release/bench/bench_device" "$device" "$scale" > "$report.partial"
if [[ -n ${FASTNTK_TORCH_PYTHON:-} && $device == cuda ]]; then
  peers=()
  for case in "resnet18c 2048 256" "vit_base_patch32_224 512 64"; do
    read -r model n chunk <<< "$case"
    peers+=("$("$FASTNTK_TORCH_PYTHON" "$root/bench/torch_peer.py" "$model" "$n" jacobian 1 "$chunk" cuda || echo null)")
  done
  # One object more in the report: what each of PyTorch's runs said.
  sed -i '$ d' "$report.partial"
  { printf ',\n "pytorch": [\n  %s,\n  %s\n ]\n}\n' "${peers[@]}"; } >> "$report.partial"
fi
mv "$report.partial" "$report"
cat "$report"

#!/usr/bin/env bash
# The whole table of the README: both losses, bn+head and bn, n = 1,000 and 5,000, three oracles. Writes
# bench/results/table.md and table.json, and puts the table into README.md. About an hour on two cores. Arguments go to `fastntk demo`,
# e.g. `./run.sh table --n 1000`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
mkdir -p bench/results build/checkpoints
arguments=(--n 1000 5000 --subset bn+head bn --loss mse ce --oracle-seeds 2)
(($# == 0)) || arguments=("$@")
build/release/fastntk demo "${arguments[@]}" --checkpoints build/checkpoints --markdown bench/results/table.md --json bench/results/table.json
awk 'FNR == NR {table = table $0 "\n"; next}
     /<!-- table -->/ {print; printf "%s", table; skip = 1; next}
     /<!-- \/table -->/ {skip = 0}
     !skip' bench/results/table.md README.md > README.md.partial
mv README.md.partial README.md

#!/usr/bin/env bash
# What bench/headline.sh measured, as a table in README.md and docs/ntk.md: headline_table.sh FILE.json
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
file=$1
number() { sed -nE 's/.*"'"$1"'": ?([0-9.eE+-]+).*/\1/p' "$file" | head -n 1; }
shown() { awk -v x="$(number "$1")" -v scale="$2" -v form="$3" 'BEGIN {printf form, x / scale}'; }
table=$(mktemp)
trap 'rm -f "$table"' EXIT
{
  echo "| images | forgotten | prepare | forget | in all, checks included | rate | of sgemm here | peak | resident | difference from recomputation |"
  echo "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
  echo "| $(number samples) | $(number forgotten) | $(shown prepare_seconds 60 '%.1f min') | $(shown forget_seconds 1 '%.1f s') | $(shown seconds 60 '%.1f min') |" \
    "$(shown prepare_gflops 1 '%.0f Gflop/s') | $(shown of_sgemm 0.01 '%.0f%%') | $(shown peak_bytes 1073741824 '%.2f GiB') |" \
    "$(shown peak_resident_bytes 1073741824 '%.2f GiB') | $(number verified_difference) |"
} > "$table"
cat "$table"
for document in README.md docs/ntk.md; do "$root/bench/insert.sh" headline "$table" "$root/$document"; done

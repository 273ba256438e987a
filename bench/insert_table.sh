#!/usr/bin/env bash
# bench/insert_table.sh TABLE PAGE: puts the lines of TABLE between <!-- table --> and <!-- /table --> in PAGE.
set -euo pipefail
awk 'FNR == NR {table = table $0 "\n"; next}
     /<!-- table -->/ {print; printf "%s", table; skip = 1; next}
     /<!-- \/table -->/ {skip = 0}
     !skip' "$1" "$2" > "$2.partial"
mv "$2.partial" "$2"

#!/usr/bin/env bash
# Puts the text of a file between the lines <!-- NAME --> and <!-- /NAME --> of a document, in the place of what is there.
#   insert.sh NAME FILE DOCUMENT
set -euo pipefail
name=$1 file=$2 document=$3
grep -qF "<!-- $name -->" "$document" || { echo "insert.sh: $document has no line <!-- $name -->" >&2; exit 1; }
awk -v name="$name" 'FNR == NR {text = text $0 "\n"; next}
     $0 == "<!-- " name " -->" {print; printf "%s", text; skip = 1; next}
     $0 == "<!-- /" name " -->" {skip = 0}
     !skip' "$file" "$document" > "$document.partial"
mv "$document.partial" "$document"

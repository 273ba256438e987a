#!/usr/bin/env bash
# Mutations of the GPU's kernels, one at a time: a barrier removed, a bound widened, a mask narrowed. Each is compiled
# for the emulator and must be noticed by the tests of the emulated ops, under the address sanitizer.
#   tests/mutations/mutations.sh BUILD [FILE…]     BUILD: the asan build, with tests_engine; FILE: e.g. softmax.cu
# Fails when fewer than 95% of those that change anything are noticed, or one that is not has no explanation in survivors.txt.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$(cd "${1:?the folder of the asan build}" && pwd)
shift
kernels=$root/engine/cuda
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export root build kernels work

# Every mutant of a file: line, kind, and which of the line's places it is. Only device code is mutated: from a line
# with __global__ or __device__ to the brace that closes it.
mutants_of() {
  awk '
    function places(text, what,  n) { n = 0; while ((at = index(text, what)) > 0) { n++; text = substr(text, at + length(what)) } return n }
    function say(kind, what,  n, k) { n = places($0, what); for (k = 1; k <= n; k++) print FNR, kind, k }
    { code = $0; sub(/\/\/.*/, "", code) }
    !inside && (code ~ /__global__/ || code ~ /__device__/) { inside = 1; depth = 0; opened = 0 }
    inside {
      if (code ~ /__syncthreads\(\);/) say("barrier", "__syncthreads();")
      if (code ~ /all_lanes,/) say("mask", "all_lanes,")
      if (code !~ /if constexpr/) { say("bound<", " < "); say("bound>=", " >= ") }
      opens = gsub(/\{/, "{", code); closes = gsub(/\}/, "}", code)
      if (opens) opened = 1
      depth += opens - closes
      if ((opened && depth <= 0) || (!opened && code ~ /;[ ]*$/)) inside = 0
    }' "$1"
}
export -f mutants_of

# mutate FILE LINE KIND PLACE: the file with that one change.
mutate() {
  awk -v line="$2" -v kind="$3" -v place="$4" '
    function change(text, what, by,  before, at) {
      before = ""
      for (;;) {
        at = index(text, what)
        if (!at) return before text
        if (--place == 0) return before substr(text, 1, at - 1) by substr(text, at + length(what))
        before = before substr(text, 1, at + length(what) - 1); text = substr(text, at + length(what))
      }
    }
    FNR == line && kind == "barrier" { $0 = change($0, "__syncthreads();", ";") }
    FNR == line && kind == "mask" { $0 = change($0, "all_lanes,", "(all_lanes >> 1),") }
    FNR == line && kind == "bound<" { $0 = change($0, " < ", " <= ") }
    FNR == line && kind == "bound>=" { $0 = change($0, " >= ", " >= -1 + ") }
    { print }' "$1"
}
export -f mutate

# The sources that a mutated file is compiled into.
sources_of() {
  local name=$1 header
  case $name in
    *.cu) echo "$name" ;;
    *) for header in "$name" $(cd "$kernels" && grep -l "\"engine/cuda/$name\"" ./*.cuh | sed 's|^\./||'); do
         (cd "$kernels" && grep -l "\"engine/cuda/$header\"" ./*.cu | sed 's|^\./||')
       done | sort -u ;;
  esac
}
export -f sources_of

# try FILE LINE KIND PLACE: prints what became of the mutant.
try() {
  local name=$1 line=$2 kind=$3 place=$4 folder source objects=() command
  folder=$(mktemp -d "$work/mutant.XXXXXX")
  mkdir -p "$folder/engine/cuda"
  mutate "$kernels/$name" "$line" "$kind" "$place" > "$folder/engine/cuda/$name"
  local what
  what="$name	$kind $place	$(sed -n "${line}p" "$kernels/$name" | sed 's/^ *//')"
  for source in $(sources_of "$name"); do
    command=$(grep -F -- "-c $kernels/$source" "$work/commands")
    # Headers that were mutated come first; so does the mutated source.
    command=${command/ -I/ -I$folder -I}
    [[ $name != "$source" ]] || command=${command/"-c $kernels/$source"/"-c $folder/engine/cuda/$source"}
    command=$(sed -E "s| -o [^ ]+| -o $folder/$source.o|; s| -MF [^ ]+| -MF $folder/$source.d|" <<< "$command")
    if ! (cd "$build" && eval "$command") > "$folder/log" 2>&1; then
      echo "broken	$what"
      rm -rf "$folder"
      return
    fi
    objects+=("$folder/$source.o")
  done
  command=$(grep -F -- " -o tests/tests_engine " "$work/commands")
  command=${command/ -o tests\/tests_engine / -Wl,--allow-multiple-definition ${objects[*]} -o $folder/tests }
  # Never the mutant's doing: a full disk, say.
  if ! (cd "$build" && eval "$command") > "$folder/log" 2>&1; then
    tail -n 3 "$folder/log" >&2
    return 255  # xargs stops
  fi
  local code=0
  (cd "$folder" && ulimit -c 0 && timeout 600 ./tests "[device]" -w NoTests --abort > log 2>&1) || code=$?
  case $code in
    0) echo "survived	$what" ;;
    124 | 137) echo "stopped	$what" ;;  # by the clock, or for its memory: that shows nothing
    *) echo "noticed	$what" ;;
  esac
  rm -rf "$folder"
}
export -f try

ninja -C "$build" -t commands tests_engine > "$work/commands"
files=("$@")
((${#files[@]})) || mapfile -t files < <(find "$kernels" -maxdepth 1 -name '*.cu' -printf '%f\n' -o -name '*.cuh' -printf '%f\n' | sort)
for file in "${files[@]}"; do
  while read -r mutant; do echo "$file $mutant"; done < <(mutants_of "$kernels/$file")
done > "$work/mutants"
[[ -s $work/mutants ]] || { echo "mutations.sh: there is no device code to mutate in: ${files[*]}" >&2; exit 2; }
# Nothing is shown by tests that fail of themselves: with a change that changes nothing they must pass.
read -r first _ < "$work/mutants"
[[ $(try "$first" 1 none 1) == survived* ]] || { echo "mutations.sh: the tests of the kernels fail without a mutation" >&2; exit 1; }
total=$(wc -l < "$work/mutants")
echo "$total mutants of the kernels"
# shellcheck disable=SC2016  # the inner shell expands them
xargs -P "${FASTNTK_JOBS:-$(nproc)}" -L 1 bash -c 'try "$@"' _ < "$work/mutants" | tee "$work/results"

count() { grep -c "^$1" "$work/results" || true; }
noticed=$(count noticed) broken=$(count broken) survived=$(count survived) stopped=$(count stopped) unexplained=0 equivalent=0
while IFS=$'\t' read -r _ name change text; do
  why=$(awk -F '\t' -v name="$name" -v change="$change" -v text="$text" '$1 == name && $2 == change && $3 == text {print $4}' "$root/tests/mutations/survivors.txt")
  [[ -n $why ]] || unexplained=$((unexplained + 1))
  [[ $why != Equivalent:* ]] || equivalent=$((equivalent + 1))
  printf 'survivor: %s, %s: %s\n  %s\n' "$name" "$change" "$text" "${why:-NOT EXPLAINED}"
done < <(grep '^survived' "$work/results" || true)
echo "kernel mutations: $noticed of $((noticed + stopped + survived - equivalent)) noticed, $equivalent more change nothing, $broken do not compile, $stopped took too long, $unexplained survivors unexplained"
((noticed + survived + broken + stopped == total && noticed > 0 && 10 * broken < total))
((100 * noticed >= 95 * (noticed + stopped + survived - equivalent) && unexplained == 0))

#!/usr/bin/env bash
# Faults: faults.sh PROGRAM MODEL [KILLS]. Ends prepare, forget, a purge and ntk by kill -9 at random moments, and gives them a full
# disk, a folder that cannot be written, damaged files, a cut journal, two writers and a state of another version. Each time
# the state must be the one before or the one after, the error a sentence, and nothing lost.
set -euo pipefail

program=$1 pretrained=$2 kills=${3:-200}
export OPENBLAS_NUM_THREADS=1
RANDOM=${FAULTS_SEED:-1}
work=$(mktemp -d)
mounted=()
clean_up() {
  local folder
  for folder in "${mounted[@]}"; do umount "$folder"; done
  rm -rf "$work"
}
trap clean_up EXIT
state=$work/state

say() { printf '%s\n' "faults: $*"; }
fail() {
  say "$*" >&2
  exit 1
}
# Runs the program and keeps what it says in $said.
quietly() { said=$("$program" "$@" --quiet 2>&1); }
must() { quietly "$@" || fail "'$*' failed: $said"; }
# The command fails with exit code 1 and a line that has all of the words given before --.
refused() {
  local words=() word code=0
  while [[ $1 != -- ]]; do words+=("$1") && shift; done
  shift
  quietly "$@" || code=$?
  ((code == 1)) || fail "'$*' ended with $code instead of 1: $said"
  for word in "${words[@]}"; do [[ $said == *"$word"* ]] || fail "'$*' does not speak of '$word': $said"; done
}
entries() { wc -l < "$state/journal.jsonl"; }
record() { printf '%s/record-%06d.json' "$state" "$1"; }
# All that is promised of a state: it can be read as a whole, and its last record verifies.
intact() {
  must forget "$state" --where first:1 --dry-run
  (($(entries) == 0)) || must verify "$(record "$(entries)")" --state "$state"
}
# After a whole request nothing is there that a killed process half-wrote of samples.
no_leftovers() {
  local left
  left=$(find "$state" "$state.rows.partial" -name '*.partial' 2> /dev/null || true)
  [[ -z $left ]] || fail "left behind: $left"
}
# Starts the program and kills it after a random part of the $1 seconds that it takes undisturbed, and a little more.
killed=0
kill_at_random() {
  local whole=$1 process
  shift
  "$program" "$@" --quiet > "$work/said" 2>&1 &
  process=$!
  sleep "$(awk -v whole="$whole" -v r="$RANDOM" 'BEGIN { print 1.1 * whole * r / 32768 }')"
  if kill -9 "$process" 2> /dev/null; then killed=$((killed + 1)); fi
  wait "$process" 2> /dev/null || true
}
seconds_of() {
  local start=$EPOCHREALTIME
  must "$@"
  awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'
}

model=$work/tuned.safetensors
must finetune "$pretrained" -o "$model" --samples '30000-59999 per-class:5' --epochs 1 --loss mse
prepare=(prepare "$model" -o "$state")
prepare_time=$(seconds_of "${prepare[@]}")
cp -r "$state" "$work/prepared"
forget_time=$(seconds_of forget "$state" --where first:1)
purge_time=$(seconds_of forget "$state" --where first:1 --purge)
kernel=(ntk "$model" --subset bn --data fashion-mnist --samples first:40)
kernel_time=$(seconds_of "${kernel[@]}" -o "$work/whole.npy")
spectrum=("${kernel[@]}" --spectrum --representation primal)
must "${spectrum[@]}" --plot "$work/whole.svg" --rank 0/2
spectrum_time=$(seconds_of "${spectrum[@]}" --plot "$work/whole.svg")

# kill -9, in turn.
for ((i = 0; i < kills; i++)); do
  case $((i % 5)) in
    0)
      rm -rf "$state"
      kill_at_random "$prepare_time" "${prepare[@]}"
      if [[ ! -e $state ]]; then must "${prepare[@]}"; fi
      # Whole, and the same as ever: not only as good as its own manifest says.
      diff -rq --exclude manifest.json "$work/prepared" "$state" > "$work/difference" || fail "prepare $i: $(cat "$work/difference")"
      ;;
    1)
      before=$(entries)
      kill_at_random "$forget_time" forget "$state" --where "random:0.05@$i"
      after=$(entries)
      ((after == before || after == before + 1)) || fail "forget $i: $before entries before, $after after"
      intact
      must forget "$state" --where first:1
      (($(entries) == after + 1)) || fail "forget $i: no entry came after entry $after"
      intact
      no_leftovers
      ;;
    2)
      kill_at_random "$kernel_time" "${kernel[@]}" -o "$work/kernel.npy"
      [[ ! -e $work/kernel.npy ]] || cmp "$work/whole.npy" "$work/kernel.npy"
      must "${kernel[@]}" -o "$work/kernel.npy"
      cmp "$work/whole.npy" "$work/kernel.npy"
      rm "$work/kernel.npy"
      ;;
    3)
      before=$(entries)
      kill_at_random "$purge_time" forget "$state" --where "random:0.05@$i" --purge
      after=$(entries)
      ((after >= before && after <= before + 2)) || fail "purge $i: $before entries before, $after after"
      intact
      must restore "$state" --to 0
      intact
      no_leftovers
      ;;
    4)
      if ((RANDOM % 2)); then rank=(--rank 0/2); else rank=(); fi
      must "${spectrum[@]}" --plot "$work/kernel.svg" --rank 1/2
      kill_at_random "$spectrum_time" "${spectrum[@]}" --plot "$work/kernel.svg" "${rank[@]}"
      # Where it was killed as it removed what it was made of, less than both ranks may be left: one more makes it two again.
      must "${spectrum[@]}" --plot "$work/kernel.svg" --rank 0/2
      must "${spectrum[@]}" --plot "$work/kernel.svg"
      cmp "$work/whole.svg" "$work/kernel.svg"
      rm "$work/kernel.svg"
      left=$(find "$work" -name 'kernel.svg*')
      [[ -z $left ]] || fail "left behind: $left"
      ;;
  esac
done
((3 * killed >= kills)) || fail "only $killed of $kills kills came while the program ran"
say "$kills kills, $killed of them while the program ran: every state was the one before or the one after"

fresh() {
  rm -rf "$state"
  cp -r "$work/prepared" "$state"
}
fresh
must forget "$state" --where first:2
must forget "$state" --where first:1

# A byte changed in each file of the state. What reads the file says so; nothing crashes or goes on.
files=0
for file in "$state"/*; do
  size=$(stat -c %s "$file")
  places=($((size / 3)))
  ((kills < 100)) || places+=($((size - 2)) $((RANDOM * 32768 % size)) $((RANDOM % size)))
  for at in "${places[@]}"; do
    cp "$file" "$work/kept"
    byte=$(od -An -tu1 -j "$at" -N 1 "$file")
    printf '%b' "\\x$(printf '%x' $((byte ^ 1)))" | dd of="$file" bs=1 seek="$at" conv=notrunc status=none
    named=0
    for command in "forget $state --where first:1 --dry-run" "verify $(record 1) --state $state" \
      "verify $(record 2) --state $state"; do
      code=0
      # shellcheck disable=SC2086  # words
      quietly $command || code=$?
      case $code in
        0) ;;
        1) if [[ $said == *"$(basename "$file")"* ]]; then named=1 && break; fi ;;
        *) fail "$file, byte $at: '$command' ended with $code: $said" ;;
      esac
    done
    ((named)) || fail "$file: nothing spoke of the byte changed at $at"
    cp "$work/kept" "$file"
  done
  files=$((files + 1))
done
intact
say "a byte changed in each of $files files: named"

# A journal that lost its end, and one that lost a line.
cp "$state/journal.jsonl" "$work/journal"
truncate -s -5 "$state/journal.jsonl"
refused journal.jsonl -- forget "$state" --where first:1
head -n 1 "$work/journal" > "$state/journal.jsonl"
refused journal.jsonl -- forget "$state" --where first:1
tail -n 1 "$work/journal" > "$state/journal.jsonl"
refused journal.jsonl "line 1" -- forget "$state" --where first:1
cp "$work/journal" "$state/journal.jsonl"
# What was never acknowledged is cut off.
printf '{"hash":"12' >> "$state/journal.jsonl"
must forget "$state" --where first:1
(($(entries) == 3)) || fail "the line that was never finished is still there"
intact
say "a cut journal: named; a line never finished: cut off"

# Two writers.
for ((i = 0; i < 4; i++)); do
  before=$(entries)
  "$program" forget "$state" --where first:1 --quiet > "$work/one" 2>&1 &
  one=$!
  "$program" forget "$state" --where first:1 --quiet > "$work/two" 2>&1 &
  two=$!
  done_now=0
  if wait $one; then done_now=$((done_now + 1)); else grep -q 'another process is writing' "$work/one" || fail "$(cat "$work/one")"; fi
  if wait $two; then done_now=$((done_now + 1)); else grep -q 'another process is writing' "$work/two" || fail "$(cat "$work/two")"; fi
  ((done_now >= 1 && $(entries) == before + done_now)) || fail "two writers: $done_now were served, $(($(entries) - before)) entries came"
  intact
done
rm -rf "$state"
"$program" "${prepare[@]}" --quiet > "$work/one" 2>&1 &
one=$!
"$program" "${prepare[@]}" --quiet > "$work/two" 2>&1 &
two=$!
done_now=0
if wait $one; then done_now=$((done_now + 1)); fi
if wait $two; then done_now=$((done_now + 1)); fi
((done_now == 1)) || fail "two prepared one state, $done_now were served: $(cat "$work/one" "$work/two")"
diff -rq --exclude manifest.json "$work/prepared" "$state" > "$work/difference" || fail "two prepared one state: $(cat "$work/difference")"
say "two writers: one at a time"

# A state of another version.
fresh
sed -i 's/"format_version": [0-9]*/"format_version": 999/' "$state/manifest.json"
refused manifest.json "version 999" -- forget "$state" --where first:1
say "a state of another version: named"

# A full disk and a folder that cannot be written, on file systems of their own where this machine lets us make them.
disk=$work/disk
mkdir "$disk"
size=$(du -sk "$work/prepared" | cut -f 1)
if mount -t tmpfs -o "size=${size}k" tmpfs "$disk" 2> /dev/null; then
  mounted+=("$disk")
  state=$disk/state
  # Room for half of it.
  head -c $((size * 512)) /dev/zero > "$disk/filler"
  refused "No space left" -- prepare "$model" -o "$state"
  [[ ! -e $state ]] || fail "a state was left where it had no room"
  rm "$disk/filler"
  umount "$disk"
  mount -t tmpfs -o "size=$((size + 2048))k" tmpfs "$disk"
  cp -r "$work/prepared" "$state"
  must forget "$state" --where first:1
  cat /dev/zero > "$disk/filler" 2> /dev/null || true
  cp "$state/journal.jsonl" "$work/journal"
  refused "No space left" -- forget "$state" --where first:1
  cmp "$work/journal" "$state/journal.jsonl"
  intact
  rm "$disk/filler"
  must forget "$state" --where first:1
  intact
  mount -o remount,ro "$disk"
  refused "Read-only" -- forget "$state" --where first:1
  intact
  say "a full disk and a read-only one: named, nothing lost"
else
  # Files of at most a block of 1 KiB, as good as a full disk.
  fresh
  code=0
  said=$( (ulimit -f 1 && trap '' XFSZ && "$program" forget "$state" --where first:1 --quiet) 2>&1) || code=$?
  [[ $code == 1 && $said == *"cannot write"* ]] || fail "a limit on files: $code, $said"
  intact
  must forget "$state" --where first:1
  intact
  say "no file system could be made here: a limit on the size of files in its place: named, nothing lost"
fi
say "all passed"

#!/usr/bin/env bash
# Installs what is missing, builds, and runs. `./run.sh help` lists the commands.
# shellcheck disable=SC2317  # the functions command_NAME are called by name
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program=$root/build/release/fastntk
jobs=$(nproc)

# Debian 12 packages: to build and run, for `check` alone, and for `fuzz` alone.
packages=(g++ cmake ninja-build pkg-config libopenblas-dev liblapacke-dev libeigen3-dev catch2 libcli11-dev
  nlohmann-json3-dev libfmt-dev zlib1g-dev libzip-dev libssl-dev libjpeg-dev libpng-dev libmatio-dev
  dataset-fashion-mnist)
check_packages=(git clang-format-16 clang-tidy-16 shellcheck)
fuzz_packages=(clang-16 libclang-rt-16-dev)

# Name of a command (the function command_NAME below runs it), and what it does.
commands=(
  demo "fine-tune on private data, forget, and compare with retraining, in one table (arguments go to 'fastntk demo')"
  test "build everything and run the tests"
  check "all of it: every combination of the op tests, 200 kills and other faults, sanitizers, mutated kernels, a foreign project, formatting, static analysis"
  faults "end prepare, forget and ntk by kill -9, fill the disk, damage files: faults [KILLS, 200]"
  mutations "remove a barrier, widen a bound, narrow a mask in the GPU's kernels, one at a time: the tests must notice: mutations [FILE…]"
  fuzz "give every reader damaged files, under the sanitizers: fuzz [EXECUTIONS of each, 1000000] [TARGET…]"
  gpu "build for NVIDIA GPUs, test ops, solvers, training and unlearning on the one that is here, and measure its speed"
  bench "measure the speed, beside PyTorch where one is found; 'bench ntk': the kernel, beside neural-tangents too;
    'bench deletion': requests; 'bench scaling': figures of cost against size; 'bench ancestor': all parameters beside a few; 'bench precision': products in bf16"
  parity "compare full-size models with PyTorch, torchvision and timm (a Python that has them: FASTNTK_TORCH_PYTHON)"
  table "make the whole table that the README shows"
  table-vit "make the tables of the vision transformer (docs/vit.md)"
  headline "the kernel of a ViT-B/32 on 5,000 images: prepare, forget, verify (about an hour; goes on where it was interrupted)"
  build "build everything"
  help "this list"
)

command_demo() {
  build fastntk_app
  exec "$program" demo "$@"
}

command_test() {
  build all
  run_tests release "$@"
}

command_check() {
  install_packages "${check_packages[@]}"
  build all
  FASTNTK_TEST_GRID=full run_tests release
  "$root/build/release/tests/tests_apps" "[.emulated-demo]" -w NoTests
  # shellcheck disable=SC2119  # its arguments are those of `./run.sh faults`
  command_faults
  local preset
  for preset in asan tsan; do
    (cd "$root" && cmake --preset "$preset" && cmake --build --preset "$preset" -j "$jobs")
    run_tests "$preset"
  done
  # Every case of every op on the emulated GPU once more under the sanitizers (the presets' tests have two of each).
  check_emulated_ops
  command_mutations
  check_subdirectory
  check_style
  say "check: all passed"
}

check_emulated_ops() {
  local test="every op gives the same on a device as on the CPU*" parts=32
  FASTNTK_TEST_GRID=full "$root/build/asan/tests/tests_engine" "$test" -w NoTests
  # What the thread sanitizer remembers slows it down: a process for each part of the samples, two at a time for their memory.
  export -f under_preset
  # shellcheck disable=SC2016  # expanded by the shell that xargs starts
  seq 0 $((parts - 1)) | FASTNTK_TEST_GRID=full TSAN_OPTIONS=memory_limit_mb=6000 xargs -P 2 -I @part@ \
    bash -c 'FASTNTK_TEST_PART=$1 under_preset tsan "${@:2}"' - "@part@/$parts" "$root/build/tsan/tests/tests_engine" "$test" -w NoTests
}

# shellcheck disable=SC2120
command_mutations() {
  install_packages "${packages[@]}"
  (cd "$root" && cmake --preset asan && cmake --build --preset asan -j "$jobs" --target tests_engine)
  "$root/tests/mutations/mutations.sh" "$root/build/asan" "$@"
}

# shellcheck disable=SC2120
command_faults() {
  build fastntk_app
  "$root/tests/faults/faults.sh" "$program" "$root/checkpoints/resnet20-fashion-mnist-0-8.safetensors" "$@"
}

command_fuzz() {
  install_packages "${packages[@]}" "${fuzz_packages[@]}"
  (cd "$root" && cmake --preset fuzz && cmake --build --preset fuzz -j "$jobs")
  exec "$root/fuzz/run.sh" "$@"
}

command_gpu() {
  FASTNTK_CUDA=ON
  build all
  "$program" info --devices
  FASTNTK_TEST_GRID=full run_tests release -R "on a GPU" --verbose
  if "$program" info --devices | grep -q '^cuda  GPU'; then "$root/bench/device.sh" cuda; fi
}

command_bench() {
  build all
  case ${1:-} in
    ntk | deletion | scaling | ancestor | precision) exec "$root/bench/$1.sh" "${@:2}" ;;
    *) exec "$root/bench/run.sh" "$@" ;;
  esac
}

command_parity() {
  if [[ -z ${FASTNTK_TORCH_PYTHON:-} ]]; then
    say "parity needs PyTorch: set FASTNTK_TORCH_PYTHON to a Python that has torch, torchvision, timm and safetensors"
    exit 1
  fi
  build fastntk_app
  exec "$FASTNTK_TORCH_PYTHON" "$root/tests/parity/parity.py" "$program" "$@"
}

command_table() {
  build fastntk_app
  exec "$root/bench/table.sh" "$@"
}

command_table-vit() {
  build fastntk_app
  exec "$root/bench/table_vit.sh" "$@"
}

command_headline() {
  build fastntk_app
  exec "$root/bench/headline.sh" "$@"
}

command_build() {
  build all
}

command_help() {
  echo "usage: ./run.sh COMMAND [ARGUMENT…]"
  local i
  for ((i = 0; i < ${#commands[@]}; i += 2)); do printf '  %-9s %s\n' "${commands[i]}" "${commands[i + 1]}"; done
}

say() { printf '%s\n' "run.sh: $*" >&2; }

# Installs those of the packages named that are missing.
install_packages() {
  if ! command -v dpkg-query > /dev/null; then
    say "this is not a Debian system: make sure that the equivalents of these Debian packages are installed: $*"
    return
  fi
  local package missing=() sudo=()
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  if ((EUID != 0)); then
    if ! command -v sudo > /dev/null; then
      say "these packages are missing, and only root can install them: apt-get install ${missing[*]}"
      exit 1
    fi
    sudo=(sudo)
  fi
  say "installing ${missing[*]}"
  "${sudo[@]}" apt-get update -q
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
}

# Configures and builds one target of the release preset; for NVIDIA GPUs too where nvcc is found, unless FASTNTK_CUDA is OFF.
build() {
  install_packages "${packages[@]}"
  (cd "$root" && cmake --preset release -D FASTNTK_CUDA="${FASTNTK_CUDA:-AUTO}" && cmake --build --preset release -j "$jobs" --target "$1")
}

# Runs a command of a preset's build. The thread sanitizer of GCC 12 does not start under the address randomisation of newer kernels.
under_preset() {
  local preset=$1
  shift
  if [[ $preset == tsan ]] && setarch -R true 2> /dev/null; then setarch -R "$@"; else "$@"; fi
}

# Runs the tests of a preset; the last lines are ctest's own.
run_tests() {
  local preset=$1
  shift
  # Before ctest's closing lines: what the tests of the ops counted, the run over all of them and the mutation check. The
  # log has its final name only when ctest ends.
  (cd "$root" && under_preset "$preset" ctest --preset "$preset" -j "$jobs" "$@") | awk -v log_file="$root/build/$preset/Testing/Temporary/LastTest.log" '
    function read(name,  line, fields) {
      while ((getline line < name) > 0) {
        if (line ~ /^op tests:/ && split(line, fields) && fields[3] + 0 > most) { most = fields[3] + 0; ops = line }
        if (line ~ /^mutation check:/) mutations = line
      }
      close(name)
    }
    / tests passed, / { read(log_file ".tmp"); if (!ops) read(log_file); if (ops) print ops; if (mutations) print mutations }
    { print; fflush() }'
}

# The foreign project of tests/consumer once more, with the library as a subdirectory (the tests use an installed one).
check_subdirectory() {
  local work=$root/build/subdirectory
  cmake -S "$root/tests/consumer" -B "$work" -G Ninja -DCMAKE_BUILD_TYPE=Release -DFASTNTK_SOURCE="$root"
  cmake --build "$work" -j "$jobs" --target consumer
  "$work/consumer"
}

check_style() {
  cd "$root"
  local sources
  mapfile -t sources < <(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')
  clang-format-16 --dry-run -Werror "${sources[@]}"
  shellcheck run.sh fuzz/run.sh tests/faults/faults.sh tests/mutations/mutations.sh .ci/run bench/*.sh
  # GCC's warning flags are not all known to clang.
  git ls-files '*.cpp' ':!tests/consumer' |
    xargs -P "$jobs" -n 1 clang-tidy-16 -p build/release --quiet --extra-arg=-Wno-unknown-warning-option
}

name=${1:-help}
(($# == 0)) || shift
for ((i = 0; i < ${#commands[@]}; i += 2)); do
  if [[ ${commands[i]} == "$name" ]]; then
    "command_$name" "$@"
    exit
  fi
done
say "there is no command '$name'"
command_help >&2
exit 2

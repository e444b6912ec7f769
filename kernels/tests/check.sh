#!/usr/bin/env bash
# What must hold of the CPU kernels beyond their numbers (tests/kernels has those): no undefined behaviour, no data race, no size that wraps round, no
# instruction of a later machine, and on Arm the same results. Everything is built under the folder given; nothing installed is used.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build/check}
mkdir -p "$out"

. kernels/tests/steps.sh
said() { grep -q "$1" "$out/log" || { echo "FAILED: nothing says \"$1\""; cat "$out/log"; exit 1; }; }
silent() { ! grep -q "$1" "$out/log" || { echo "FAILED: $2"; cat "$out/log"; exit 1; }; }

missing=()
need() { command -v "$1" >/dev/null || missing+=("$1 (Debian, Ubuntu: apt-get install $2)"); }
need cmake cmake
need ninja ninja-build
need g++ g++
need nm binutils
if [ "$(uname -m)" = x86_64 ]; then
  need qemu-x86_64 qemu-user
  need qemu-aarch64 qemu-user
  need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
  need aarch64-linux-gnu-nm binutils-aarch64-linux-gnu
fi
if [ "${#missing[@]}" -gt 0 ]; then
  printf 'make kernels-check needs: %s\n' "${missing[@]}"
  exit 1
fi

# build NAME TARGETS [CMAKE OPTIONS…]
build() {
  local folder=$out/$1 targets=$2
  shift 2
  cmake -S kernels -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release "$@" && cmake --build "$folder" --parallel 2 --target $targets
}

only_copies() { ! aarch64-linux-gnu-nm --undefined-only --format=posix "$1" | grep -vE '^(memcpy|memset) '; }

step "address and undefined-behaviour sanitizers: build"
try build address "splat_cpu splat_every_call" -DSPLAT_SANITIZE=address
step "  every call, odd sizes, extreme values, 1 and 3 threads"
try "$out/address/splat_every_call"
step "thread sanitizer: build"
try build thread "splat_cpu splat_every_call" -DSPLAT_SANITIZE=thread
step "  every call with 3 threads"
# Wide address randomisation takes the place where this sanitizer keeps its shadow; not every container lets it be switched off.
fixed=()
setarch -R true 2>/dev/null && fixed=(setarch -R)
try "${fixed[@]}" "$out/thread/splat_every_call" quick
step "release build"
try build native "splat_cpu splat_tests"
step "  sizes at and beyond the limits, in 1 GiB of address space"
try "$out/native/splat_limits"
step "  results of the best instruction set"
try "$out/native/splat_results" write "$out/best.bin"

[ "$(uname -m)" = x86_64 ] || exit 0

# An emulated machine stops at the first instruction that it does not have.
haswell=Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm
step "  AVX2 on a machine without AVX-512"
try qemu-x86_64 -cpu $haswell "$out/native/splat_every_call" quick
said "avx2: right"
silent "avx512: " "AVX-512 was offered to a machine without it"
step "  SSE2 on a machine without AVX"
try qemu-x86_64 -cpu Nehalem "$out/native/splat_every_call" quick
said "generic: right"
silent "avx" "AVX was offered to a machine without it"
step "Arm: build"
try build arm "splat_cpu splat_tests" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
arm=(qemu-aarch64 -L /usr/aarch64-linux-gnu)
step "  loops call no function but memcpy and memset"
try only_copies "$out"/arm/CMakeFiles/splat_cpu.dir/cpu/isa_generic.cpp.o
step "  every call"
try "${arm[@]}" "$out/arm/splat_every_call" quick
said "neon: right"
step "  results"
try "${arm[@]}" "$out/arm/splat_results" write "$out/arm.bin"
step "  image, loss, gradients, Adam as on this machine"
try "$out/native/splat_results" compare "$out/best.bin" "$out/arm.bin"
cat "$out/log"

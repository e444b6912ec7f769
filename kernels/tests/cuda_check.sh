#!/usr/bin/env bash
# What can be known of the CUDA kernels without a card: that they compile for every architecture without spills and take what they took before, and that
# their logic is right, thread by thread, on the CPU (kernels/shim), without races and reads of what was never written. Everything is built under the
# folder given.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build/cuda-check}
python=${PYTHON:-python3}
mkdir -p "$out"

. kernels/tests/steps.sh

build() {  # FOLDER TARGETS OPTIONS…
  local folder=$out/$1 targets=$2
  shift 2
  cmake -S kernels -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release "$@" && cmake --build "$folder" --parallel 2 --target $targets
}

if command -v nvcc >/dev/null; then
  step "nvcc: every architecture"
  rm -rf "$out/nvcc"  # the report is printed while compiling: all of it has to be compiled
  try build nvcc splat_cuda -DSPLAT_CUDA=ON
  cp "$out/log" "$out/ptxas.log"
  version=$(nvcc --version | sed -n 's/.*release.*, V//p')
  step "  registers, shared memory, no spills"
  try "$python" -m bench.cuda_resources "$out/ptxas.log" --compiler "$version"
else
  echo "nvcc is not installed: the CUDA sources are checked by g++ and the shim alone"
fi

step "the same sources for the CPU: build"
try build shim "splat_cuda splat_cpu" -DSPLAT_SHIM=ON
for seed in 1 2; do
  step "  image, loss, gradients, Adam against the reference, seed $seed"
  SPLATWORKS_KERNELS=$out/shim SPLAT_SHIM_SEED=$seed try "$python" -m pytest -q -p no:cacheprovider tests/kernels -k cuda
done
step "  the train stage, memory that runs out, CPU and card in turns"
SPLATWORKS_KERNELS=$out/shim try "$python" -m pytest -q -p no:cacheprovider tests/engine/train/test_on_card.py
step "  the compress stage"
SPLATWORKS_KERNELS=$out/shim SPLATWORKS_DEVICE=cuda try "$python" -m pytest -q -p no:cacheprovider tests/engine/compress/test_compress.py
step "  address and undefined-behaviour sanitizers: build"
try build address "splat_cuda splat_every_call_cuda" -DSPLAT_SHIM=ON -DSPLAT_SANITIZE=address
step "  every call, odd sizes, a card as late as it may be"
SPLAT_SHIM_LATE=1 try "$out/address/splat_every_call_cuda" quick 1
step "  races, reads of what was never written: build"
try build races "splat_every_call_cuda splat_watched splat_faults splat_shadow" -DSPLAT_SHIM=ON -DSPLAT_SANITIZE=races
step "  what is put in is found: mistakes, each barrier left out"
try kernels/tests/watch_faults.sh "$out/races"
for late in 0 1; do
  step "  every call, odd sizes, $([ $late = 1 ] && echo late || echo at once)"
  SPLAT_SHIM_LATE=$late SPLAT_SHIM_SEED=$((late + 1)) try "$out/races/splat_every_call_cuda" quick 1
done

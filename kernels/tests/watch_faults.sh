#!/usr/bin/env bash
# Whether the watch finds what is wrong, and only that, in a build with SPLAT_SANITIZE=races: kernels with a mistake each (faults.cu); and our own kernels
# when a barrier is said to order nothing, every one, or a store to write nothing. A barrier without which nothing is wrong is told too: it can go.
set -euo pipefail
cd "$(dirname "$0")/../.."
built=$1
said=$built/said
failures=0

fail() {
  echo "$1"
  failures=$((failures + 1))
}

# PROGRAM… must end with the watch's status and say WHAT; with nothing asked for, end well.
expect() {  # NAME WHAT PROGRAM…
  local name=$1 what=$2 status=0
  shift 2
  "$@" >"$said" 2>&1 || status=$?
  if [ -z "$what" ]; then
    [ $status -eq 0 ] || fail "$name is right, and the watch says (status $status): $(tail -n 3 "$said")"
  else
    [ $status -eq 66 ] && grep -q "watch: .*$what" "$said" || fail "$name: status $status, and the watch does not say: $what"
  fi
}

expect "what is kept of the past" "" "$built/splat_shadow"
while IFS=$'\t' read -r name what; do expect "$name" "$what" "$built/splat_faults" "$name"; done < <("$built/splat_faults" list)

# What is counted (shim/accesses.h): requests, lanes, sectors or rounds of the banks, the least of them, sectors met for the first time.
expect_counts() {  # NAME WHAT BYTES COUNTS…
  local name=$1 row
  shift
  row=$(printf '%s\t' "$@")
  SPLAT_WATCH_ACCESSES=$said "$built/splat_faults" "$name" && grep -q "${row%?}\$" "$said" || fail "$name: $* is not what was counted: $(cat "$said")"
}
expect_counts reads_side_by_side "card load" 4 6 192 24 24 24
expect_counts reads_a_sector_each "card load" 4 6 192 192 24 192
expect_counts banks_met_once "shared store" 4 6 192 6 6 0
expect_counts banks_met_twice "shared store" 4 6 192 12 6 0
expect_counts wide_banks_met_once "shared load" 16 6 192 24 24 0
expect_counts wide_banks_met_twice "shared load" 16 6 192 48 24 0

expect "the walk" "" "$built/splat_watched"
for place in $(grep -n '__syncthreads\|__syncwarp' kernels/cuda/*.cu kernels/cuda/*.h | sed 's|kernels/cuda/||' | cut -d: -f1,2); do
  expect "nothing is wrong without the barrier at $place (it can go, or splat_watched needs a scene that needs it)" "race in" env "SPLAT_WATCH_WITHOUT=$place" "$built/splat_watched"
done

stores='f\.masks\[.*\] = |f\.finals\[.*\] = |f\.n_touched\[.*\] = |f\.partial\[.*\] = '
for place in $(grep -nE "$stores" kernels/cuda/*.cu | sed 's|kernels/cuda/||' | cut -d: -f1,2); do
  expect "without the store at $place" "read of what was never written" env "SPLAT_WATCH_WITHOUT=$place" "$built/splat_watched"
done
exit $((failures > 0))

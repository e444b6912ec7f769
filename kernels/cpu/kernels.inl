// One instruction set's whole set of loops: included by each isa_*.cpp, everything in an anonymous namespace but the table.
#define ALIGNED __attribute__((aligned(64)))

namespace splat {
namespace {

#include "simd.h"

#include "../common/geometry.h"
#include "../common/sh.h"
#include "bin.inl"
#include "project.inl"
#include "forward.inl"
#include "backward.inl"
#include "contribution.inl"
#include "gradient.inl"
#include "loss.inl"
#include "match.inl"

static_assert(sizeof(ForwardScratch) <= SCRATCH_BYTES && sizeof(BackwardScratch) <= SCRATCH_BYTES && sizeof(LossScratch) <= SCRATCH_BYTES,
              "a thread's scratch holds any pass");

// Ten independent chains of FMAs: what this core can do at most, by the same clock as everything else.
static double spin(int64_t iterations) {
  vf a[10], scale = set1(0.999f), add = set1(0.001f);
  for (int k = 0; k < 10; k++) a[k] = set1((float)k);
  for (int64_t i = 0; i < iterations; i++) {
#pragma GCC unroll 10
    for (int k = 0; k < 10; k++) a[k] = fma(a[k], scale, add);
    __asm__ volatile("");
  }
  vf sum = zero();
  for (int k = 0; k < 10; k++) sum = sum + a[k];
  volatile float keep_it = sum_lanes(sum);
  (void)keep_it;
  return (double)iterations * 10 * 2 * LANES;
}

}  // namespace

extern const IsaTable SPLAT_ISA_TABLE;
const IsaTable SPLAT_ISA_TABLE = {SPLAT_ISA_NAME, project, place, sort, forward, backward,
                                  contribution,   gather_contribution, gradient, target, loss, spin,
                                  match_pack,     match, MATCH_WIDTH, sizeof(MatchElement)};

}  // namespace splat

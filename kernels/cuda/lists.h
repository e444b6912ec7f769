// A region's own entries out of a bucket's, by depth: forward and backward walk the same.
#pragma once
#include "types.h"

namespace splat::gpu {

// Lists the places, from `first` on, of those that touch a region, filled up to whole sets with `none`; returns how many do. `mask_of(k)`: the regions that
// this lane's entry of the k-th batch touches. The barrier is for the list, and for what the warp wrote before.
template <class Mask> SPLAT_DEVICE int list_region(int region, int lane, int first, int none, uint16_t *list, Mask mask_of) {
  int n = 0;
  for (int k = 0; k < BUCKET / BATCH; k++) {
    const bool touches = mask_of(k) >> region & 1;
    const uint32_t all = __ballot_sync(ALL_LANES, touches);
    if (touches) list[n + __popc(all & ~(ALL_LANES << lane))] = static_cast<uint16_t>(first + BATCH * k + lane);
    n += __popc(all);
  }
  if (lane < SET) list[n + lane] = static_cast<uint16_t>(none);
  __syncwarp();
  return n;
}

}  // namespace splat::gpu

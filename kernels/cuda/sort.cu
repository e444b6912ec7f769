// The one place that knows CUB.
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "check.h"
#include "kernels.h"

namespace splat::gpu {

namespace {

template <class Key> cudaError_t sort_by(SortTemp &temp, const TileSort &s, cudaStream_t stream) {
  return cub::DeviceRadixSort::SortPairs(temp.memory, temp.bytes, static_cast<const Key *>(s.keys), static_cast<Key *>(s.keys_out), s.values,
                                         s.values_out, s.n, 0, s.bits, stream);
}

}  // namespace

void sort_depths(SortTemp &temp, const DepthSort &s, cudaStream_t stream) {
  check(cub::DeviceRadixSort::SortPairs(temp.memory, temp.bytes, s.keys, s.keys_out, s.ids, s.ids_out, s.n, 0, 32, stream), "sorting by depth");
}

void sort_tiles(SortTemp &temp, const TileSort &s, cudaStream_t stream) {
  check(s.short_keys ? sort_by<uint16_t>(temp, s, stream) : sort_by<uint32_t>(temp, s, stream), "sorting by tile");
}

void sum_before(SortTemp &temp, uint64_t *values, int64_t n, cudaStream_t stream) {
  check(cub::DeviceScan::ExclusiveSum(temp.memory, temp.bytes, values, values, n, stream), "summing counts");
}

}  // namespace splat::gpu

// The one place that knows CUB.
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "check.h"
#include "kernels.h"

namespace splat::gpu {

void sort_depths(SortTemp &temp, const uint32_t *keys, uint32_t *keys_out, const uint32_t *ids, uint32_t *ids_out, int64_t n, cudaStream_t stream) {
  check(cub::DeviceRadixSort::SortPairs(temp.memory, temp.bytes, keys, keys_out, ids, ids_out, n, 0, 32, stream), "sorting by depth");
}

void sort_tiles(SortTemp &temp, bool short_keys, const void *keys, void *keys_out, const uint32_t *values, uint32_t *values_out, int64_t n, int bits,
                cudaStream_t stream) {
  if (short_keys)
    check(cub::DeviceRadixSort::SortPairs(temp.memory, temp.bytes, static_cast<const uint16_t *>(keys), static_cast<uint16_t *>(keys_out), values,
                                          values_out, n, 0, bits, stream),
          "sorting by tile");
  else
    check(cub::DeviceRadixSort::SortPairs(temp.memory, temp.bytes, static_cast<const uint32_t *>(keys), static_cast<uint32_t *>(keys_out), values,
                                          values_out, n, 0, bits, stream),
          "sorting by tile");
}

void sum_before(SortTemp &temp, uint64_t *values, int64_t n, cudaStream_t stream) {
  check(cub::DeviceScan::ExclusiveSum(temp.memory, temp.bytes, values, values, n, stream), "summing counts");
}

}  // namespace splat::gpu

// Sorting and summing for the shim, in place of CUB: as stable, and asking for temporary memory in the same way.
#include <algorithm>
#include <vector>

#include "../cuda/kernels.h"

namespace splat::gpu {

namespace {

template <class Key>
void sort_pairs(SortTemp &temp, const Key *keys, Key *keys_out, const uint32_t *values, uint32_t *values_out, int64_t n, int bits) {
  if (!temp.memory) {
    temp.bytes = 1;
    return;
  }
  const Key used = bits >= static_cast<int>(8 * sizeof(Key)) ? static_cast<Key>(~Key(0)) : static_cast<Key>((Key(1) << bits) - 1);
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i++) order[static_cast<size_t>(i)] = i;
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return (keys[a] & used) < (keys[b] & used); });
  for (int64_t i = 0; i < n; i++) keys_out[i] = keys[order[static_cast<size_t>(i)]], values_out[i] = values[order[static_cast<size_t>(i)]];
}

}  // namespace

void sort_depths(SortTemp &temp, const uint32_t *keys, uint32_t *keys_out, const uint32_t *ids, uint32_t *ids_out, int64_t n, cudaStream_t) {
  sort_pairs(temp, keys, keys_out, ids, ids_out, n, 32);
}

void sort_tiles(SortTemp &temp, bool short_keys, const void *keys, void *keys_out, const uint32_t *values, uint32_t *values_out, int64_t n, int bits,
                cudaStream_t) {
  if (short_keys)
    sort_pairs(temp, static_cast<const uint16_t *>(keys), static_cast<uint16_t *>(keys_out), values, values_out, n, bits);
  else
    sort_pairs(temp, static_cast<const uint32_t *>(keys), static_cast<uint32_t *>(keys_out), values, values_out, n, bits);
}

void sum_before(SortTemp &temp, uint64_t *values, int64_t n, cudaStream_t) {
  if (!temp.memory) {
    temp.bytes = 1;
    return;
  }
  uint64_t sum = 0;
  for (int64_t i = 0; i < n; i++) {
    const uint64_t value = values[i];
    values[i] = sum;
    sum += value;
  }
}

}  // namespace splat::gpu

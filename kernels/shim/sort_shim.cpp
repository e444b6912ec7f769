// Sorting and summing for the shim, in place of CUB: as stable, and asking for temporary memory in the same way.
#include <algorithm>
#include <vector>

#include "../cuda/kernels.h"

namespace splat::gpu {

namespace {

// Without memory the answer is how much of it; with it, all of it is written to, as CUB does.
bool is_question(SortTemp &temp, int64_t n) {
  if (!temp.memory) temp.bytes = static_cast<size_t>(n + 1);
  return !temp.memory;
}

template <class Key> void sort_pairs(const TileSort &s) {
  const Key *keys = static_cast<const Key *>(s.keys);
  Key *keys_out = static_cast<Key *>(s.keys_out);
  const Key used = s.bits >= static_cast<int>(8 * sizeof(Key)) ? static_cast<Key>(~Key(0)) : static_cast<Key>((Key(1) << s.bits) - 1);
  const size_t n = static_cast<size_t>(s.n);
  shim::watch::library_read(keys, n * sizeof(Key)), shim::watch::library_read(s.values, n * sizeof(uint32_t));
  std::vector<int64_t> order(n);
  for (int64_t i = 0; i < s.n; i++) order[static_cast<size_t>(i)] = i;
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return (keys[a] & used) < (keys[b] & used); });
  for (int64_t i = 0; i < s.n; i++) keys_out[i] = keys[order[static_cast<size_t>(i)]], s.values_out[i] = s.values[order[static_cast<size_t>(i)]];
  shim::watch::library_wrote(keys_out, n * sizeof(Key)), shim::watch::library_wrote(s.values_out, n * sizeof(uint32_t));
}

void sum_all_before(uint64_t *values, int64_t n) {
  shim::watch::library_read(values, static_cast<size_t>(n) * sizeof(uint64_t));
  uint64_t sum = 0;
  for (int64_t i = 0; i < n; i++) {
    const uint64_t value = values[i];
    values[i] = sum;
    sum += value;
  }
}

}  // namespace

void sort_depths(SortTemp &temp, const DepthSort &s, cudaStream_t stream) {
  const TileSort whole{false, s.keys, s.keys_out, s.ids, s.ids_out, s.n, 32};
  if (!is_question(temp, s.n)) shim::on_stream(stream, [temp, whole] { memset(temp.memory, 0xff, temp.bytes), sort_pairs<uint32_t>(whole); });
}

void sort_tiles(SortTemp &temp, const TileSort &s, cudaStream_t stream) {
  if (is_question(temp, s.n)) return;
  shim::on_stream(stream, [temp, s] {
    memset(temp.memory, 0xff, temp.bytes);
    s.short_keys ? sort_pairs<uint16_t>(s) : sort_pairs<uint32_t>(s);
  });
}

void sum_before(SortTemp &temp, uint64_t *values, int64_t n, cudaStream_t stream) {
  if (!is_question(temp, n)) shim::on_stream(stream, [temp, values, n] { memset(temp.memory, 0xff, temp.bytes), sum_all_before(values, n); });
}

}  // namespace splat::gpu

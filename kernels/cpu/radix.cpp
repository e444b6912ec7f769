#include "radix.h"

#include <string.h>

#include <algorithm>

namespace splat {
namespace {

constexpr int MAX_BITS = 13;   // a digit: 8192 counters of four bytes stay in L1
constexpr int64_t MIN_PART = 8192;

struct Pair {
  uint32_t key, place;
};

struct Pass {
  const uint32_t *keys;
  const int32_t *counts;
  const int64_t *starts;  // of each chunk in the packed order
  int64_t n_chunks, total;
  int chunk_size;
  Pair *from, *to;
  uint32_t *order;        // instead of `to`, in the last pass
  uint32_t *digits;       // [part][1 << bits]
  int n_parts, shift, bits;
  uint32_t lowest;
  uint32_t *ranges;       // [part][min, max]
};

int64_t part_begin(int64_t n, int part, int n_parts) { return n * part / n_parts; }

// Packs the gapped keys and notes their range.
void pack(void *shared, int64_t part, int) {
  const Pass &p = *static_cast<Pass *>(shared);
  uint32_t low = ~0u, high = 0;
  const int64_t end = part_begin(p.n_chunks, static_cast<int>(part) + 1, p.n_parts);
  for (int64_t c = part_begin(p.n_chunks, static_cast<int>(part), p.n_parts); c < end; c++) {
    const uint32_t place = static_cast<uint32_t>(c * p.chunk_size);
    Pair *to = p.from + p.starts[c];
    for (int32_t i = 0; i < p.counts[c]; i++) {
      const uint32_t key = p.keys[place + i];
      low = std::min(low, key);
      high = std::max(high, key);
      to[i] = {key, place + i};
    }
  }
  p.ranges[2 * part] = low;
  p.ranges[2 * part + 1] = high;
}

void count(void *shared, int64_t part, int) {
  const Pass &p = *static_cast<Pass *>(shared);
  uint32_t *digits = p.digits + (part << p.bits);
  const uint32_t mask = (1u << p.bits) - 1;
  memset(digits, 0, sizeof(uint32_t) << p.bits);
  const int64_t end = part_begin(p.total, static_cast<int>(part) + 1, p.n_parts);
  for (int64_t i = part_begin(p.total, static_cast<int>(part), p.n_parts); i < end; i++) digits[(p.from[i].key - p.lowest) >> p.shift & mask]++;
}

void scatter(void *shared, int64_t part, int) {
  const Pass &p = *static_cast<Pass *>(shared);
  uint32_t *next = p.digits + (part << p.bits);
  const uint32_t mask = (1u << p.bits) - 1;
  const int64_t end = part_begin(p.total, static_cast<int>(part) + 1, p.n_parts);
  for (int64_t i = part_begin(p.total, static_cast<int>(part), p.n_parts); i < end; i++) {
    const uint32_t at = next[(p.from[i].key - p.lowest) >> p.shift & mask]++;
    if (p.order)
      p.order[at] = p.from[i].place;
    else
      p.to[at] = p.from[i];
  }
}

}  // namespace

const uint32_t *RadixSort::order(Pool &pool, const uint32_t *keys, const int32_t *counts, int64_t n_chunks, int chunk_size, int64_t total) {
  Pass p{};
  p.keys = keys, p.counts = counts, p.n_chunks = n_chunks, p.chunk_size = chunk_size, p.total = total;
  p.n_parts = static_cast<int>(std::clamp<int64_t>(total / MIN_PART, 1, pool.n_threads()));
  uint32_t *order = order_.of<uint32_t>(total + 1);
  Pair *pairs[2] = {pairs_[0].of<Pair>(total + 1), pairs_[1].of<Pair>(total + 1)};
  p.digits = counts_.of<uint32_t>(int64_t(p.n_parts) << MAX_BITS);
  int64_t *starts = starts_.of<int64_t>(n_chunks + 1 + p.n_parts);
  p.ranges = reinterpret_cast<uint32_t *>(starts + n_chunks + 1);
  int64_t sum = 0;
  for (int64_t c = 0; c < n_chunks; c++) starts[c] = sum, sum += counts[c];
  p.starts = starts;
  p.from = pairs[0];
  pool.run(p.n_parts, pack, &p);
  uint32_t low = ~0u, high = 0;
  for (int i = 0; i < p.n_parts; i++) low = std::min(low, p.ranges[2 * i]), high = std::max(high, p.ranges[2 * i + 1]);
  p.lowest = low;
  int width = 1;  // bits that differ
  while (width < 32 && (high - low) >> width) width++;
  const int passes = (width + MAX_BITS - 1) / MAX_BITS;
  p.bits = (width + passes - 1) / passes;
  for (int pass = 0; pass < passes; pass++) {
    p.shift = pass * p.bits;
    p.from = pairs[pass & 1], p.to = pairs[~pass & 1];
    p.order = pass + 1 == passes ? order : nullptr;
    pool.run(p.n_parts, count, &p);
    uint32_t at = 0;
    for (int digit = 0; digit < 1 << p.bits; digit++)
      for (int part = 0; part < p.n_parts; part++) {
        uint32_t *here = p.digits + (int64_t(part) << p.bits) + digit;
        const uint32_t n = *here;
        *here = at;
        at += n;
      }
    pool.run(p.n_parts, scatter, &p);
  }
  return order;
}

}  // namespace splat

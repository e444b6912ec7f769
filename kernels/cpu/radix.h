// Stable order of float bit patterns, least significant digit first, over records that lie in chunks with gaps.
#pragma once
#include <stdint.h>

#include "memory.h"
#include "pool.h"

namespace splat {

class RadixSort {
 public:
  // Places (chunk * chunk_size + i, i < counts[chunk]) in the order of their keys, ties by place. Valid until the next call.
  const uint32_t *order(Pool &pool, const uint32_t *keys, const int32_t *counts, int64_t n_chunks, int chunk_size, int64_t total);
  size_t bytes() const { return pairs_[0].size() + pairs_[1].size() + order_.size() + counts_.size() + starts_.size(); }

 private:
  Buffer pairs_[2], order_, counts_, starts_;
};

}  // namespace splat

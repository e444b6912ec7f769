// The passes of a step, as the host calls them: each puts its kernels into the queue and returns.
#pragma once
#include "queue.h"
#include "types.h"

namespace splat::gpu {

inline unsigned blocks_for(int64_t n, int64_t size) { return static_cast<unsigned>((n + size - 1) / size); }

// project.cu
void project(const Frame &f, Queue &queue);
void counts_by_depth(const Frame &f, Queue &queue);

// bin.cu: instances by emission number, keys being their tiles, counted before for a host that waits; then where each tile's begin and end in the sorted keys.
void count_instances(const Frame &f, Queue &queue);
void emit(const Frame &f, void *tile_keys, Queue &queue);
void find_ranges(const Frame &f, const void *sorted_keys, Queue &queue);
void count_up(uint32_t *to, int64_t n, Queue &queue);
inline bool has_short_keys(int n_tiles) { return n_tiles < 65535; }

// sort.cu: the one place that knows CUB (the shim has its own, sort_shim.cpp). Stable. Temporary memory: first ask with temp = NULL.
struct SortTemp {
  void *memory;
  size_t bytes;
};
struct TileSort {
  bool short_keys;
  const void *keys;
  void *keys_out;
  const uint32_t *values;
  uint32_t *values_out;
  int64_t n;
  int bits;
};
struct DepthSort {
  const uint32_t *keys;
  uint32_t *keys_out;
  const uint32_t *ids;
  uint32_t *ids_out;
  int64_t n;
};
void sort_depths(SortTemp &temp, const DepthSort &sort, cudaStream_t stream);
void sort_tiles(SortTemp &temp, const TileSort &sort, cudaStream_t stream);
void sum_before(SortTemp &temp, uint64_t *values, int64_t n, cudaStream_t stream);

// forward.cu, backward.cu, gradient.cu
void blend(const Frame &f, Queue &queue);
void spread(const Frame &f, Queue &queue);
void contribution(const Frame &f, Queue &queue);
void gradient(const Frame &f, Queue &queue);
void gather_contribution(const Frame &f, Queue &queue);

// loss.cu
int64_t loss_blocks(int width, int height);
void loss(const LossFrame &f, Queue &queue);

// knn.cu
void nearest(const float *points, int64_t n, int k, float *mean_sq_dist, Queue &queue);

// finite.cu: lowers *bad to the first place of a value that is NaN or Inf.
void find_bad_value(const float *values, int64_t n, unsigned long long *bad, Queue &queue);

}  // namespace splat::gpu

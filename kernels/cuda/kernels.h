// The passes of a step, as the host calls them: each queues its kernels on the stream and returns.
#pragma once
#include "types.h"

namespace splat::gpu {

inline unsigned blocks_for(int64_t n, int64_t size) { return static_cast<unsigned>((n + size - 1) / size); }

// project.cu
void project(const Frame &f, cudaStream_t stream);
void counts_by_depth(const Frame &f, cudaStream_t stream);

// bin.cu: instances by emission number, keys being their tiles; then where each tile's begin and end in the sorted keys.
void count_instances(const Frame &f, cudaStream_t stream);
void emit(const Frame &f, void *tile_keys, cudaStream_t stream);
void find_ranges(const Frame &f, const void *sorted_keys, cudaStream_t stream);
void count_up(uint32_t *to, int64_t n, cudaStream_t stream);
inline bool has_short_keys(int n_tiles) { return n_tiles < 65535; }

// sort.cu: the one place that knows CUB (the shim has its own, sort_shim.cpp). Stable. Temporary memory: first ask with temp = NULL.
struct SortTemp {
  void *memory;
  size_t bytes;
};
void sort_depths(SortTemp &temp, const uint32_t *keys, uint32_t *keys_out, const uint32_t *ids, uint32_t *ids_out, int64_t n, cudaStream_t stream);
void sort_tiles(SortTemp &temp, bool short_keys, const void *keys, void *keys_out, const uint32_t *values, uint32_t *values_out, int64_t n, int bits,
                cudaStream_t stream);
void sum_before(SortTemp &temp, uint64_t *values, int64_t n, cudaStream_t stream);

// forward.cu, backward.cu, gradient.cu
void blend(const Frame &f, cudaStream_t stream);
void spread(const Frame &f, cudaStream_t stream);
void contribution(const Frame &f, cudaStream_t stream);
void gradient(const Frame &f, cudaStream_t stream);
void gather_contribution(const Frame &f, cudaStream_t stream);

// loss.cu
int64_t loss_blocks(int width, int height);
void loss(const LossFrame &f, cudaStream_t stream);

// knn.cu
void nearest(const float *points, int64_t n, int k, float *mean_sq_dist, cudaStream_t stream);

// finite.cu: lowers *bad to the first place of a value that is NaN or Inf.
void find_bad_value(const float *values, int64_t n, unsigned long long *bad, cudaStream_t stream);

}  // namespace splat::gpu

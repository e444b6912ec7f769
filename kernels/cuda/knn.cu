// Mean squared distance to the k nearest others, by looking at all: exact, and quick enough for what it is asked once a run
// (a million points: some 10^12 distances, which is seconds at most).
#include "kernels.h"

namespace splat::gpu {

namespace {

constexpr int THREADS = 256;

// Keeps the K nearest, of which the first k count.
template <int K> __global__ void __launch_bounds__(THREADS) nearest_kernel(const float *points, int64_t n, int k, float *out) {
  SPLAT_SHARED(float, tile, 3 * THREADS);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t mine = global_thread();
  float at[3] = {0.0f, 0.0f, 0.0f}, best[K];
  for (int c = 0; c < 3 && mine < n; c++) at[c] = points[3 * mine + c];
  for (int j = 0; j < K; j++) best[j] = INFINITY;
  for (int64_t base = 0; base < n; base += THREADS) {
    __syncthreads();
    for (int c = 0; c < 3 && base + thread < n; c++) tile[3 * thread + c] = points[3 * (base + thread) + c];
    __syncthreads();
    const int count = static_cast<int>(n - base < THREADS ? n - base : THREADS);
    for (int i = 0; i < count && mine < n; i++) {
      const float x = tile[3 * i] - at[0], y = tile[3 * i + 1] - at[1], z = tile[3 * i + 2] - at[2];
      float d = x * x + y * y + z * z;
      if (!(d < best[K - 1]) || base + i == mine) continue;
      for (int j = 0; j < K; j++) {  // into place, the larger ones move on
        const float low = fminf(d, best[j]);
        d = fmaxf(d, best[j]);
        best[j] = low;
      }
    }
  }
  if (mine >= n) return;
  float sum = 0.0f;
  int found = 0;
  for (int j = 0; j < K; j++)
    if (j < k && best[j] < INFINITY) sum += best[j], found++;
  out[mine] = found ? sum / static_cast<float>(found) : 0.0f;
}

}  // namespace

void nearest(const float *points, int64_t n, int k, float *mean_sq_dist, Queue &queue) {
  if (!n) return;
  if (k <= 4)
    queue.launch(nearest_kernel<4>, blocks_for(n, THREADS), THREADS, points, n, k, mean_sq_dist);
  else
    queue.launch(nearest_kernel<16>, blocks_for(n, THREADS), THREADS, points, n, k, mean_sq_dist);
}

}  // namespace splat::gpu

// Looks for the first value of an array that is NaN or Inf.
#include "kernels.h"

namespace splat::gpu {

namespace {

constexpr int THREADS = 256, EACH = 8;  // values a thread

__global__ void __launch_bounds__(THREADS) find_bad_value_kernel(const float *values, int64_t n, unsigned long long *bad) {
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * THREADS * EACH + threadIdx.x;
  for (int k = 0; k < EACH; k++) {
    const int64_t i = begin + k * THREADS;
    if (i < n && !isfinite(values[i])) atomicMin(bad, static_cast<unsigned long long>(i));
  }
}

}  // namespace

void find_bad_value(const float *values, int64_t n, unsigned long long *bad, Queue &queue) {
  if (n) queue.launch(find_bad_value_kernel, blocks_for(n, THREADS * EACH), THREADS, values, n, bad);
}

}  // namespace splat::gpu
